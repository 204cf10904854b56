//! Runs of HTTP tools.

use axum::{
    Json, Router,
    extract::{Path, RawQuery},
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::Redirect,
    routing::{any, get, post},
};
use chassis::settings::Shutdown;
use domain::{
    ExecutionId,
    execution::{ExecutionStatus, Outcome},
    tool::{Credentials, ToolSpec},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use worker::{
    Settings,
    progress::{self, Reporter},
    runner::Runner,
    tools::{Call, Departed},
};

/// Where the tests' endpoints are, and nothing else: the guard opens this address alone.
pub(crate) const HERE: &str = "127.0.0.2";

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.outbound.allow_private = vec![format!("{HERE}/32").parse().unwrap()];
    settings
}

pub(crate) fn runner(settings: &Settings) -> Runner {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Runner::new(settings, &Shutdown::default(), CancellationToken::new()).unwrap()
}

pub(crate) async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// A tool that may not run twice.
pub(crate) fn tool(method: &str, url: impl Into<String>) -> ToolSpec {
    ToolSpec {
        name: "probe".into(),
        description: "A test's tool".into(),
        method: method.parse().unwrap(),
        url: url.into(),
        headers: Default::default(),
        input_schema: Default::default(),
        timeout_ms: 60_000,
        read_only: false,
        idempotent: false,
        destructive: false,
        options: Default::default(),
    }
}

pub(crate) fn call(tool: ToolSpec, arguments: Value) -> Call {
    let Value::Object(arguments) = arguments else {
        panic!("arguments are an object")
    };
    Call {
        execution_id: ExecutionId::new(),
        tenant: "acme".into(),
        tool,
        arguments,
        credentials: None,
        departed: Departed::default(),
        attempt: None,
        built_in: false,
        caller: Default::default(),
    }
}

pub(crate) fn deaf() -> Reporter {
    progress::channel().0
}

async fn run(tool: ToolSpec, arguments: Value) -> Outcome {
    runner(&settings())
        .run(call(tool, arguments), &deaf())
        .await
        .outcome
}

/// The status, and the code where there is one.
pub(crate) fn ended(outcome: &Outcome) -> (ExecutionStatus, &str) {
    (
        outcome.status,
        outcome.error.as_ref().map_or("", |error| error.code.as_str()),
    )
}

/// Takes one connection and reads from it until the request's head is there.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(
            stream.read_buf(&mut head).await.unwrap(),
            0,
            "the request broke off"
        );
    }
    stream
}

#[tokio::test]
async fn arguments_reach_the_endpoint_and_its_answer_comes_back() {
    let echo = async |Path(id): Path<String>, RawQuery(query): RawQuery, headers: HeaderMap, body: String| {
        let seen = |name| {
            headers
                .get(name)
                .map(|value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned())
        };
        Json(json!({
            "id": id, "query": query, "body": body, "key": seen("idempotency-key"), "auth": seen("authorization"),
            "team": seen("x-team"), "agent": seen("user-agent"),
        }))
    };
    let address = serve(Router::new().route("/items/{id}", any(echo))).await;
    let mut call = call(
        tool("POST", format!("http://{address}/items/{{id}}")),
        json!({"id": "a/../b", "n": [1, 2]}),
    );
    call.tool.headers.insert("X-Team".into(), "ours".into());
    call.credentials = Some(Credentials::Bearer {
        token: "secret".into(),
    });
    let id = call.execution_id.to_string();
    let (reporter, mut reports) = progress::channel();
    let outcome = runner(&settings()).run(call, &reporter).await.outcome;
    assert_eq!(ended(&outcome), (ExecutionStatus::Succeeded, ""));
    let result = outcome.result.unwrap();
    assert_eq!(
        (result["status"].as_u64(), &result["headers"]["content-type"]),
        (Some(200), &json!("application/json"))
    );
    let body = &result["body"];
    assert_eq!(
        (&body["id"], &body["body"], &body["key"]),
        (&json!("a/../b"), &json!("{\"n\":[1,2]}"), &json!(id))
    );
    assert_eq!(
        (&body["auth"], &body["team"]),
        (&json!("Bearer secret"), &json!("ours"))
    );
    assert!(body["agent"].as_str().unwrap().starts_with("devops-mcp/"));
    let (first, second) = (reports.recv().await.unwrap(), reports.recv().await.unwrap());
    assert!(first.progress < second.progress, "progress only grows");

    let outcome = run(
        tool("GET", format!("http://{address}/items/{{id}}")),
        json!({"id": 1, "tag": ["x", "y&z"]}),
    )
    .await;
    assert_eq!(outcome.result.unwrap()["body"]["query"], "tag=x&tag=y%26z");
}

#[tokio::test]
async fn an_error_status_fails_and_carries_the_answer() {
    let teapot = get(async || {
        (
            StatusCode::IM_A_TEAPOT,
            [("retry-after", "7"), ("set-cookie", "s=1")],
            "short and stout",
        )
    });
    let address = serve(Router::new().route("/", teapot)).await;
    let outcome = run(tool("GET", format!("http://{address}/")), json!({})).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "http_status"));
    let result = outcome.result.unwrap();
    assert_eq!(
        (&result["status"], &result["body"]),
        (&json!(418), &json!("short and stout"))
    );
    assert_eq!(result["headers"]["retry-after"], "7");
    assert!(result["headers"].get("set-cookie").is_none());
}

#[tokio::test]
async fn private_addresses_are_refused_by_ip_by_name_and_by_redirect() {
    let away = async |Path(to): Path<String>| (StatusCode::FOUND, [(LOCATION, format!("http://{to}/"))]);
    let address = serve(Router::new().route("/to/{host}", get(away))).await;
    let port = address.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://localhost:{port}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        format!("http://{address}/to/127.0.0.1:{port}"),
        format!("http://{address}/to/localhost:{port}"),
        format!("http://{address}/to/169.254.169.254"),
    ] {
        for twice in [true, false] {
            let outcome = run(
                ToolSpec {
                    idempotent: twice,
                    ..tool("GET", url.as_str())
                },
                json!({}),
            )
            .await;
            assert_eq!(
                ended(&outcome),
                (ExecutionStatus::Failed, "address_not_allowed"),
                "{url}"
            );
        }
    }
}

#[tokio::test]
async fn redirects_are_followed_within_bounds_and_credentials_stay_at_home() {
    let show = get(async |headers: HeaderMap| {
        Json(json!({"auth": headers.contains_key("authorization"), "team": headers.contains_key("x-team")}))
    });
    let elsewhere = serve(Router::new().route("/show", show.clone())).await;
    let away = format!("http://{elsewhere}/show");
    let home = Router::new()
        .route("/show", show)
        .route("/near", get(async || Redirect::temporary("/show")))
        .route("/away", get(async move || Redirect::temporary(&away)))
        .route("/loop", get(async || Redirect::temporary("/loop")));
    let home = serve(home).await;
    for (path, sent) in [("near", true), ("away", false)] {
        let mut call = call(tool("GET", format!("http://{home}/{path}")), json!({}));
        call.tool.headers.insert("X-Team".into(), "ours".into());
        call.credentials = Some(Credentials::Bearer {
            token: "secret".into(),
        });
        let outcome = runner(&settings()).run(call, &deaf()).await.outcome;
        assert_eq!(
            outcome.result.unwrap()["body"],
            json!({"auth": sent, "team": sent}),
            "{path}"
        );
    }
    let outcome = run(tool("GET", format!("http://{home}/loop")), json!({})).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "too_many_redirects"));
}

#[tokio::test]
async fn what_is_too_large_is_refused_declared_or_not() {
    let big = post(async || vec![b'x'; 4096]);
    let endless = get(async || {
        let chunks = tokio_stream::iter(std::iter::repeat_with(|| {
            Ok::<_, std::io::Error>("y".repeat(512))
        }));
        axum::body::Body::from_stream(chunks)
    });
    let address = serve(Router::new().route("/big", big).route("/endless", endless)).await;
    let mut settings = settings();
    settings.outbound.max_response_bytes = 4095;
    let runner = runner(&settings);
    for (method, path) in [("POST", "big"), ("GET", "endless")] {
        let outcome = runner
            .run(
                call(tool(method, format!("http://{address}/{path}")), json!({})),
                &deaf(),
            )
            .await
            .outcome;
        assert_eq!(
            ended(&outcome),
            (ExecutionStatus::Failed, "response_too_large"),
            "{path}"
        );
        assert!(outcome.error.unwrap().message.contains("4095"));
    }
}

#[tokio::test]
async fn a_silent_or_broken_endpoint_leaves_open_only_what_may_not_run_twice() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    for (twice, status) in [
        (true, ExecutionStatus::Failed),
        (false, ExecutionStatus::OutcomeUnknown),
    ] {
        let silent = ToolSpec {
            idempotent: twice,
            // Long enough for the request to leave a busy machine.
            timeout_ms: 1_500,
            ..tool("POST", url.as_str())
        };
        let (outcome, _open) = tokio::join!(run(silent, json!({})), accept(&listener));
        assert_eq!(ended(&outcome), (status, "timeout"));

        let broken = ToolSpec {
            idempotent: twice,
            ..tool("POST", url.as_str())
        };
        let (outcome, ()) = tokio::join!(run(broken, json!({})), async { drop(accept(&listener).await) });
        assert_eq!(ended(&outcome), (status, "connection_lost"));

        let cut = ToolSpec {
            idempotent: twice,
            ..tool("POST", url.as_str())
        };
        let (outcome, ()) = tokio::join!(run(cut, json!({})), async {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
            accept(&listener).await.write_all(answer).await.unwrap();
        });
        assert_eq!(ended(&outcome), (status, "connection_lost"));
    }
}

#[tokio::test]
async fn what_never_left_has_failed() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move { listener.accept().await.unwrap().0 });
    // The TLS handshake is never answered: the request cannot have left.
    let tls = ToolSpec {
        timeout_ms: 1_500,
        ..tool("POST", format!("https://{address}/"))
    };
    assert_eq!(
        ended(&run(tls, json!({})).await),
        (ExecutionStatus::Failed, "timeout")
    );
    drop(accepting.await.unwrap());

    let outcome = run(tool("POST", format!("http://{address}/")), json!({})).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "connect_failed"));
    let plain = serve(Router::new()).await;
    let outcome = run(tool("POST", format!("https://{plain}/")), json!({})).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "tls_failed"));
    let outcome = run(tool("POST", "http://no-such-host.invalid/"), json!({})).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "dns_failed"));
    let outcome = run(tool("POST", format!("http://{plain}/{{id}}")), json!({})).await;
    assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "invalid_arguments"));
}

#[tokio::test]
async fn who_leaves_closes_the_connection() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    for twice in [true, false] {
        let tool = ToolSpec {
            idempotent: twice,
            ..tool("POST", url.as_str())
        };
        let running = tokio::spawn(run(tool, json!({})));
        let mut stream = accept(&listener).await;
        running.abort();
        let closed = async { while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {} };
        tokio::time::timeout(Duration::from_secs(30), closed)
            .await
            .expect("the connection is closed at once");
    }
}

#[tokio::test]
async fn a_tenant_at_its_limit_waits_and_another_does_not() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let silent = format!("http://{}/", listener.local_addr().unwrap());
    let quick = format!(
        "http://{}/",
        serve(Router::new().route("/", get(async || "ok"))).await
    );
    let mut settings = settings();
    settings.concurrency.per_tenant = 1;
    settings.concurrency.wait = Duration::from_millis(50);
    let runner = runner(&settings);
    let held = {
        let runner = runner.clone();
        tokio::spawn(async move { runner.run(call(tool("GET", silent), json!({})), &deaf()).await })
    };
    let _open = accept(&listener).await;
    let (reporter, mut reports) = progress::channel();
    let outcome = runner
        .run(call(tool("GET", quick.as_str()), json!({})), &reporter)
        .await
        .outcome;
    assert_eq!(ended(&outcome), (ExecutionStatus::Failed, "overloaded"));
    assert_eq!(reports.recv().await.unwrap().message, "waiting for a free slot");
    let other = Call {
        tenant: "globex".into(),
        ..call(tool("GET", quick.as_str()), json!({}))
    };
    assert_eq!(
        runner.run(other, &deaf()).await.outcome.status,
        ExecutionStatus::Succeeded
    );
    held.abort();
    let _ = held.await;
    let again = runner.run(call(tool("GET", quick), json!({})), &deaf()).await;
    assert_eq!(again.outcome.status, ExecutionStatus::Succeeded);
}

#[tokio::test]
async fn a_stopping_worker_says_what_is_known() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stopping = Shutdown {
        timeout: Duration::from_millis(40),
        ..Shutdown::default()
    };
    let runner = Runner::new(&settings(), &stopping, shutdown.clone()).unwrap();
    let reporter = deaf();
    let run = runner.run(call(tool("POST", url), json!({})), &reporter);
    let (stopped, _open) = tokio::join!(run, async {
        let open = accept(&listener).await;
        shutdown.cancel();
        open
    });
    assert_eq!(
        ended(&stopped.outcome),
        (ExecutionStatus::OutcomeUnknown, "worker_stopped")
    );
}
