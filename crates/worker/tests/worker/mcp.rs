//! Runs of other MCP servers' tools, against servers of both eras.

use crate::{
    runs::{HERE, call, deaf, ended, runner, serve, settings, tool},
    support::PATIENCE,
};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Response},
    routing::post,
};
use domain::{
    execution::{ExecutionStatus, Outcome},
    tool::{Credentials, ToolSpec, UpstreamTool},
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use worker::{progress, runner::Runner, tools::Server};

/// What a fake server does with a message.
enum Does {
    Answers(Value),
    /// Events, one after the other.
    Streams(Vec<Value>),
    Refuses(u16),
    /// A refusal that is JSON-RPC.
    Errs(u16, i64),
    Redirects(&'static str),
    Accepts,
    Never,
}

type Script = Box<dyn Fn(&HeaderMap, &Value) -> Does + Send + Sync>;

/// A fake server, and what it was sent.
struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    count: watch::Receiver<usize>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    count: Arc<watch::Sender<usize>>,
}

impl Fake {
    async fn start(script: impl Fn(&HeaderMap, &Value) -> Does + Send + Sync + 'static) -> Self {
        let (sender, count) = watch::channel(0);
        let shared = Shared {
            script: Arc::new(Box::new(script)),
            seen: Arc::default(),
            count: Arc::new(sender),
        };
        let seen = Arc::clone(&shared.seen);
        let address = serve(Router::new().route("/mcp", post(answer)).with_state(shared)).await;
        Self { address, seen, count }
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// What it was sent with this method.
    fn seen(&self, method: &str) -> Vec<(HeaderMap, Value)> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(_, message)| message["method"] == method)
            .cloned()
            .collect()
    }

    async fn until(&mut self, method: &str) -> (HeaderMap, Value) {
        let wait = async {
            loop {
                if let Some(found) = self.seen(method).pop() {
                    return found;
                }
                self.count.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("it is sent in the end")
    }
}

async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response<Body> {
    let message: Value = serde_json::from_str(&body).unwrap();
    let does = (shared.script)(&headers, &message);
    let id = message["id"].clone();
    shared.seen.lock().unwrap().push((headers, message));
    shared.count.send_modify(|count| *count += 1);
    let full = |mut value: Value| {
        value["jsonrpc"] = json!("2.0");
        if value.get("method").is_none() {
            value["id"] = id.clone();
        }
        value.to_string()
    };
    let answer = Response::builder().header("content-type", "application/json");
    let answer = match does {
        Does::Answers(result) => answer
            .header("mcp-session-id", "s-1")
            .body(full(json!({"result": result})).into()),
        Does::Streams(events) => {
            let events = events.into_iter().map(full);
            let text: String = events
                .map(|event| format!("event: message\ndata: {event}\n\n"))
                .collect();
            answer
                .header("content-type", "text/event-stream")
                .body(text.into())
        }
        Does::Refuses(status) => answer.status(status).body("no".into()),
        Does::Errs(status, code) => {
            let error = full(json!({"error": {"code": code, "message": "not so"}}));
            answer.status(status).body(error.into())
        }
        Does::Redirects(to) => answer.status(307).header("location", to).body(Body::empty()),
        Does::Accepts => answer.status(202).body(Body::empty()),
        Does::Never => std::future::pending().await,
    };
    let mut answer = answer.unwrap();
    if let Some(last) = answer
        .headers()
        .get_all("content-type")
        .iter()
        .next_back()
        .cloned()
    {
        answer.headers_mut().insert("content-type", last);
    }
    answer
}

/// A server of the newer era, which does so when a tool is called.
fn modern(does: impl Fn(&Value) -> Does + Send + Sync + 'static) -> impl Fn(&HeaderMap, &Value) -> Does {
    move |headers, message| {
        assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
        assert_eq!(headers["mcp-method"], message["method"].as_str().unwrap());
        let meta = &message["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
        match message["method"].as_str().unwrap() {
            "server/discover" => {
                Does::Answers(json!({"supportedVersions": ["2026-07-28"], "capabilities": {},
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake", "version": "2"}}}))
            }
            _ => does(message),
        }
    }
}

/// A server of the older era.
fn legacy(
    does: impl Fn(&HeaderMap, &Value) -> Does + Send + Sync + 'static,
) -> impl Fn(&HeaderMap, &Value) -> Does {
    move |headers, message| match message["method"].as_str().unwrap() {
        "server/discover" => Does::Errs(400, -32000),
        "initialize" => Does::Answers(json!({"protocolVersion": "2025-06-18", "capabilities": {},
            "serverInfo": {"name": "old", "version": "1"}})),
        "notifications/initialized" => Does::Accepts,
        _ => {
            assert_eq!(headers["mcp-protocol-version"], "2025-06-18");
            does(headers, message)
        }
    }
}

fn upstream_tool(url: String) -> ToolSpec {
    let mut tool = tool("POST", url);
    tool.options.upstream = Some(UpstreamTool {
        server: "theirs".into(),
        tool: "get".into(),
    });
    tool
}

async fn run(runner: &Runner, tool: &ToolSpec, arguments: Value) -> Outcome {
    runner.run(call(tool.clone(), arguments), &deaf()).await.outcome
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

#[tokio::test]
async fn a_server_of_the_newer_era_is_asked_without_a_session() {
    let fake = Fake::start(modern(|message| {
        Does::Answers(json!({"resultType": "complete", "content": [],
            "structuredContent": {"echo": message["params"]["arguments"]}}))
    }))
    .await;
    let runner = runner(&settings());
    let mut tool = upstream_tool(fake.url());
    tool.input_schema = serde_json::from_value(json!({"type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}))
    .unwrap();
    for _ in 0..2 {
        let mut call = call(tool.clone(), json!({"region": "eu"}));
        call.credentials = Some(Credentials::Bearer { token: "hush".into() });
        let outcome = runner.run(call, &deaf()).await.outcome;
        assert_eq!(ended(&outcome), (ExecutionStatus::Succeeded, ""));
        assert_eq!(outcome.result, Some(json!({"echo": {"region": "eu"}})));
    }
    assert_eq!(fake.seen("server/discover").len(), 1, "what it is, is remembered");
    let (headers, message) = fake.seen("tools/call").pop().unwrap();
    assert_eq!(message["params"]["name"], "get");
    assert_eq!(
        (&headers["mcp-name"], &headers["mcp-param-region"]),
        (&"get".parse().unwrap(), &"eu".parse().unwrap())
    );
    assert_eq!(headers["authorization"], "Bearer hush");
    assert!(headers.contains_key("idempotency-key") && !headers.contains_key("mcp-session-id"));

    // Other credentials, another start.
    let outcome = run(&runner, &tool, json!({})).await;
    assert_eq!(outcome.status, ExecutionStatus::Succeeded);
    assert_eq!(fake.seen("server/discover").len(), 2);
}

#[tokio::test]
async fn a_session_that_is_lost_is_begun_anew_once() {
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let fake = Fake::start(legacy(move |headers, message| {
        assert_eq!(headers["mcp-session-id"], "s-1");
        let mut calls = counted.lock().unwrap();
        *calls += 1;
        if *calls == 2 {
            return Does::Refuses(404);
        }
        let token = &message["params"]["_meta"]["progressToken"];
        Does::Streams(vec![
            json!({"method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1, "message": "half-way"}}),
            json!({"result": text("done")}),
        ])
    }))
    .await;
    let runner = runner(&settings());
    let tool = upstream_tool(fake.url());
    for _ in 0..2 {
        let (reporter, mut reports) = progress::channel();
        let outcome = runner.run(call(tool.clone(), json!({})), &reporter).await.outcome;
        assert_eq!(outcome.result, Some(text("done")), "{:?}", outcome.error);
        let mut heard = Vec::new();
        while let Ok(report) = reports.try_recv() {
            heard.push(report.message);
        }
        assert!(heard.iter().any(|words| words == "half-way"), "{heard:?}");
    }
    assert_eq!((*calls.lock().unwrap(), fake.seen("initialize").len()), (3, 2));
}

#[tokio::test]
async fn whoever_leaves_has_it_cancelled_at_a_server_of_the_older_era() {
    let mut fake = Fake::start(legacy(|_, message| match message["method"].as_str().unwrap() {
        "tools/call" => Does::Never,
        _ => Does::Accepts,
    }))
    .await;
    let runner = runner(&settings());
    let tool = upstream_tool(fake.url());
    let running = tokio::spawn({
        let runner = runner.clone();
        async move { run(&runner, &tool, json!({})).await }
    });
    let (_, called) = fake.until("tools/call").await;
    running.abort();
    let (headers, cancelled) = fake.until("notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], called["id"]);
    assert_eq!(headers["mcp-session-id"], "s-1");
}

#[tokio::test]
async fn a_server_that_fails_again_and_again_is_left_alone() {
    let fake = Fake::start(modern(|message| {
        match message["params"]["arguments"]["do"].as_str() {
            Some("say") => Does::Answers(
                json!({"isError": true, "content": [{"type": "text", "text": "no such issue"}]}),
            ),
            Some("refuse") => Does::Errs(400, -32602),
            Some("ask") => Does::Streams(vec![
                json!({"id": 9, "method": "elicitation/create", "params": {}}),
            ]),
            Some("end") => Does::Streams(vec![]),
            _ => Does::Refuses(500),
        }
    }))
    .await;
    let runner = runner(&settings());
    let mut tool = upstream_tool(fake.url());
    tool.read_only = true;
    for (what, code) in [
        ("say", "tool_error"),
        ("refuse", "upstream_error"),
        ("ask", "upstream_error"),
    ] {
        let outcome = run(&runner, &tool, json!({"do": what})).await;
        assert_eq!(ended(&outcome), (ExecutionStatus::Failed, code));
        let told = outcome.result.unwrap_or_default().to_string();
        match what {
            "say" => assert!(told.contains("no such issue"), "{told}"),
            "refuse" => assert!(told.contains("-32602"), "{told}"),
            _ => {}
        }
    }
    let fail = async |what| {
        let outcome = run(&runner, &tool, json!({"do": what})).await;
        outcome.error.unwrap().code
    };
    assert_eq!(fail("end").await, "connection_lost");
    for _ in 0..4 {
        assert_eq!(fail("fail").await, "http_status");
    }
    let before = fake.seen("tools/call").len();
    assert_eq!(fail("fail").await, "circuit_open");
    assert_eq!(fake.seen("tools/call").len(), before, "it is not asked");
    // The same server under another tenant's name is another one.
    let mut theirs = call(tool.clone(), json!({"do": "say"}));
    theirs.tenant = "other".into();
    let outcome = runner.run(theirs, &deaf()).await.outcome;
    assert_eq!(ended(&outcome).1, "tool_error");
}

#[tokio::test]
async fn what_is_slow_huge_or_leads_astray_is_stopped() {
    let fake = Fake::start(modern(|message| {
        match message["params"]["arguments"]["do"].as_str() {
            Some("huge") => Does::Answers(text(&"x".repeat(2 << 20))),
            Some("huge events") => Does::Streams(vec![json!({"result": text(&"x".repeat(2 << 20))})]),
            Some("endless") => {
                let progress =
                    json!({"method": "notifications/progress", "params": {"message": "x".repeat(4000)}});
                Does::Streams(vec![progress; 2000])
            }
            Some("astray") => Does::Redirects("http://169.254.169.254/latest/meta-data"),
            Some("deep") => {
                let deep = (0..110).fold(json!(1), |inner, _| json!([inner]));
                Does::Answers(json!({"content": [], "structuredContent": {"deep": deep}}))
            }
            _ => Does::Never,
        }
    }))
    .await;
    let runner = runner(&settings());
    let mut tool = upstream_tool(fake.url());
    for (what, code) in [
        ("huge", "response_too_large"),
        ("huge events", "response_too_large"),
        ("endless", "response_too_large"),
        ("astray", "address_not_allowed"),
        ("deep", "invalid_response"),
    ] {
        let outcome = run(&runner, &tool, json!({"do": what})).await;
        assert_eq!(ended(&outcome), (ExecutionStatus::Failed, code), "{what}");
    }
    tool.timeout_ms = 300;
    let started = Instant::now();
    let outcome = run(&runner, &tool, json!({"do": "nothing"})).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::OutcomeUnknown, "timeout"));
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn tools_are_listed_page_by_page_in_both_eras() {
    let list = |message: &Value| match message["params"]["cursor"].as_str() {
        None => Does::Answers(json!({"tools": [{"name": "a", "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": true}}], "nextCursor": "more"})),
        Some("more") => Does::Answers(json!({"tools": [{"name": "b", "inputSchema": {"type": "object"}}]})),
        Some(_) => Does::Refuses(400),
    };
    let new = Fake::start(modern(list)).await;
    let old = Fake::start(legacy(move |_, message| list(message))).await;
    let runner = runner(&settings());
    for (fake, version, name) in [(&new, "2026-07-28", "fake"), (&old, "2025-06-18", "old")] {
        let url = fake.url();
        let server = Server {
            tenant: "acme",
            name,
            url: &url,
            credentials: None,
        };
        let deadline = Instant::now() + PATIENCE;
        let listed = runner.list_upstream(deadline, &server).await.unwrap();
        let names: Vec<_> = listed.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(listed.tools[0].read_only && !listed.tools[1].read_only);
        assert_eq!(
            (listed.protocol_version.as_str(), listed.server.as_str()),
            (version, name)
        );
        assert_eq!(listed.left_out, 0);
    }
}

#[tokio::test]
async fn who_may_not_is_told_so_and_what_is_no_server_of_mcp_is_found_out() {
    let guarded = Fake::start(|_: &HeaderMap, _: &Value| Does::Refuses(401)).await;
    let other = Fake::start(|_: &HeaderMap, _: &Value| Does::Refuses(404)).await;
    let mut settings = settings();
    settings.outbound.connect_timeout = Duration::from_secs(5);
    let runner = runner(&settings);
    for (url, code) in [
        (guarded.url(), "http_status"),
        (other.url(), "http_status"),
        (format!("http://{HERE}:1/mcp"), "connect_failed"),
        ("http://10.0.0.1/mcp".to_owned(), "address_not_allowed"),
    ] {
        let server = Server {
            tenant: "acme",
            name: code,
            url: &url,
            credentials: None,
        };
        let failure = runner
            .list_upstream(Instant::now() + PATIENCE, &server)
            .await
            .unwrap_err();
        assert_eq!(failure.code.as_str(), code, "{url}");
    }
    assert_eq!(guarded.seen("initialize").len(), 0, "nothing else would help");
    assert_eq!(other.seen("initialize").len(), 1);
}
