use crate::{
    extract::Json,
    http::{EdgeLayer, LargerBody},
    settings::Http,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use serde_json::Value;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tower::ServiceExt;

fn router() -> Router {
    let settings = Http {
        max_body_bytes: 16,
        request_timeout: Duration::from_millis(50),
        max_in_flight: 1,
        ..Http::default()
    };
    Router::new()
        .route("/echo", post(async |Json(body): Json<Value>| Json(body)))
        .route("/large", post(async |body: Bytes| body.len().to_string()))
        .route("/panic", get(async || -> &'static str { panic!("as told") }))
        .route(
            "/slow",
            get(async || tokio::time::sleep(Duration::from_secs(5)).await),
        )
        .layer(DefaultBodyLimit::disable())
        .layer(EdgeLayer::new(&settings).with(LargerBody {
            path: "/large",
            bytes: 32,
        }))
}

#[tokio::test]
async fn one_path_may_have_larger_bodies() {
    let router = router();
    let body = |bytes: usize| Body::from("1".repeat(bytes));
    for (path, bytes, status) in [
        ("/echo", 17, StatusCode::PAYLOAD_TOO_LARGE),
        ("/large", 33, StatusCode::PAYLOAD_TOO_LARGE),
        ("/large", 32, StatusCode::OK),
        ("/echo", 16, StatusCode::OK),
    ] {
        let (got, _) = ask(&router, request("POST", path, body(bytes))).await;
        assert_eq!(got, status, "{path} {bytes}");
    }
}

async fn ask(router: &Router, request: Request) -> (StatusCode, Value) {
    let response = router
        .clone()
        .oneshot(request)
        .await
        .expect("a router does not fail");
    problem(response).await
}

async fn problem(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 16)
        .await
        .expect("a body in memory");
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn request(method: &str, path: &str, body: Body) -> Request {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body)
        .expect("a good request")
}

#[tokio::test]
async fn refusals_are_problems_with_stable_codes() {
    let router = router();
    let long = "\"0123456789abcdef\"";
    let mut declared = request("POST", "/echo", Body::from(long));
    declared.headers_mut().insert("content-length", long.len().into());
    let chunks = [
        Bytes::from_static(b"\"0123456789"),
        Bytes::from_static(b"abcdef\""),
    ]
    .map(Ok::<_, Infallible>);
    let undeclared = request("POST", "/echo", Body::from_stream(stream::iter(chunks)));
    for (asked, status, code) in [
        (declared, 413, "payload_too_large"),
        (undeclared, 413, "payload_too_large"),
        (request("POST", "/echo", Body::from("{")), 400, "invalid_json"),
        (request("GET", "/nowhere", Body::empty()), 404, "not_found"),
        (request("GET", "/echo", Body::empty()), 405, "method_not_allowed"),
        (request("GET", "/panic", Body::empty()), 500, "internal"),
        (request("GET", "/slow", Body::empty()), 504, "request_timeout"),
    ] {
        let (got, body) = ask(&router, asked).await;
        assert_eq!(
            (got.as_u16(), body["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
        if code == "payload_too_large" {
            assert_eq!(body["limit_bytes"], 16);
        }
    }
    let (status, body) = ask(&router, request("POST", "/echo", Body::from("[1]"))).await;
    assert_eq!((status, body), (StatusCode::OK, serde_json::json!([1])));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_read_before_it_is_refused_unless_its_sender_asked() {
    for (expect, chunks_read) in [(None, 3), (Some("100-continue"), 0)] {
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        let chunks = stream::iter(["0123456789"; 3]).map(move |chunk| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(chunk)
        });
        let mut asked = request("POST", "/echo", Body::from_stream(chunks));
        asked.headers_mut().insert("content-length", 30.into());
        if let Some(expect) = expect {
            asked
                .headers_mut()
                .insert("expect", http::HeaderValue::from_static(expect));
        }
        let (status, _) = ask(&router(), asked).await;
        assert_eq!(
            (status.as_u16(), read.load(Ordering::Relaxed)),
            (413, chunks_read)
        );
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let response = router()
        .oneshot(request("GET", "/echo", Body::empty()))
        .await
        .expect("a router does not fail");
    assert_eq!(response.headers()["allow"], "POST");
}

#[tokio::test]
async fn more_than_allowed_at_a_time_is_refused_at_once() {
    let router = router();
    let slow = tokio::spawn(router.clone().oneshot(request("GET", "/slow", Body::empty())));
    // The runtime has one thread: this is its turn, in which it takes the place, and no time to lose it again passes.
    tokio::task::yield_now().await;
    let (status, body) = ask(&router, request("POST", "/echo", Body::from("1"))).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("overloaded"))
    );
    slow.await.expect("no panic").expect("a router does not fail");
    let (status, _) = ask(&router, request("POST", "/echo", Body::from("1"))).await;
    assert_eq!(status, StatusCode::OK);
}
