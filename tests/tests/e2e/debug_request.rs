//! One request under the magnifying glass: forced traces and log levels, what a process remembers of its slow requests,
//! and the way from a request's id to its trace.

use crate::{Outcome, text};
use anyhow::Context as _;
use e2e::{
    Backend, Era, Json, Sink, Stack, Target,
    raw::{self, Raw},
    rest::{Answer, Rest},
    sink::{Span, tree},
    stack::{ADMIN_TOKEN, Builder, MCP_SERVER, REST_API, WORKER},
    wait_for,
};
use http::Method;
use serde_json::json;

const ALL: [&str; 3] = [REST_API, MCP_SERVER, WORKER];
const JAEGER: &str = "http://jaeger.example:16686";

/// All services, none of which samples anything by itself.
fn unsampled(sink: &Sink) -> Builder {
    let stack = Stack::builder(Backend::Sqlite).sink(sink).allow_private();
    ALL.into_iter().fold(stack, |stack, service| {
        stack.set(service, "MONITORING__TRACING__SAMPLE_RATIO", "0")
    })
}

fn admin(stack: &Stack, service: &str) -> Rest {
    Rest::new(&stack.http(service), Some(ADMIN_TOKEN))
}

async fn tool(rest: &Rest, name: &str, url: &str) -> Outcome {
    let tool = json!({"name": name, "description": "d", "url": url});
    rest.post("/api/v1/tools", &tool).await?.expect(201).map(drop)
}

/// Calls a tool over MCP; `debug` is the value of the header.
async fn call(raw: &Raw, tool: &str, id: &str, debug: Option<&str>) -> anyhow::Result<Answer> {
    let params = json!({"name": tool, "arguments": {}});
    let mut request = raw.modern("tools/call", params).header("x-request-id", id);
    if let Some(value) = debug {
        request = request.header("x-debug-trace", value);
    }
    let answer = Answer::read(request.send().await?).await?;
    anyhow::ensure!(
        raw::response(&answer)?["result"]["isError"] == json!(false),
        "{}",
        answer.text
    );
    Ok(answer)
}

/// Opens a session of the legacy era and has one call in it debugged.
async fn legacy(raw: &Raw, tool: &str, id: &str) -> anyhow::Result<Answer> {
    let version = Era::Legacy.version();
    let hello = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "e2e", "version": "0"}});
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
    let opened = Answer::read(raw.post().json(&hello).send().await?).await?;
    let within = |message: &Json| {
        let request = raw
            .post()
            .header("mcp-session-id", opened.header("mcp-session-id"));
        request.header("mcp-protocol-version", version).json(message)
    };
    within(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
        .send()
        .await?;
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
    let call = within(&call)
        .header("x-debug-trace", "true")
        .header("x-request-id", id);
    let answer = Answer::read(call.send().await?).await?;
    anyhow::ensure!(
        raw::response(&answer)?["result"]["isError"] == json!(false),
        "{}",
        answer.text
    );
    Ok(answer)
}

/// An operator's question.
async fn ask(stack: &Stack, service: &str, path: &str) -> anyhow::Result<Answer> {
    admin(stack, service).get(path).await
}

async fn outcomes(stack: &Stack, service: &str) -> anyhow::Result<[f64; 3]> {
    let scrape = stack.metrics(service).await?;
    Ok(["granted", "forbidden", "limited"]
        .map(|outcome| scrape.sum("debug_requests_total", &[("outcome", outcome)])))
}

fn services(spans: &[Span]) -> Vec<&str> {
    let mut names: Vec<_> = spans.iter().map(|span| span.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a service remembers of a request.
async fn remembered(stack: &Stack, service: &str, id: &str) -> anyhow::Result<Vec<Json>> {
    let path = format!("/debug/traces/{id}?format=json");
    wait_for(&format!("{service} to remember {id}"), async || {
        let answer = ask(stack, service, &path).await.ok()?;
        let json = (answer.status == 200).then(|| answer.json())?;
        json["requests"].as_array().cloned()
    })
    .await
}

#[tokio::test]
async fn a_debugged_request_is_traced_and_logged_everywhere_and_its_neighbours_are_not() -> Outcome {
    let (sink, target) = (Sink::start().await?, Target::start().await?);
    let stack = unsampled(&sink)
        .set(REST_API, "MONITORING__TRACING__UI_URL", &format!("{JAEGER}/"))
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    tool(&rest, "probe", &target.url("/slow/50")).await?;
    stack.mcp(&key, Era::Modern).await?.wait_for_tool("probe").await?;

    // At once, so that the one is served while the other is.
    let raw = stack.raw(&key);
    let (debugged, neighbour) = tokio::try_join!(
        call(&raw, "probe", "debug-mcp", Some("true")),
        call(&raw, "probe", "plain-mcp", None)
    )?;
    let trace = debugged.header("x-trace-id").to_owned();
    let spans = sink
        .wait(&trace, |spans| services(spans) == [MCP_SERVER, REST_API, WORKER])
        .await?;
    assert_eq!(
        sink.trace(neighbour.header("x-trace-id")).len(),
        0,
        "nobody asked for it"
    );
    assert!(debugged.header("traceresponse").ends_with("-01"), "{debugged:?}");
    assert!(
        spans
            .iter()
            .any(|span| span.attribute("request.id") == "debug-mcp"),
        "{}",
        tree(&spans)
    );
    for service in ALL {
        let line = stack
            .wait_log(service, |line| {
                line["level"] == "DEBUG" && line["request_id"] == "debug-mcp"
            })
            .await?;
        assert_eq!(line["trace_id"], json!(trace), "{service}: {line}");
        let others = stack.logs(service);
        let others = others
            .iter()
            .filter(|line| line["level"] == "DEBUG" && line["request_id"] != "debug-mcp");
        assert_eq!(others.count(), 0, "{service} logs more of others, too");
    }
    // A session of the former protocol, whose messages are handled in the session's task.
    let in_session = legacy(&raw, "probe", "debug-legacy").await?;
    sink.wait(in_session.header("x-trace-id"), |spans| {
        services(spans) == [MCP_SERVER, REST_API, WORKER]
    })
    .await?;
    assert_eq!(outcomes(&stack, MCP_SERVER).await?, [2.0, 0.0, 0.0]);
    assert_eq!(
        outcomes(&stack, REST_API).await?,
        [0.0; 3],
        "counted once, where it entered"
    );

    // As the guide has it.
    let headers = [("x-debug-trace", "1"), ("x-request-id", "debug-123")];
    let listed = rest.send(Method::GET, "/api/v1/contexts", &headers, None).await?;
    listed.expect(200)?;
    for (id, trace) in [("debug-123", listed.header("x-trace-id")), ("debug-mcp", &trace)] {
        let known = remembered(&stack, REST_API, id).await?;
        assert!(known.iter().all(|known| known["sampled"] == true), "{known:?}");
        let answer = ask(&stack, REST_API, &format!("/debug/traces/{id}")).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (302, format!("{JAEGER}/trace/{trace}").as_str())
        );
    }
    let elsewhere = ask(&stack, REST_API, "/debug/traces/of-another-replica").await?;
    let search =
        format!("{JAEGER}/search?service=rest-api&tags=%7B%22request.id%22%3A%22of-another-replica%22%7D&");
    assert!(
        elsewhere.status == 302 && elsewhere.header("location").starts_with(&search),
        "{elsewhere:?}"
    );
    // This one has not been told of Jaeger.
    let kept = remembered(&stack, MCP_SERVER, "debug-mcp").await?;
    assert_eq!(
        (&kept[0]["kind"], &kept[0]["name"]),
        (&json!("mcp"), &json!("tools/call probe"))
    );
    let unknown = ask(&stack, MCP_SERVER, "/debug/traces/unheard-of").await?;
    let problem = unknown.problem(404, "not_found")?;
    assert!(
        text(&problem, "detail").contains("X-Debug-Trace: true"),
        "{problem}"
    );
    Ok(())
}

#[tokio::test]
async fn who_may_not_debug_is_served_as_ever_and_a_flood_is_held_to_its_budget() -> Outcome {
    let sink = Sink::start().await?;
    let stack = unsampled(&sink).services(&[REST_API, MCP_SERVER]).start().await?;
    let key = stack.tenant("acme", "all").await?;
    let reader = stack.key("acme", "contexts:read").await?;
    let get = async |rest: &Rest, id: &str| {
        let headers = [("x-debug-trace", "true"), ("x-request-id", id)];
        rest.send(Method::GET, "/api/v1/contexts?limit=1", &headers, None)
            .await
    };
    let rest = stack.rest(&reader);
    let ignored = get(&rest, "ignored").await?;
    ignored.expect(200)?;
    assert!(ignored.header("traceresponse").ends_with("-00"), "{ignored:?}");
    get(&rest.with_key(None), "nobody")
        .await?
        .problem(401, "missing_credentials")?;
    let stranger = stack.raw("dmcp_wrong");
    let request = stranger
        .modern("tools/list", json!({}))
        .header("x-debug-trace", "true");
    assert_eq!(Answer::read(request.send().await?).await?.status, 401);
    assert_eq!(outcomes(&stack, REST_API).await?, [0.0, 2.0, 0.0]);
    assert_eq!(outcomes(&stack, MCP_SERVER).await?, [0.0, 1.0, 0.0]);
    assert_eq!(sink.trace(ignored.header("x-trace-id")).len(), 0);
    assert!(stack.logs(REST_API).iter().all(|line| line["level"] != "DEBUG"));

    let rest = stack.rest(&key);
    let flood = (0..60).map(|number| {
        let (rest, get) = (rest.clone(), &get);
        async move { get(&rest, &format!("flood-{number}")).await?.expect(200) }
    });
    futures_util::future::try_join_all(flood).await?;
    let [granted, forbidden, limited] = outcomes(&stack, REST_API).await?;
    assert_eq!((granted + limited, forbidden), (60.0, 2.0));
    assert!(
        granted >= 5.0 && limited > 0.0,
        "{granted} granted, {limited} limited"
    );
    let kept = stack
        .metrics(REST_API)
        .await?
        .sum("recent_requests_total", &[("reason", "debug")]);
    assert_eq!(kept, granted);
    Ok(())
}

#[tokio::test]
async fn slow_and_failed_requests_are_remembered_with_what_was_done_for_them() -> Outcome {
    let (sink, target) = (Sink::start().await?, Target::start().await?);
    let mut builder = unsampled(&sink);
    for service in ALL {
        builder = builder.set(service, "MONITORING__TRACING__UI_URL", JAEGER);
    }
    let mut stack = builder.start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    tool(&rest, "sluggish", &target.url("/slow/900")).await?;
    stack
        .mcp(&key, Era::Modern)
        .await?
        .wait_for_tool("sluggish")
        .await?;
    let answer = call(&stack.raw(&key), "sluggish", "slow-1", None).await?;
    let trace = answer.header("x-trace-id");

    let expected = [
        (
            MCP_SERVER,
            "mcp",
            "tools/call sluggish",
            "grpc",
            "devops_mcp.v1.Executions/Run",
        ),
        (
            REST_API,
            "grpc",
            "devops_mcp.v1.Executions/Run",
            "grpc",
            "devops_mcp.v1.ToolRunner/Run",
        ),
        (WORKER, "execution", "execute_tool sluggish", "http", "/slow/900"),
    ];
    for (service, kind, name, child_kind, child_name) in expected {
        let all = remembered(&stack, service, "slow-1").await?;
        let [record] = all.as_slice() else {
            anyhow::bail!("{service}: {all:?}")
        };
        assert_eq!(
            (&record["kind"], &record["name"]),
            (&json!(kind), &json!(name)),
            "{service}"
        );
        assert_eq!(
            (&record["reasons"], &record["sampled"]),
            (&json!(["slow"]), &json!(false))
        );
        assert_eq!(
            (&record["trace_id"], &record["tenant"]),
            (&json!(trace), &json!("acme"))
        );
        assert!(record["duration_ms"].as_f64() >= Some(900.0), "{record}");
        assert!(
            record["own_ms"].as_f64() < record["duration_ms"].as_f64(),
            "{record}"
        );
        let children = record["children"].as_array().context("children")?;
        let child = children
            .iter()
            .find(|child| child["kind"] == child_kind && text(child, "name").ends_with(child_name));
        let child = child.with_context(|| format!("{service}: no child {child_name} in {record}"))?;
        assert!(child["duration_ms"].as_f64() >= Some(900.0), "{child}");
        // It was not sampled: there is nothing in Jaeger, so this process says what it knows.
        let shown = ask(&stack, service, "/debug/traces/slow-1").await?.expect(200)?;
        assert_eq!(shown["requests"][0]["request_id"], "slow-1");
    }
    let db = remembered(&stack, REST_API, trace).await?;
    assert!(
        db[0]["children"].to_string().contains("executions.finish"),
        "{db:?}"
    );
    assert!(db[0]["key_id"].is_string(), "{db:?}");

    // From the queue, in a trace of its own.
    let (path, headers) = ("/api/v1/tools/sluggish/execute", [("prefer", "respond-async")]);
    rest.send(Method::POST, path, &headers, Some(&json!({})))
        .await?
        .expect(202)?;
    wait_for("the worker to remember the queued one, too", async || {
        let listed = ask(&stack, WORKER, "/debug/traces?reason=slow")
            .await
            .ok()?
            .json();
        let all = listed["requests"].as_array()?;
        let runs = all
            .iter()
            .filter(|r| r["kind"] == "execution" && r["name"] == "execute_tool sluggish");
        (runs.count() == 2).then_some(())
    })
    .await?;

    let page = e2e::http_client()
        .get(format!("{}/debug/traces", stack.http(REST_API)))
        .basic_auth("admin", Some(ADMIN_TOKEN))
        .header("accept", "text/html,*/*")
        .send()
        .await?;
    let policy = page.headers()["content-security-policy"].to_str()?.to_owned();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let page = page.text().await?;
    assert!(
        page.contains("slow-1") && page.contains("executions.finish") && page.contains("<rect"),
        "{page}"
    );
    for bad in ["reason=x", "limit=0", "min_ms=x", "colour=red"] {
        let answer = ask(&stack, REST_API, &format!("/debug/traces?{bad}")).await?;
        let problem = answer.problem(400, "invalid_query")?;
        assert!(
            text(&problem, "allowed").contains("slow, failed or debug"),
            "{problem}"
        );
    }

    // A worker that is gone is a failure of the service.
    stack.process_mut(WORKER).kill();
    let headers = [("x-request-id", "failed-1")];
    let path = "/api/v1/tools/sluggish/execute";
    let failed = rest.send(Method::POST, path, &headers, Some(&json!({}))).await?;
    assert!(failed.status.is_server_error(), "{failed:?}");
    let all = remembered(&stack, REST_API, "failed-1").await?;
    assert!(all[0]["reasons"].to_string().contains("failed"), "{all:?}");
    assert_eq!(all[0]["name"], "POST /api/v1/tools/{name}/execute");

    // The worker's lease ended with it, after a long life: that is not slow.
    let lease = [("method", "devops_mcp.v1.Queue/Lease")];
    stack
        .wait_metric(REST_API, "grpc_server_requests_total", &lease, |ended| {
            ended >= 1.0
        })
        .await?;
    let path = "/debug/traces?reason=slow&min_ms=100&limit=50";
    let listed = ask(&stack, REST_API, path).await?.expect(200)?;
    let listed = listed["requests"].as_array().context("a list")?;
    assert!(
        listed.iter().any(|r| text(r, "name").ends_with("Executions/Run")),
        "{listed:?}"
    );
    assert!(
        !listed.iter().any(|r| text(r, "name").ends_with("/Lease")),
        "{listed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn every_response_says_its_ids() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, MCP_SERVER])
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let get = Method::GET;
    let all = [
        (REST_API, get.clone(), "/api/v1/contexts", 200),
        (REST_API, get.clone(), "/api/v1/contexts/0", 400),
        (REST_API, get.clone(), "/api/v1/nothing", 404),
        (REST_API, get.clone(), "/nothing", 404),
        (REST_API, Method::PUT, "/api/v1/contexts", 405),
        (REST_API, get.clone(), "/healthz", 200),
        (REST_API, get.clone(), "/metrics", 200),
        (REST_API, get.clone(), "/admin/log-level", 401),
        (REST_API, get.clone(), "/debug/traces", 401),
        (MCP_SERVER, get.clone(), "/nothing", 404),
        (MCP_SERVER, Method::PUT, "/mcp", 405),
        (MCP_SERVER, Method::POST, "/mcp", 406),
        (MCP_SERVER, get, "/readyz", 200),
    ];
    let check = |answer: &Answer, what: &str| {
        let trace = answer.header("x-trace-id");
        assert!(
            trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()),
            "{what}: {answer:?}"
        );
        let response = format!("00-{trace}-");
        assert!(
            answer.header("traceresponse").starts_with(&response),
            "{what}: {answer:?}"
        );
        assert_eq!(answer.header("x-request-id"), "ids", "{what}");
    };
    for (service, method, path, status) in all {
        let rest = Rest::new(&stack.http(service), Some(&key));
        let what = format!("{service} {method} {path}");
        let answer = rest.send(method, path, &[("x-request-id", "ids")], None).await?;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        check(&answer, &what);
    }
    let raw = stack.raw(&key);
    for (method, params) in [
        ("tools/list", json!({})),
        ("tools/call", json!({"name": "no_such"})),
        ("nothing", json!({})),
    ] {
        let request = raw.modern(method, params).header("x-request-id", "ids");
        check(&Answer::read(request.send().await?).await?, method);
    }
    let malformed = raw.post().header("x-request-id", "ids").body("{").send().await?;
    check(&Answer::read(malformed).await?, "no JSON");
    Ok(())
}
