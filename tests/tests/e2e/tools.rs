//! Registered HTTP tools, over REST and MCP.

use crate::{Outcome, text, world};
use e2e::{Backend, Era, Json, PATIENCE, Stack, Target, mcp, rest::Rest, stack::MCP_SERVER, wait_for};
use rmcp::{
    model::{
        CallToolRequest, ClientRequest, NumberOrString, ProgressToken, RequestMetaObject, SubscriptionFilter,
    },
    service::PeerRequestOptions,
};
use serde_json::json;

async fn register(rest: &Rest, tool: &Json) -> anyhow::Result<Json> {
    rest.post("/api/v1/tools", tool).await?.expect(201)
}

async fn execute(rest: &Rest, name: &str, arguments: &Json) -> anyhow::Result<Json> {
    rest.post(
        &format!("/api/v1/tools/{name}/execute"),
        &json!({ "arguments": arguments }),
    )
    .await?
    .expect(200)
}

#[tokio::test]
async fn a_tool_is_registered_run_changed_and_removed() -> Outcome {
    for backend in Backend::available() {
        let (stack, key, rest, target) = world(backend).await?;
        let schema = json!({
            "type": "object", "required": ["city"], "additionalProperties": false,
            "properties": {"city": {"type": "string"}, "units": {"enum": ["metric", "imperial"]}},
        });
        let tool = json!({
            "name": "weather", "description": "Weather of a city.", "url": target.url("/weather/{city}?fixed=1"),
            "headers": {"x-team": "acme"}, "input_schema": schema,
            "credentials": {"type": "bearer", "token": "s3cret-t0ken"},
        });
        let made = register(&rest, &tool).await?;
        assert_eq!(
            (&made["has_credentials"], &made["read_only"], &made["method"]),
            (&json!(true), &json!(true), &json!("GET"))
        );
        rest.post("/api/v1/tools", &tool)
            .await?
            .problem(409, "already_exists")?;

        // An argument cannot leave its place.
        let ran = execute(
            &rest,
            "weather",
            &json!({"city": "../admin?x=1#y", "units": "metric"}),
        )
        .await?;
        assert_eq!(
            (&ran["status"], &ran["attempts"], &ran["error"]),
            (&json!("succeeded"), &json!(1), &Json::Null)
        );
        assert_eq!(ran["result"]["status"], 200);
        let seen = target
            .seen()
            .pop()
            .ok_or_else(|| anyhow::anyhow!("nothing arrived"))?;
        assert_eq!(
            seen.uri, "/weather/..%2Fadmin%3Fx%3D1%23y?fixed=1&units=metric",
            "{backend:?}"
        );
        assert_eq!(
            (seen.header("authorization"), seen.header("x-team")),
            ("Bearer s3cret-t0ken", "acme")
        );
        assert_eq!(seen.header("idempotency-key"), text(&ran, "id"));

        let stored = rest
            .get(&format!("/api/v1/executions/{}", text(&ran, "id")))
            .await?
            .expect(200)?;
        assert_eq!(stored, ran, "what is answered is what is stored");
        let listed = rest
            .get("/api/v1/executions?tool=weather&status=succeeded")
            .await?
            .expect(200)?;
        assert_eq!(listed["items"][0]["id"], ran["id"]);

        assert_runs_over_mcp(&stack, &key).await?;
        assert_nothing_leaked(&stack, &rest).await?;

        let change =
            json!({"description": "New.", "method": "POST", "url": target.url("/new"), "credentials": null});
        let changed = rest
            .send(
                http::Method::PUT,
                "/api/v1/tools/weather",
                &[("if-match", "\"1\"")],
                Some(&change),
            )
            .await?;
        assert_eq!(changed.expect(200)?["has_credentials"], json!(false));
        execute(&rest, "weather", &json!({"a": 1})).await?;
        let seen = target
            .seen()
            .pop()
            .ok_or_else(|| anyhow::anyhow!("nothing arrived"))?;
        assert_eq!(
            (
                seen.uri.as_str(),
                seen.body.as_str(),
                seen.header("authorization")
            ),
            ("/new", "{\"a\":1}", "")
        );
        rest.delete("/api/v1/tools/weather").await?.expect(204)?;
        rest.post("/api/v1/tools/weather/execute", &json!({}))
            .await?
            .problem(404, "not_found")?;
        rest.get(&format!("/api/v1/executions/{}", text(&ran, "id")))
            .await?
            .expect(200)?;
    }
    Ok(())
}

async fn assert_runs_over_mcp(stack: &Stack, key: &str) -> Outcome {
    for era in Era::ALL {
        let client = stack.mcp(key, era).await?;
        let listed = client.wait_for_tool("weather").await?;
        assert_eq!(
            listed.input_schema["properties"]["city"],
            json!({"type": "string"})
        );
        assert_eq!(
            listed.annotations.as_ref().and_then(|hints| hints.read_only_hint),
            Some(true)
        );
        let result = client.structured("weather", &json!({"city": "Köln"})).await?;
        assert_eq!(result["body"]["uri"], "/weather/K%C3%B6ln?fixed=1", "{era:?}");
        let bad = client.call("weather", &json!({"town": "Köln"})).await?;
        assert_eq!(
            bad.structured_content.unwrap_or_default()["error"]["code"],
            "invalid_arguments",
            "{era:?}"
        );
    }
    Ok(())
}

/// What was kept secret has shown up nowhere.
async fn assert_nothing_leaked(stack: &Stack, rest: &Rest) -> Outcome {
    for name in stack.names() {
        assert!(
            !stack.process(name).log().contains("s3cret-t0ken"),
            "{name} logs the credentials"
        );
        assert!(
            !stack.process(name).log().contains("K\u{f6}ln"),
            "{name} logs arguments"
        );
    }
    for path in ["/api/v1/tools", "/api/v1/tools/weather", "/api/v1/executions"] {
        assert!(
            !rest.get(path).await?.text.contains("s3cret-t0ken"),
            "{path} shows the credentials"
        );
    }
    let database = std::fs::read(stack.directory().join("devops-mcp.db")).unwrap_or_default();
    assert!(
        !database.windows(12).any(|bytes| bytes == b"s3cret-t0ken"),
        "the credentials lie in the database"
    );
    Ok(())
}

#[tokio::test]
async fn an_endpoint_that_misbehaves_ends_in_a_stored_clear_failure() -> Outcome {
    let (stack, _, rest, target) = world(Backend::Sqlite).await?;
    let cases = [
        ("teapot", "/status/418", 30_000, "http_status"),
        ("big", "/big/3000000", 30_000, "response_too_large"),
        ("slow", "/slow/60000", 500, "timeout"),
        ("loop", "/loop", 30_000, "too_many_redirects"),
    ];
    for (name, path, timeout_ms, code) in cases {
        let url = target.url(path);
        register(
            &rest,
            &json!({"name": name, "description": "d", "url": url, "timeout_ms": timeout_ms}),
        )
        .await?;
        let ran = execute(&rest, name, &json!({})).await?;
        assert_eq!(
            (&ran["status"], &ran["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{name}: {ran}"
        );
        assert_eq!(
            rest.get(&format!("/api/v1/executions/{}", text(&ran, "id")))
                .await?
                .expect(200)?,
            ran
        );
    }
    let refused = json!({"name": "nobody", "description": "d", "url": format!("http://127.0.0.1:{}/", e2e::process::free_port())});
    register(&rest, &refused).await?;
    assert_eq!(
        execute(&rest, "nobody", &json!({})).await?["error"]["code"],
        "connect_failed"
    );

    // A call that may not run twice and got no answer: nobody knows what it did.
    let once = json!({"name": "once", "description": "d", "method": "POST", "url": target.url("/slow/60000"), "timeout_ms": 3000});
    register(&rest, &once).await?;
    let ran = execute(&rest, "once", &json!({})).await?;
    assert_eq!(ran["status"], "outcome_unknown", "{ran}");
    let arrived = target
        .seen()
        .iter()
        .filter(|seen| seen.uri == "/slow/60000" && seen.method == "POST")
        .count();
    assert_eq!(arrived, 1, "it must not be repeated");
    stack
        .wait_metric(
            "rest-api",
            "mcp_tool_executions_total",
            &[("tool", "once"), ("status", "outcome_unknown")],
            |n| n == 1.0,
        )
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_catalogue_changes_under_connected_clients() -> Outcome {
    for backend in Backend::available() {
        let (stack, key, rest, target) = world(backend).await?;
        let legacy = stack.mcp(&key, Era::Legacy).await?;
        let modern = stack.mcp(&key, Era::Modern).await?;
        let mut changes = modern
            .listen(SubscriptionFilter::builder().tools_list_changed().build())
            .await?;
        let other = stack.tenant("other", "all").await?;
        let foreign = stack.mcp(&other, Era::Legacy).await?;
        // Sessions are told through streams that their clients open when they have been initialized.
        let streams = [("method", "GET"), ("path", "/mcp"), ("status", "200")];
        stack
            .wait_metric(MCP_SERVER, "http_requests_total", &streams, |open| open == 2.0)
            .await?;

        register(
            &rest,
            &json!({"name": "fresh", "description": "d", "url": target.url("/")}),
        )
        .await?;
        tokio::time::timeout(PATIENCE, changes.next()).await??;
        wait_for("the legacy session to be told", async || {
            (legacy.heard.tool_list_changes() > 0).then_some(())
        })
        .await?;
        // Whoever was told of a change finds it.
        for client in [&legacy, &modern] {
            assert!(
                client
                    .list_all_tools()
                    .await?
                    .iter()
                    .any(|tool| tool.name == "fresh"),
                "{backend:?}"
            );
        }
        // Another tenant neither sees it nor hears of it nor runs it.
        assert!(
            !foreign
                .list_all_tools()
                .await?
                .iter()
                .any(|tool| tool.name == "fresh")
        );
        assert_eq!(foreign.heard.tool_list_changes(), 0, "{backend:?}");
        assert!(foreign.call("fresh", &json!({})).await.is_err());
        stack
            .wait_metric(MCP_SERVER, "mcp_catalogue_tools", &[], |tools| tools == 1.0)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn progress_comes_and_cancelling_reaches_the_worker() -> Outcome {
    let (stack, key, rest, target) = world(Backend::Sqlite).await?;
    register(
        &rest,
        &json!({"name": "slow", "description": "d", "url": target.url("/slow/300000"), "timeout_ms": 300_000}),
    )
    .await?;
    register(
        &rest,
        &json!({"name": "fast", "description": "d", "url": target.url("/fast")}),
    )
    .await?;
    for era in Era::ALL {
        let client = stack.mcp(&key, era).await?;
        let mut meta = RequestMetaObject::new();
        meta.set_progress_token(ProgressToken(NumberOrString::String("p-1".into())));
        let mut params = mcp::params("fast", &json!({}));
        params.meta = Some(meta);
        client.call_tool(params).await?;
        wait_for("progress", async || {
            (!client.heard.progress().is_empty()).then_some(())
        })
        .await?;

        let before = target.seen().len();
        let request = CallToolRequest::new(mcp::params("slow", &json!({})));
        let handle = client
            .send_cancellable_request(
                ClientRequest::CallToolRequest(request),
                PeerRequestOptions::no_options(),
            )
            .await?;
        wait_for("the call to arrive", async || {
            (target.seen().len() > before).then_some(())
        })
        .await?;
        handle.cancel(Some("changed my mind".into())).await?;
        let path = "/api/v1/executions?tool=slow&limit=1";
        let ended = wait_for("the execution to end", async || {
            let listed = rest.get(path).await.ok()?.json();
            let first = listed["items"][0].clone();
            (first["status"] != "running").then_some(first)
        })
        .await?;
        assert_eq!(ended["status"], "cancelled", "{era:?}: {ended}");
        stack
            .wait_metric("worker", "worker_runs_in_flight", &[], |runs| runs == 0.0)
            .await?;
        client.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_tenant_s_runs_are_bounded_and_the_others_go_on() -> Outcome {
    let target = Target::start().await?;
    let stack = Stack::builder(Backend::Sqlite)
        .allow_private()
        .set("worker", "CONCURRENCY__PER_TENANT", "2")
        .set("worker", "CONCURRENCY__WAITING_PER_TENANT", "1")
        .set("worker", "CONCURRENCY__WAIT", "5m")
        .start()
        .await?;
    let (rest, other) = (
        stack.rest(&stack.tenant("acme", "all").await?),
        stack.rest(&stack.tenant("other", "all").await?),
    );
    for (rest, path) in [(&rest, "/held"), (&other, "/echo")] {
        let tool = json!({"name": "t", "description": "d", "url": target.url(path), "timeout_ms": 300_000});
        register(rest, &tool).await?;
    }
    let runs = (0..6).map(|_| async { execute(&rest, "t", &json!({})).await });
    let (acme, others) = tokio::join!(futures_util::future::try_join_all(runs), async {
        // While the first tenant has two at the endpoint, one waiting and three turned away.
        let full = [("worker_overloaded_total", 3.0), ("worker_slots_waiting", 1.0)];
        for (metric, expected) in full {
            stack
                .wait_metric("worker", metric, &[], |n| n == expected)
                .await?;
        }
        let ran = execute(&other, "t", &json!({})).await;
        target.release();
        ran
    });
    assert_eq!(others?["status"], "succeeded");
    let acme = acme?;
    let count = |status: &str| acme.iter().filter(|run| run["status"] == status).count();
    assert_eq!((count("succeeded"), count("failed")), (3, 3), "{acme:?}");
    assert!(
        acme.iter()
            .filter(|run| run["status"] == "failed")
            .all(|run| run["error"]["code"] == "overloaded")
    );
    Ok(())
}
