//! One trace from a client through every service, down to the SQL; the logs that go with it.

use crate::{Outcome, text};
use e2e::{
    Backend, Era, Json, Sink, Stack, Target,
    raw::{self, Raw},
    sink::{Span, tree},
    stack::{MCP_SERVER, REST_API, WORKER},
    trace::Trace,
    wait_for,
};
use http::Method;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use std::collections::HashMap;

/// The services that the spans from this one up to the trace's root belong to, nearest first, without repeats.
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

fn find<'a>(spans: &'a [Span], service: &str, kind: SpanKind, has: &str) -> Option<&'a Span> {
    spans.iter().find(|span| {
        span.service == service
            && span.kind == kind
            && (span.name.contains(has) || span.attributes.contains_key(has))
    })
}

#[tokio::test]
async fn one_trace_from_client_to_target_and_sql() -> Outcome {
    for backend in Backend::available() {
        let (sink, target) = (Sink::start().await?, Target::start().await?);
        let stack = Stack::builder(backend)
            .sink(&sink)
            .allow_private()
            .start()
            .await?;
        let key = stack.tenant("acme", "all").await?;
        let rest = stack.rest(&key);
        let tool =
            json!({"name": "probe", "description": "d", "method": "POST", "url": target.url("/probe")});
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;

        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            client.wait_for_tool("probe").await?;
            let trace = Trace::start();
            let parent = trace.traceparent();
            let created = client
                .call_traced("context_create", &json!({"name": "traced"}), &parent)
                .await?;
            let id = text(&created.structured_content.unwrap_or_default()["context"], "id").to_owned();
            client
                .call_traced("probe", &json!({"secret_argument": "hunter2"}), &parent)
                .await?;
            let over_rest = format!("/api/v1/contexts/{id}");
            rest.send(Method::GET, &over_rest, &[("traceparent", &parent)], None)
                .await?
                .expect(200)?;

            let spans = sink
                .wait(&trace.trace_id, |spans| {
                    find(spans, WORKER, SpanKind::Client, "http.request.method").is_some()
                        && find(spans, REST_API, SpanKind::Server, "GET /api/v1/contexts/{id}").is_some()
                        && find(spans, REST_API, SpanKind::Client, "executions.finish").is_some()
                        && find(spans, MCP_SERVER, SpanKind::Server, "tools/call probe").is_some()
                        && find(spans, MCP_SERVER, SpanKind::Server, "tools/call context_create").is_some()
                        && spans.iter().all(|span| has_parent(span, spans, &trace))
                })
                .await?;
            assert_sound(&spans);
            assert_mcp_spans(&spans, &trace, era);
            assert_sql_spans(&spans, backend);

            let call = find(&spans, WORKER, SpanKind::Client, "http.request.method").expect("waited for");
            assert_eq!(
                ancestry(&spans, call),
                [WORKER, REST_API, MCP_SERVER],
                "{}",
                tree(&spans)
            );
            let seen = target.seen().pop().expect("the probe was called");
            let sent = format!("00-{}-{}-01", trace.trace_id, call.span_id);
            assert_eq!(
                seen.header("traceparent"),
                sent,
                "{era:?}: the target continues the trace"
            );
            let everything = format!("{spans:?}");
            assert!(
                !everything.contains("hunter2") && !everything.contains(&key),
                "{era:?}: a secret is in the trace"
            );

            let ran = rest
                .get("/api/v1/executions?tool=probe&limit=1")
                .await?
                .expect(200)?;
            assert_eq!(ran["items"][0]["trace_id"], json!(trace.trace_id));
        }
    }
    Ok(())
}

/// Whether the span hangs on another of the trace, or on the client's own. A parent may come in a later batch.
fn has_parent(span: &Span, spans: &[Span], trace: &Trace) -> bool {
    span.parent_id == trace.span_id || spans.iter().any(|other| other.span_id == span.parent_id)
}

/// What is true of every span of the trace.
fn assert_sound(spans: &[Span]) {
    for span in spans {
        assert!(span.time.0 <= span.time.1, "{} ends before it begins", span.name);
        assert_eq!(
            span.resource
                .get("deployment.environment.name")
                .map(String::as_str),
            Some("e2e"),
            "{:?}",
            span.resource
        );
        assert!(
            span.resource.contains_key("service.version"),
            "{:?}",
            span.resource
        );
    }
    let mut ids: Vec<_> = spans.iter().map(|span| &span.span_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "a span was exported twice");
}

fn assert_mcp_spans(spans: &[Span], trace: &Trace, era: Era) {
    for (tool, name) in [
        ("probe", "tools/call probe"),
        ("context_create", "tools/call context_create"),
    ] {
        let span = find(spans, MCP_SERVER, SpanKind::Server, name).expect("waited for");
        assert_eq!(span.parent_id, trace.span_id, "{era:?}: `_meta` is the parent");
        assert_eq!(span.attribute("mcp.method.name"), "tools/call");
        assert_eq!(span.attribute("gen_ai.tool.name"), tool);
        assert_eq!(span.attribute("gen_ai.operation.name"), "execute_tool");
        assert_eq!(span.attribute("mcp.protocol.version"), era.version());
        assert_eq!(span.attribute("tenant.id"), "acme", "{:?}", span.attributes);
        assert_eq!(span.attributes.contains_key("mcp.session.id"), era == Era::Legacy);
        assert!(!span.links.is_empty(), "{era:?}: the HTTP request is linked");
        assert!(!span.error);
    }
}

fn assert_sql_spans(spans: &[Span], backend: Backend) {
    let system = if backend == Backend::Sqlite {
        "sqlite"
    } else {
        "postgresql"
    };
    let sql: Vec<_> = spans
        .iter()
        .filter(|span| span.attributes.contains_key("db.query.text"))
        .collect();
    for operation in ["contexts.insert", "contexts.get", "executions.finish"] {
        let span = sql.iter().find(|span| span.name.contains(operation));
        let span = span.unwrap_or_else(|| panic!("no span {operation}:\n{}", tree(spans)));
        assert_eq!((span.service.as_str(), span.kind), (REST_API, SpanKind::Client));
        assert_eq!(span.attribute("db.system.name"), system);
    }
    let insert = sql
        .iter()
        .find(|span| span.name.contains("contexts.insert"))
        .expect("seen above");
    assert_eq!(ancestry(spans, insert), [REST_API, MCP_SERVER], "{}", tree(spans));
}

#[tokio::test]
async fn log_lines_are_objects_that_carry_the_ids() -> Outcome {
    let target = Target::start().await?;
    let sink = Sink::start().await?;
    let stack = Stack::builder(Backend::Sqlite)
        .sink(&sink)
        .allow_private()
        .set(WORKER, "MONITORING__LOGGING__LEVEL", "debug")
        .set(REST_API, "MONITORING__LOGGING__LEVEL", "debug")
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let tool = json!({"name": "probe", "description": "d", "url": target.url("/probe")});
    stack.rest(&key).post("/api/v1/tools", &tool).await?.expect(201)?;
    let trace = Trace::start();
    let request_id = "e2e-request.1_A";
    let raw: Raw = stack.raw(&key);
    let params = json!({"name": "probe", "arguments": {}, "_meta": {"traceparent": trace.traceparent()}});
    let request = raw.modern("tools/call", params);
    let request = request
        .header("traceparent", trace.traceparent())
        .header("x-request-id", request_id);
    let answer = e2e::rest::Answer::read(request.send().await?).await?;
    assert_eq!(
        raw::response(&answer)?["result"]["isError"],
        json!(false),
        "{}",
        answer.text
    );
    assert_eq!(
        (answer.header("x-request-id"), answer.header("x-trace-id")),
        (request_id, trace.trace_id.as_str())
    );

    let access = stack
        .wait_log(MCP_SERVER, |line| {
            line["target"] == "access" && line["request_id"] == request_id
        })
        .await?;
    assert_eq!(
        (&access["trace_id"], &access["path"]),
        (&json!(trace.trace_id), &json!("/mcp"))
    );
    assert_eq!(
        (&access["status"], &access["method"], &access["tenant"]),
        (&json!(200), &json!("POST"), &json!("acme")),
        "{access}"
    );
    assert!(access["duration_ms"].is_number());
    for service in [REST_API, WORKER] {
        // What they log of this call, whatever it is, belongs to it.
        let line = stack
            .wait_log(service, |line| line["trace_id"] == json!(trace.trace_id))
            .await?;
        assert_eq!(line["request_id"], request_id, "{service}: {line}");
        assert_eq!(text(&line, "span_id").len(), 16, "{service}: {line}");
    }
    let seen = target.seen().pop().expect("the probe was called");
    assert_eq!(
        seen.header("x-request-id"),
        request_id,
        "the request id goes along"
    );
    for name in stack.names() {
        let (lines, others) = e2e::logs::parse(&stack.process(name).log());
        assert_eq!(
            others,
            Vec::<String>::new(),
            "{name}: lines that are no JSON objects"
        );
        for line in lines {
            let fields = [
                "timestamp",
                "level",
                "service",
                "version",
                "environment",
                "target",
                "message",
            ];
            let missing: Vec<_> = fields
                .into_iter()
                .filter(|field| line[*field].as_str().is_none())
                .collect();
            assert!(missing.is_empty(), "{name}: {missing:?} missing in {line}");
            assert_eq!(
                (&line["service"], &line["environment"]),
                (&json!(name), &json!("e2e"))
            );
            assert!(!line.to_string().contains(&key), "{name} logs a key");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_ill_formed_request_id_is_replaced_and_no_stranger_forces_a_trace() -> Outcome {
    let sink = Sink::start().await?;
    let builder = Stack::builder(Backend::Sqlite).services(&[REST_API]).sink(&sink);
    let stack = builder
        .set(REST_API, "MONITORING__TRACING__SAMPLE_RATIO", "0")
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let get = async |rest: &e2e::rest::Rest, trace: &Trace, id: &str| {
        let headers = [
            ("traceparent", trace.traceparent()),
            ("x-request-id", id.to_owned()),
        ];
        let headers: Vec<(&'static str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        rest.send(Method::GET, "/api/v1/contexts", &headers, None).await
    };
    let (known, stranger) = (Trace::start(), Trace::start());
    let answer = get(&rest, &known, "has spaces and \"quotes\"").await?;
    let id = answer.header("x-request-id");
    assert!(
        uuid::Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7),
        "{id}"
    );
    assert_eq!(answer.header("x-trace-id"), known.trace_id);
    get(&rest.with_key(None), &stranger, "fine")
        .await?
        .problem(401, "missing_credentials")?;
    let unsampled = rest.get("/api/v1/contexts").await?;
    let own = unsampled.header("x-trace-id").to_owned();
    assert_eq!(own.len(), 32);

    sink.wait(&known.trace_id, |spans| !spans.is_empty()).await?;
    let none: Vec<Json> = Vec::new();
    let of = |id: &str| {
        sink.trace(id)
            .iter()
            .map(|span| json!(span.name))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(&stranger.trace_id),
        none,
        "an unauthenticated client forced a trace"
    );
    assert_eq!(of(&own), none, "an unsampled request made spans");
    Ok(())
}

#[tokio::test]
async fn an_execution_picked_up_later_links_to_the_trace_that_asked_for_it() -> Outcome {
    let (sink, target) = (Sink::start().await?, Target::start().await?);
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, WORKER])
        .sink(&sink)
        .allow_private()
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let tool = json!({"name": "later", "description": "d", "url": target.url("/echo/later")});
    rest.post("/api/v1/tools", &tool).await?.expect(201)?;
    let trace = Trace::start();
    let parent = trace.traceparent();
    let headers = [("traceparent", parent.as_str()), ("prefer", "respond-async")];
    let asked = rest
        .send(
            Method::POST,
            "/api/v1/tools/later/execute",
            &headers,
            Some(&json!({})),
        )
        .await?;
    assert_eq!(asked.expect(202)?["trace_id"], json!(trace.trace_id));

    let linked = wait_for("a span that links to the trace", async || {
        let spans = sink.all();
        spans
            .into_iter()
            .find(|span| span.links.contains(&trace.trace_id))
    });
    let run = linked.await?;
    assert_eq!(
        (run.service.as_str(), run.name.as_str()),
        (WORKER, "execute_tool later")
    );
    assert_ne!(run.trace_id, trace.trace_id, "it is a trace of its own");
    // The call to the endpoint hangs on it, and so does what the endpoint is told.
    let spans = sink
        .wait(&run.trace_id, |spans| {
            find(spans, WORKER, SpanKind::Client, "http.request.method").is_some()
        })
        .await?;
    let seen = target.seen().pop().expect("the endpoint was called");
    assert!(
        seen.header("traceparent").contains(&run.trace_id),
        "{}",
        tree(&spans)
    );
    Ok(())
}
