//! Other MCP servers: their tools among a tenant's own, through every service and back.

mod fake;

use crate::{Outcome, text};
use e2e::{
    Backend, Era, Json, Sink, Stack, Target,
    mcp::Client,
    rest::Rest,
    sink::{Span, tree},
    stack::{MCP_SERVER, REST_API, WORKER},
    trace::Trace,
    wait_for,
};
use fake::Fake;
use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use std::collections::HashMap;

/// The services that the spans from this one up to the trace's root belong to, nearest first, without repeats in a row.
fn ancestry<'a>(spans: &'a [Span], from: &'a Span) -> Vec<&'a str> {
    let by_id: HashMap<&str, &Span> = spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let mut path = vec![from.service.as_str()];
    let mut at = from;
    while let Some(parent) = by_id.get(at.parent_id.as_str()) {
        at = parent;
        path.push(&at.service);
    }
    path.dedup();
    path
}

async fn register(rest: &Rest, upstream: &Json) -> anyhow::Result<Json> {
    rest.post("/api/v1/upstreams", upstream).await?.expect(201)
}

/// The code that a call fails with.
async fn failure(client: &Client, tool: &str) -> anyhow::Result<String> {
    let result = client.call(tool, &json!({})).await?;
    assert_eq!(result.is_error, Some(true), "{tool}: {result:?}");
    Ok(text(&result.structured_content.unwrap_or_default()["error"], "code").to_owned())
}

async fn wait_until_gone(client: &Client, tool: &str) -> Outcome {
    wait_for(&format!("{tool} to be gone"), async || {
        let listed = client.list_all_tools().await.ok()?;
        (!listed.iter().any(|listed| listed.name == tool)).then_some(())
    })
    .await
}

/// No service's log or metrics, and no span, holds it.
async fn nowhere(stack: &Stack, sink: &Sink, secret: &str) -> Outcome {
    for name in [REST_API, MCP_SERVER, WORKER] {
        assert!(
            !stack.process(name).log().contains(secret),
            "{name}'s log tells it"
        );
        assert!(
            !stack.metrics(name).await?.text.contains(secret),
            "{name}'s metrics"
        );
    }
    assert!(!format!("{:?}", sink.all()).contains(secret), "a span tells it");
    Ok(())
}

/// Registers a server with a credential, and is told its era and its tools but not the credential.
async fn joined(rest: &Rest, server: &Json, credential: &str, era: Era) -> Outcome {
    let mut server = server.clone();
    server["credentials"] = json!({"type": "bearer", "token": credential});
    server["tools"] = json!(["probe", "context_list"]);
    server["max_result_bytes"] = 100_000.into();
    let made = register(rest, &server).await?;
    let state = &made["state"];
    assert_eq!(state["error"], Json::Null, "{made}");
    assert_eq!(state["protocol_version"], era.version(), "{made}");
    assert_eq!(
        (&state["tools"], &made["has_credentials"]),
        (&json!(2), &json!(true)),
        "{made}"
    );
    assert!(!made.to_string().contains(credential));
    Ok(())
}

/// Calls the tool of the other server, and follows the call through both installations in one trace.
async fn probed(client: &Client, tool: &str, target: &Target, sink: &Sink) -> Outcome {
    let trace = Trace::start();
    let arguments = json!({"word": "hunter2"});
    let result = client.call_traced(tool, &arguments, &trace.traceparent()).await?;
    assert_eq!(result.is_error, Some(false), "{result:?}");
    let seen = target.seen().pop().expect("the probe was called");
    assert_eq!(serde_json::from_str::<Json>(&seen.body)?, arguments);
    assert_eq!(result.structured_content.unwrap_or_default()["status"], 200);
    let spans = sink
        .wait(&trace.trace_id, |spans| {
            let last = spans
                .iter()
                .find(|span| seen.header("traceparent").contains(&span.span_id));
            last.is_some_and(|last| ancestry(spans, last).len() == 6)
        })
        .await?;
    let last = spans
        .iter()
        .find(|span| seen.header("traceparent").contains(&span.span_id));
    let path = ancestry(&spans, last.expect("waited for"));
    let there_and_back = [WORKER, REST_API, MCP_SERVER, WORKER, REST_API, MCP_SERVER];
    assert_eq!(path, there_and_back, "{}", tree(&spans));
    let client_span = spans
        .iter()
        .find(|s| s.service == WORKER && s.kind == SpanKind::Client && s.name == "tools/call probe");
    let client_span = client_span.expect("the worker's own span of the call");
    assert_eq!(client_span.attribute("mcp.method.name"), "tools/call");
    assert!(
        !format!("{spans:?}").contains("hunter2"),
        "arguments are not told"
    );
    Ok(())
}

#[tokio::test]
async fn another_tenants_server_is_called_in_both_eras_and_one_trace() -> Outcome {
    for backend in Backend::available() {
        let (sink, target) = (Sink::start().await?, Target::start().await?);
        let stack = Stack::builder(backend)
            .sink(&sink)
            .allow_private()
            .start()
            .await?;
        let (theirs, ours) = (
            stack.tenant("platform", "all").await?,
            stack.tenant("acme", "all").await?,
        );
        let tool = json!({"name": "probe", "description": "Probes", "method": "POST", "url": target.url("/probe"),
            "read_only": false, "idempotent": true});
        stack
            .rest(&theirs)
            .post("/api/v1/tools", &tool)
            .await?
            .expect(201)?;
        stack
            .mcp(&theirs, Era::Modern)
            .await?
            .wait_for_tool("probe")
            .await?;

        let old = Fake::before(stack.mcp_url()).await?;
        let rest = stack.rest(&ours);
        let eras = [
            ("plat", stack.mcp_url(), Era::Modern),
            ("old", old.url("/mcp"), Era::Legacy),
        ];
        for (name, url, era) in eras {
            joined(&rest, &json!({"name": name, "url": url}), &theirs, era).await?;
        }
        let listed = rest.get("/api/v1/tools/plat_probe").await?.expect(200)?;
        assert_eq!(listed["upstream"], json!({"server": "plat", "tool": "probe"}));
        assert_eq!(
            (&listed["idempotent"], &listed["destructive"]),
            (&json!(true), &json!(false))
        );
        assert!(!listed.to_string().contains(&theirs));

        for era in Era::ALL {
            let client = stack.mcp(&ours, era).await?;
            for tool in ["plat_probe", "old_probe"] {
                client.wait_for_tool(tool).await?;
                probed(&client, tool, &target, &sink).await?;
            }
            // What is theirs stays theirs: their contexts are seen, ours are not among them.
            let contexts = client.structured("plat_context_list", &json!({})).await?;
            assert_eq!(contexts["contexts"], json!([]));
        }
        let ran = rest
            .get("/api/v1/executions?tool=plat_probe&limit=1")
            .await?
            .expect(200)?;
        assert_eq!(ran["items"][0]["status"], "succeeded");

        rest.delete("/api/v1/upstreams/plat").await?.expect(204)?;
        let client = stack.mcp(&ours, Era::Modern).await?;
        wait_until_gone(&client, "plat_probe").await?;
        client.wait_for_tool("old_probe").await?;
        nowhere(&stack, &sink, &theirs).await?;
    }
    Ok(())
}

/// Another tenant, and a key that is limited to other tools.
async fn strangers_find_none(stack: &Stack, rest: &Rest, fake: &Fake) -> Outcome {
    let others = stack.rest(&stack.tenant("other", "all").await?);
    let limited =
        json!({"name": "few", "scopes": ["tools:manage", "tools:read"], "tools": [{"tools": "fake_say"}]});
    let limited = rest.post("/api/v1/keys", &limited).await?.expect(201)?;
    let limited = rest.with_key(Some(text(&limited, "secret")));
    for stranger in [&others, &limited] {
        stranger
            .get("/api/v1/upstreams/fake")
            .await?
            .problem(404, "not_found")?;
        stranger
            .delete("/api/v1/upstreams/fake")
            .await?
            .problem(404, "not_found")?;
        stranger
            .post("/api/v1/upstreams/fake/refresh", &json!({}))
            .await?
            .problem(404, "not_found")?;
        let listed = stranger.get("/api/v1/upstreams").await?.expect(200)?;
        assert_eq!(listed["items"], json!([]));
    }
    let new = json!({"name": "mine", "url": fake.url("/mcp")});
    limited
        .post("/api/v1/upstreams", &new)
        .await?
        .problem(403, "tool_rules_exceeded")?;
    Ok(())
}

/// Credentials are for the origin that they were given for.
async fn credentials_stay_with_their_origin(rest: &Rest, fake: &Fake) -> Outcome {
    assert_eq!(fake.last_authorization(), "Bearer hush");
    let change = async |url: String, version: &str| {
        let body = json!({"url": url, "tools": ["say"]});
        rest.send(
            Method::PUT,
            "/api/v1/upstreams/fake",
            &[("if-match", version)],
            Some(&body),
        )
        .await
    };
    change(fake.url("/mcp"), "\"7\"")
        .await?
        .problem(412, "version_mismatch")?;
    let same = change(fake.url("/mcp?x=1"), "\"1\"").await?.expect(200)?;
    assert_eq!(
        (&same["has_credentials"], &same["state"]["tools"]),
        (&json!(true), &json!(1))
    );
    let second = Fake::start().await?;
    let moved = change(second.url("/mcp"), "\"2\"").await?.expect(200)?;
    assert_eq!(moved["has_credentials"], false);
    assert_eq!(
        second.last_authorization(),
        "",
        "another server is shown none of it"
    );
    let listed = rest.get("/api/v1/tools").await?.expect(200)?;
    let names: Vec<_> = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|t| text(t, "name"))
        .collect();
    assert_eq!(names, ["fake_say"]);
    Ok(())
}

#[tokio::test]
async fn upstreams_are_managed_by_whom_they_belong_to() -> Outcome {
    for backend in Backend::available() {
        let stack = Stack::builder(backend).allow_private().start().await?;
        let fake = Fake::start().await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let made = register(
            &rest,
            &json!({"name": "fake", "url": fake.url("/mcp"),
            "credentials": {"type": "bearer", "token": "hush"}}),
        )
        .await?;
        assert_eq!(made["version"], 1);
        rest.post(
            "/api/v1/upstreams",
            &json!({"name": "fake", "url": fake.url("/mcp")}),
        )
        .await?
        .problem(409, "already_exists")?;
        for (bad, field) in [
            (json!({"name": "Fake", "url": fake.url("/mcp")}), "name"),
            (json!({"name": "context", "url": fake.url("/mcp")}), "name"),
            (json!({"name": "x", "url": "file:///etc/passwd"}), "url"),
        ] {
            let problem = rest
                .post("/api/v1/upstreams", &bad)
                .await?
                .problem(400, "invalid_argument")?;
            assert_eq!(problem["field"], field);
        }

        // Its tools change with it only.
        let tool = json!({"description": "mine now", "url": "https://evil.example/"});
        rest.send(Method::PUT, "/api/v1/tools/fake_say", &[], Some(&tool))
            .await?
            .problem(409, "upstream_tool")?;
        rest.delete("/api/v1/tools/fake_say")
            .await?
            .problem(409, "upstream_tool")?;
        let forged = json!({"name": "forged", "description": "d", "url": fake.url("/mcp"),
            "upstream": {"server": "fake", "tool": "say"}});
        rest.post("/api/v1/tools", &forged)
            .await?
            .problem(400, "invalid_argument")?;

        strangers_find_none(&stack, &rest, &fake).await?;
        credentials_stay_with_their_origin(&rest, &fake).await?;
    }
    Ok(())
}

/// What it lists may change between two askings.
async fn it_lists_others(rest: &Rest, fake: &Fake, client: &Client) -> Outcome {
    let before = rest.get("/api/v1/tools/fake_say").await?.expect(200)?;
    fake.relist(json!([
        {"name": "say", "description": "says it louder", "inputSchema": {"type": "object", "required": ["word"]}},
        {"name": "down", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}},
    ]));
    let asked = rest
        .post("/api/v1/upstreams/fake/refresh", &json!({}))
        .await?
        .expect(200)?;
    assert_eq!(
        (&asked["state"]["tools"], &asked["version"]),
        (&json!(2), &json!(1))
    );
    let after = rest.get("/api/v1/tools/fake_say").await?.expect(200)?;
    assert_eq!((&before["version"], &after["version"]), (&json!(1), &json!(2)));
    wait_until_gone(client, "fake_huge").await?;
    rest.post("/api/v1/tools/fake_say/execute", &json!({"arguments": {}}))
        .await?
        .problem(400, "invalid_arguments")?;
    Ok(())
}

/// A server that is away keeps its tools, is left alone after a while, and is found again.
async fn it_goes_away_and_comes_back(stack: &Stack, rest: &Rest, fake: &Fake, client: &Client) -> Outcome {
    client.wait_for_tool("fake_down").await?;
    fake.break_down(true);
    let asked = rest
        .post("/api/v1/upstreams/fake/refresh", &json!({}))
        .await?
        .expect(200)?;
    assert_eq!(
        (&asked["state"]["error"]["code"], &asked["state"]["tools"]),
        (&json!("http_status"), &json!(2))
    );
    for _ in 0..4 {
        assert_eq!(failure(client, "fake_down").await?, "http_status");
    }
    assert_eq!(failure(client, "fake_down").await?, "circuit_open");
    let label = [("upstream", "acme/fake")];
    let open = stack
        .metrics(WORKER)
        .await?
        .sum("mcp_upstream_circuit_open", &label);
    assert_eq!(open, 1.0);
    fake.break_down(false);
    let asked = rest
        .post("/api/v1/upstreams/fake/refresh", &json!({}))
        .await?
        .expect(200)?;
    assert_eq!(asked["state"]["error"], Json::Null);
    client.structured("fake_down", &json!({})).await?;
    let scrape = stack.metrics(WORKER).await?;
    assert_eq!(scrape.sum("mcp_upstream_circuit_open", &label), 0.0);
    for result in ["ok", "tool_error", "failed", "circuit_open"] {
        let labels = [("upstream", "acme/fake"), ("result", result)];
        assert!(
            scrape.sum("mcp_upstream_requests_total", &labels) > 0.0,
            "{result}"
        );
    }
    assert!(scrape.has("mcp_upstream_request_duration_seconds"));
    Ok(())
}

#[tokio::test]
async fn a_hostile_or_broken_server_harms_nobody() -> Outcome {
    let sink = Sink::start().await?;
    let stack = Stack::builder(Backend::Sqlite)
        .sink(&sink)
        .allow_private()
        .start()
        .await?;
    let (fake, target) = (Fake::start().await?, Target::start().await?);
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    let own = json!({"name": "fake_taken", "description": "ours", "url": target.url("/probe")});
    rest.post("/api/v1/tools", &own).await?.expect(201)?;
    let made = register(
        &rest,
        &json!({"name": "fake", "url": fake.url("/mcp"), "timeout_ms": 1500,
            "credentials": {"type": "header", "name": "X-Key", "value": "s3cret-of-the-fake"}}),
    )
    .await?;
    let left_out = made["state"]["left_out"].as_array().cloned().unwrap_or_default();
    let reasons: HashMap<_, _> = left_out
        .iter()
        .map(|left| (text(left, "tool"), text(left, "reason")))
        .collect();
    let expected = [
        ("taken", "name_taken"),
        ("a/b", "name_invalid"),
        ("elsewhere", "schema_invalid"),
        ("say", "name_repeated"),
    ];
    assert_eq!(reasons, HashMap::from(expected), "{made}");
    let ours = rest.get("/api/v1/tools/fake_taken").await?.expect(200)?;
    assert_eq!(ours["description"], "ours");

    let client = stack.mcp(&key, Era::Modern).await?;
    client.wait_for_tool("fake_say").await?;
    let said = client.structured("fake_say", &json!({})).await?;
    assert_eq!(said["content"][0]["text"], "said over events", "{said}");
    let failed = client.call("fake_fail", &json!({})).await?;
    let structure = failed.structured_content.unwrap_or_default();
    assert_eq!(structure["error"]["code"], "tool_error");
    assert_eq!(structure["result"]["content"][0]["text"], "no such thing");
    for (tool, code) in [
        ("fake_huge", "response_too_large"),
        ("fake_astray", "address_not_allowed"),
        ("fake_slow", "timeout"),
    ] {
        assert_eq!(failure(&client, tool).await?, code, "{tool}");
    }

    it_lists_others(&rest, &fake, &client).await?;
    it_goes_away_and_comes_back(&stack, &rest, &fake, &client).await?;
    nowhere(&stack, &sink, "s3cret-of-the-fake").await
}
