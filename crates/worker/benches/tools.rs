//! What the product's own tools take beyond their sources' answers: `cargo bench -p worker --bench tools`. Each tool is
//! run against fakes with fixed answers, in turns with a plain client that asks the same and throws the answers away.

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, Request, Response, Uri},
};
use domain::{ExecutionId, Scopes, tool::ToolSpec};
use serde_json::{Value, json};
use std::{
    hint::black_box,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use worker::{
    progress,
    sources::{Kind, Settings, Sources},
    tools::{Call, Caller, Departed, ToolKind, observe::Observe},
};

/// How many turns, and calls in each.
const TURNS: usize = 15;
const CALLS: u32 = 20;
const TRACES: [&str; 2] = [
    "1af7651916cd43dd8448eb211c80319c",
    "2af7651916cd43dd8448eb211c80319c",
];
const SILENCE: &str = "1af76519-16cd-43dd-8448-eb211c80319c";

/// What was asked of the fakes.
type Asked = Arc<Mutex<Vec<(Method, String, String, Bytes)>>>;

#[derive(Clone)]
struct Fake {
    asked: Asked,
    answers: Arc<Vec<(&'static str, Bytes)>>,
}

fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn prometheus() -> Vec<(&'static str, Value)> {
    let now = seconds();
    let labels = |i: u64| json!({ "job": "api", "service": "api", "instance": format!("10.0.0.{i}:9090"), "route": format!("/v1/{i}") });
    let values = || {
        (0..121)
            .map(|t| json!([now - 3600 + t * 30, format!("{}.25", t % 17)]))
            .collect::<Vec<_>>()
    };
    let vector: Vec<Value> = (0..20)
        .map(|i| json!({ "metric": labels(i), "value": [now, format!("{i}.125")] }))
        .collect();
    let matrix: Vec<Value> = (0..20)
        .map(|i| json!({ "metric": labels(i), "values": values() }))
        .collect();
    let names: Vec<String> = (0..500).map(|i| format!("metric_{i}_total")).collect();
    let help: serde_json::Map<String, Value> = names
        .iter()
        .map(|name| {
            (
                name.clone(),
                json!([{ "type": "counter", "help": "Things that were counted.", "unit": "" }]),
            )
        })
        .collect();
    let target = |i: u64| {
        json!({ "labels": labels(i), "discoveredLabels": labels(i), "scrapePool": "api", "scrapeUrl": "http://x/metrics",
            "lastError": "", "lastScrape": "2026-11-02T11:59:55Z", "lastScrapeDuration": 0.004, "health": "up" })
    };
    let targets: Vec<Value> = (0..50).map(target).collect();
    let rule = json!({
        "name": "HighErrorRate", "type": "alerting", "query": "sum by (service) (rate(http_requests_total[5m])) > 0.05",
        "duration": 300, "labels": { "severity": "critical" }, "annotations": { "summary": "many errors" }, "health": "ok",
        "alerts": [{ "labels": { "alertname": "HighErrorRate", "service": "api", "severity": "critical" }, "annotations": {},
            "state": "firing", "activeAt": "2026-11-02T11:30:00Z", "value": "1e-01" }],
    });
    let success = |data: Value| json!({ "status": "success", "data": data });
    vec![
        (
            "/api/v1/query_range",
            success(json!({ "resultType": "matrix", "result": matrix })),
        ),
        ("/api/v1/query_exemplars", success(json!([]))),
        (
            "/api/v1/query",
            success(json!({ "resultType": "vector", "result": vector })),
        ),
        ("/api/v1/label/", success(json!(names))),
        ("/api/v1/labels", success(json!(["job", "service"]))),
        ("/api/v1/metadata", success(help.into())),
        (
            "/api/v1/targets",
            success(json!({ "activeTargets": targets, "droppedTargets": [] })),
        ),
        (
            "/api/v1/rules",
            success(json!({ "groups": [{ "name": "g", "file": "f", "rules": [rule] }] })),
        ),
    ]
}

fn loki() -> Vec<(&'static str, Value)> {
    let now = seconds();
    let line = |i: u64| {
        let text = json!({ "level": "ERROR", "service": "api", "target": "api::http", "message": format!("request {i} took {i} ms") });
        json!([format!("{}000000000", now - i), text.to_string()])
    };
    let lines: Vec<Value> = (0..300).map(line).collect();
    let stream = json!({ "stream": { "service": "api", "level": "error" }, "values": lines });
    let words: Vec<String> = (0..20).map(|i| format!("word_{i}")).collect();
    vec![
        (
            "/loki/api/v1/query_range",
            json!({ "status": "success", "data": { "resultType": "streams", "result": [stream], "stats": {} } }),
        ),
        (
            "/loki/api/v1/detected_fields",
            json!({ "fields": [], "limit": 1000 }),
        ),
        ("/loki/api/v1/", json!({ "status": "success", "data": words })),
    ]
}

fn jaeger() -> Vec<(&'static str, Value)> {
    let micros = seconds() * 1_000_000;
    let trace = |id: &str| {
        let span = |i: u64| {
            let parent = (i > 0).then(|| json!([{ "refType": "CHILD_OF", "traceID": id, "spanID": format!("{:016x}", i.div_ceil(2)) }]));
            json!({
                "traceID": id, "spanID": format!("{:016x}", i + 1), "operationName": format!("operation {}", i % 12),
                "references": parent.unwrap_or_else(|| json!([])), "startTime": micros + i * 100, "duration": 100_000 / (i + 1),
                "tags": [{ "key": "span.kind", "type": "string", "value": "server" }], "logs": [], "processID": "p1",
            })
        };
        let spans: Vec<Value> = (0..80).map(span).collect();
        json!({ "traceID": id, "spans": spans, "processes": { "p1": { "serviceName": "api", "tags": [] } } })
    };
    let traces: Vec<Value> = TRACES.iter().map(|id| trace(id)).collect();
    vec![(
        "/api/traces",
        json!({ "data": traces, "total": 0, "limit": 0, "offset": 0, "errors": null }),
    )]
}

fn alertmanager() -> Vec<(&'static str, Value)> {
    let alert = |i: u64| {
        json!({
            "labels": { "alertname": "HighErrorRate", "service": format!("api-{i}"), "severity": "critical" },
            "annotations": { "summary": "many errors" }, "fingerprint": format!("{i:016x}"), "generatorURL": "http://prometheus/graph",
            "startsAt": "2026-11-02T11:30:00.000Z", "endsAt": "2099-11-02T12:30:00.000Z", "updatedAt": "2026-11-02T11:31:00.000Z",
            "receivers": [{ "name": "agents" }], "status": { "state": "active", "inhibitedBy": [], "silencedBy": [] },
        })
    };
    let silence = json!({
        "id": SILENCE, "matchers": [{ "name": "alertname", "value": "HighErrorRate", "isRegex": false, "isEqual": true }],
        "startsAt": "2026-11-02T11:30:00.000Z", "endsAt": "2099-11-02T12:30:00.000Z", "updatedAt": "2026-11-02T11:30:00.000Z",
        "createdBy": "somebody", "comment": "known", "status": { "state": "active" }, "silenceID": SILENCE,
    });
    let alerts: Vec<Value> = (0..40).map(alert).collect();
    vec![
        ("/api/v2/alerts", json!(alerts)),
        ("/api/v2/silences", json!([silence])),
        ("/api/v2/silence/", silence),
    ]
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    request: Request<Body>,
) -> Response<Body> {
    let kind = request
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap_or_default();
    let found = fake
        .answers
        .iter()
        .find(|(start, _)| uri.path().starts_with(start));
    let mut answer = found.map_or_else(Bytes::new, |(_, answer)| answer.clone());
    if method == Method::POST && uri.path() == "/api/v2/silences" {
        answer = json!({ "silenceID": SILENCE }).to_string().into();
    }
    let mut asked = fake.asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.push((method, uri.to_string(), kind, body));
    Response::new(answer.into())
}

/// Starts a fake; its address.
async fn start(asked: &Asked, answers: Vec<(&'static str, Value)>) -> anyhow::Result<String> {
    let answers = answers
        .into_iter()
        .map(|(path, answer)| (path, answer.to_string().into()));
    let fake = Fake {
        asked: asked.clone(),
        answers: Arc::new(answers.collect()),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(answer).with_state(fake);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}

/// How each tool is called. Those over databases are not here: there is no answer time to tell apart from theirs.
fn calls() -> Vec<(&'static str, Value)> {
    vec![
        ("query_metrics", json!({ "query": "sum by (job) (rate(x[5m]))" })),
        (
            "query_metrics",
            json!({ "query": "sum by (job) (rate(x[5m]))", "start": "-1h" }),
        ),
        ("list_metrics", json!({ "search": "counted" })),
        ("list_targets", json!({})),
        ("query_logs", json!({ "service": "api", "level": "error" })),
        ("log_labels", json!({})),
        ("search_traces", json!({ "service": "api" })),
        ("get_trace", json!({ "trace_id": TRACES[0] })),
        ("compare_traces", json!({ "slow": TRACES[0], "fast": TRACES[1] })),
        ("list_alerts", json!({})),
        ("list_silences", json!({})),
        (
            "create_silence",
            json!({ "matchers": { "service": "api" }, "comment": "known" }),
        ),
        ("expire_silence", json!({ "id": SILENCE })),
        ("service_health", json!({ "service": "api" })),
        ("slo_status", json!({})),
        ("explain_alert", json!({ "alert": "HighErrorRate" })),
    ]
}

fn call(tool: &str, arguments: &Value) -> anyhow::Result<Call> {
    Ok(Call {
        execution_id: ExecutionId::new(),
        tenant: "acme".into(),
        tool: ToolSpec {
            name: tool.into(),
            description: String::new(),
            method: "GET".parse()?,
            url: "http://localhost".into(),
            headers: Default::default(),
            input_schema: Default::default(),
            timeout_ms: 30_000,
            read_only: true,
            idempotent: true,
            destructive: false,
            options: Default::default(),
        },
        arguments: arguments.as_object().cloned().unwrap_or_default(),
        credentials: None,
        departed: Departed::default(),
        attempt: None,
        built_in: true,
        caller: Caller {
            key_id: "key".into(),
            key_name: "bench".into(),
            scopes: Scopes::of_a_tenant(),
        },
    })
}

/// The median of the turns, in microseconds a call.
fn median(mut turns: Vec<Duration>) -> f64 {
    turns.sort_unstable();
    turns[turns.len() / 2].as_secs_f64() * 1e6 / f64::from(CALLS)
}

async fn measure(
    observe: &Observe,
    client: &reqwest::Client,
    asked: &Asked,
    base: &str,
    tool: &str,
    arguments: &Value,
) -> anyhow::Result<()> {
    let (progress, _heard) = progress::channel();
    let taken = || std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
    taken();
    let answered = observe.run(&call(tool, arguments)?, &progress).await;
    let answer = answered.with_context(|| tool.to_owned())?;
    let requests = taken();
    let (mut tools, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(observe.run(&call(tool, arguments)?, &progress).await?);
        }
        tools.push(started.elapsed());
        let started = Instant::now();
        for _ in 0..CALLS {
            for (method, uri, kind, body) in &requests {
                let request = client
                    .request(method.clone(), format!("{base}{uri}"))
                    .header("content-type", kind);
                black_box(request.body(body.clone()).send().await?.bytes().await?);
            }
        }
        plain.push(started.elapsed());
        taken();
    }
    let (tool_takes, plain_takes) = (median(tools), median(plain));
    println!(
        "{tool:<16} {:>3} requests {plain_takes:>9.0} us  tool {tool_takes:>9.0} us  above {:>9.0} us  ratio {:>5.2}  answer {:>6} B",
        requests.len(),
        tool_takes - plain_takes,
        tool_takes / plain_takes,
        answer.to_string().len(),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = Asked::default();
    let mut settings = Settings::new();
    // All of them behind one address, for their paths differ.
    let all = [prometheus(), loki(), jaeger(), alertmanager()].concat();
    let base = start(&asked, all).await?;
    for kind in [Kind::Prometheus, Kind::Loki, Kind::Jaeger, Kind::Alertmanager] {
        let source = json!({ "kind": kind, "url": base, "multi_tenant": true, "grants": { "acme": { "org_id": "acme" } } });
        settings.insert(kind.as_str().to_owned(), serde_json::from_value(source)?);
    }
    let observe = Observe::new(Sources::new(&settings, "bench")?);
    let client = reqwest::Client::builder().no_proxy().build()?;
    println!(
        "medians of {TURNS} turns of {CALLS} calls each; a plain client asks the same, one request after another"
    );
    for (tool, arguments) in calls() {
        measure(&observe, &client, &asked, &base, tool, &arguments).await?;
    }
    Ok(())
}
