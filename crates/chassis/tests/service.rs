//! A real service on port 0: its ops pages, its end, its gRPC door.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use axum::{Router, routing::get};
use chassis::{
    App, Configuration, Host, Service, ServiceInfo, Settings, lifecycle::Running, settings::Common,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::LazyLock, time::Duration};
use telemetry::metrics::Declaration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::{sleep, timeout},
};
use tower::ServiceExt;

/// One for the whole process, on a runtime that outlives each test's.
static TELEMETRY: LazyLock<(tokio::runtime::Runtime, telemetry::Telemetry)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let settings = telemetry::Settings::default();
    let started = {
        let _entered = runtime.enter();
        telemetry::init(Sample::INFO, "test", &settings, &[chassis::DECLARATIONS]).unwrap()
    };
    (runtime, started)
});

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SampleSettings {}

impl Settings for SampleSettings {
    fn common() -> Common {
        let mut common = Common::listening(0, Some(0));
        common.admin_token = Some(SecretString::from("open"));
        common
    }
}

struct Sample;

/// The one request to `/slow` has arrived, and may be answered.
static SLOW_BEGUN: Notify = Notify::const_new();
static SLOW_MAY_END: Notify = Notify::const_new();
/// How long to wait for what must come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Service for Sample {
    const INFO: ServiceInfo = ServiceInfo {
        name: "sample",
        version: "0.0.1",
    };
    type Settings = SampleSettings;

    fn declarations() -> &'static [&'static [Declaration]] {
        &[]
    }

    async fn build(_settings: SampleSettings, host: &Host) -> anyhow::Result<App> {
        host.readiness.dependency("database").down("not there");
        let slow = async || {
            SLOW_BEGUN.notify_one();
            SLOW_MAY_END.notified().await;
            "done"
        };
        let routes = Router::new()
            .route("/slow", get(slow))
            .route("/hello", get(async || "hello"));
        let http = chassis::http::stack(routes, tower::layer::util::Identity::new(), &host.common);
        let admin = Router::new().route("/debug/own", get(async || "own"));
        Ok(App {
            http,
            grpc: Some(tonic::service::Routes::default()),
            admin,
            ..App::default()
        })
    }
}

async fn start(change: impl FnOnce(&mut Common)) -> Running {
    let telemetry = tokio::task::spawn_blocking(|| TELEMETRY.1.handle())
        .await
        .unwrap();
    let mut configuration = Configuration::defaults();
    change(&mut configuration.common);
    chassis::lifecycle::start::<Sample>(configuration, telemetry)
        .await
        .unwrap()
}

/// Waits until `condition` holds.
async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let holds = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, holds)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Status and body of one request over its own connection.
async fn ask(address: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}

async fn get_json(address: SocketAddr, path: &str, headers: &str) -> (u16, Value) {
    let (status, body) = ask(address, &format!("GET {path}"), headers, "").await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_nothing_new_is_taken() {
    let directory = std::env::temp_dir().join(format!("chassis-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let ready_file = directory.join("ready.json");
    let mut running = start(|common| {
        common.ready_file = Some(ready_file.clone());
        common.shutdown.drain = Duration::from_secs(2);
        common.shutdown.timeout = PATIENCE;
    })
    .await;
    let written: Value = serde_json::from_slice(&std::fs::read(&ready_file).unwrap()).unwrap();
    assert_eq!(written, json!({"http": running.http, "grpc": running.grpc}));
    let http = running.http;
    let (status, report) = get_json(http, "/readyz", "").await;
    assert_eq!(status, 200);
    assert_eq!(report["dependencies"]["database"]["reason"], "not there");

    let slow = tokio::spawn(async move { ask(http, "GET /slow", "", "").await });
    timeout(PATIENCE, SLOW_BEGUN.notified()).await.unwrap();
    let readiness = running.host.readiness.clone();
    let stopping = tokio::spawn(async move { running.stop().await });
    eventually("it is told to stop", async || !readiness.is_ready()).await;
    // Draining: still answers, and says that it is going.
    let (status, report) = get_json(http, "/readyz", "").await;
    assert_eq!((status, report["status"].as_str()), (503, Some("draining")));
    assert!(!ready_file.exists());

    eventually("nothing new is taken", async || {
        TcpStream::connect(http).await.is_err()
    })
    .await;
    SLOW_MAY_END.notify_one();
    assert_eq!(slow.await.unwrap(), (200, "done".to_owned()));
    stopping.await.unwrap().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_off_and_named() {
    let mut running = start(|common| common.shutdown.timeout = Duration::from_millis(50)).await;
    running
        .host
        .tasks
        .spawn_graceful("stubborn", |_| std::future::pending());
    let error = running.stop().await.unwrap_err().to_string();
    assert!(error.contains("50ms") && error.contains("stubborn"), "{error}");
}

#[tokio::test]
async fn admin_pages_ask_for_the_token() {
    let open = start(|_| {}).await;
    let bearer = "authorization: Bearer open\r\n";
    let basic = "authorization: Basic YW55b25lOm9wZW4=\r\n";
    for (headers, expected) in [
        ("", 401),
        ("authorization: Bearer opem\r\n", 401),
        (bearer, 200),
        (basic, 200),
    ] {
        for path in ["/admin/log-level", "/debug/own"] {
            assert_eq!(
                get_json(open.http, path, headers).await.0,
                expected,
                "{path} with {headers}"
            );
        }
    }
    let closed = start(|common| common.admin_token = None).await;
    let (status, problem) = get_json(closed.http, "/admin/log-level", bearer).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("admin_closed")));
    assert!(problem["detail"].as_str().unwrap().contains("ADMIN_TOKEN"));
}

#[tokio::test]
async fn the_log_level_changes_and_goes_back_by_itself() {
    let running = start(|_| {}).await;
    let bearer = "authorization: Bearer open\r\n";
    // As curl -d sends it.
    let headers = format!("{bearer}content-type: application/x-www-form-urlencoded\r\n");
    let put = async |body: &str| {
        let (status, text) = ask(running.http, "PUT /admin/log-level", &headers, body).await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let level = async || get_json(running.http, "/admin/log-level", bearer).await.1["level"].clone();

    assert_eq!(put(r#"{"level": "warn"}"#).await, (200, json!({"level": "warn"})));
    let (status, shown) = put(r#"{"level": "debug", "ttl": "10m"}"#).await;
    assert_eq!((status, &shown["reverts_to"]), (200, &json!("warn")));
    let (status, _) = put(r#"{"level": "trace", "ttl": "2s"}"#).await;
    assert_eq!((status, level().await), (200, json!("trace")));
    eventually("it reverts to the first level", async || level().await == "warn").await;

    for wrong in [
        r#"{"level": "loud"}"#,
        r#"{"level": "info", "ttl": "soon"}"#,
        r#"{"lvl": "info"}"#,
        "debug",
    ] {
        let (status, problem) = put(wrong).await;
        assert_eq!(status, 400, "{wrong}: {problem}");
        assert!(problem["allowed"].as_str().unwrap().contains("debug"));
    }
    assert_eq!(put(r#"{"level": "info"}"#).await.0, 200);
}

#[tokio::test]
async fn errors_say_the_request_id_and_the_trace_id() {
    let running = start(|_| {}).await;
    let (status, problem) = get_json(running.http, "/nowhere", "x-request-id: abc-1\r\n").await;
    assert_eq!(
        (status, problem["code"].as_str(), problem["request_id"].as_str()),
        (404, Some("not_found"), Some("abc-1"))
    );
    assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(ask(running.http, "GET /hello", "", "").await.1, "hello");
    let metrics = async || {
        let (status, metrics) = ask(running.http, "GET /metrics", "", "").await;
        assert_eq!(status, 200);
        metrics
    };
    // Counted when the answer has been sent.
    eventually("requests are counted", async || {
        metrics().await.contains(r#"path="unmatched""#)
    })
    .await;
    let metrics = metrics().await;
    assert!(metrics.contains("dependency_up{"), "{metrics}");
    assert!(!metrics.contains(r#"path="/metrics""#), "{metrics}");
}

#[tokio::test]
async fn a_channel_reaches_the_grpc_server() {
    let running = start(|_| {}).await;
    let url = format!("http://{}", running.grpc.unwrap());
    let channel = chassis::grpc::channel(&running.host, "sample", &url, &Default::default()).unwrap();
    let request = http::Request::post("http://sample/sample.Sample/Missing")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = timeout(PATIENCE, channel.oneshot(request))
        .await
        .unwrap()
        .unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::Unimplemented, "{status}");
}
