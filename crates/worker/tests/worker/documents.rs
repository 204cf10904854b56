//! Documents that are fetched for rest-api.

use crate::{
    runs::{HERE, serve},
    support::{PATIENCE, TOKEN, start},
};
use axum::{
    Router,
    http::{HeaderMap, StatusCode, header::LOCATION},
    routing::get,
};
use chassis::lifecycle::Running;
use proto::v1::{FetchRequest, tool_runner_client::ToolRunnerClient};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status, transport::Channel};

type Client = ToolRunnerClient<Channel>;

/// The document and the sizes of its parts, or the code of what kept it away.
async fn fetch(client: &mut Client, url: String, max_bytes: u64) -> Result<(Vec<u8>, Vec<usize>), String> {
    let code = |status: Status| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        let code = status.metadata().get(proto::CODE_KEY).unwrap();
        code.to_str().unwrap().to_owned()
    };
    let request = FetchRequest {
        tenant: "acme".into(),
        url,
        max_bytes,
    };
    let request = chassis::grpc::with_bearer(Request::new(request), TOKEN).unwrap();
    let mut parts = client.fetch(request).await.map_err(code)?.into_inner();
    let (mut document, mut sizes) = (Vec::new(), Vec::new());
    while let Some(part) = parts.message().await.map_err(code)? {
        sizes.push(part.data.len());
        document.extend(part.data);
    }
    Ok((document, sizes))
}

fn documents() -> Router {
    let endless = get(async || {
        let chunks = tokio_stream::iter(std::iter::repeat_with(|| {
            Ok::<_, std::io::Error>("y".repeat(512))
        }));
        axum::body::Body::from_stream(chunks)
    });
    let plain = get(async |headers: HeaderMap| {
        let credentials = ["authorization", "cookie", "idempotency-key"];
        assert!(credentials.iter().all(|name| !headers.contains_key(*name)));
        "openapi: 3.1.0"
    });
    let inward = get(async || {
        (
            StatusCode::FOUND,
            [(LOCATION, "http://169.254.169.254/latest/meta-data")],
        )
    });
    Router::new()
        .route("/plain", plain)
        .route("/large", get(async || "x".repeat(200_000)))
        .route("/near", get(async || (StatusCode::FOUND, [(LOCATION, "/plain")])))
        .route("/loop", get(async || (StatusCode::FOUND, [(LOCATION, "/loop")])))
        .route("/inward", inward)
        .route("/endless", endless)
}

async fn client(worker: &Running) -> Client {
    let grpc = format!("http://{}", worker.grpc.unwrap());
    Client::new(Channel::from_shared(grpc).unwrap().connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_come_in_parts_behind_the_guard_and_within_bounds() {
    let address = serve(documents()).await;
    let mut worker = start(address, |c| {
        c.service.outbound.max_document_bytes = 300_000;
        c.service.concurrency.per_tenant = 1;
        c.service.concurrency.wait = PATIENCE;
    })
    .await;
    let mut client = client(&worker).await;

    for path in ["plain", "near"] {
        let (document, _) = fetch(&mut client, format!("http://{address}/{path}"), 0)
            .await
            .unwrap();
        assert_eq!(document, b"openapi: 3.1.0");
    }
    let (document, sizes) = fetch(&mut client, format!("http://{address}/large"), 200_000)
        .await
        .unwrap();
    assert_eq!(document.len(), 200_000);
    assert!(sizes.iter().all(|size| *size <= 64 * 1024) && sizes.len() > 3);
    for (url, max_bytes, code) in [
        (format!("http://{address}/large"), 199_999, "response_too_large"),
        (
            format!("http://{address}/endless"),
            1_000_000_000,
            "response_too_large",
        ),
        (format!("http://{address}/loop"), 0, "too_many_redirects"),
        (format!("http://{address}/inward"), 0, "address_not_allowed"),
        (format!("http://{address}/missing"), 0, "http_status"),
        (
            format!("http://127.0.0.1:{}/plain", address.port()),
            0,
            "address_not_allowed",
        ),
        ("file:///etc/passwd".to_owned(), 0, "invalid_arguments"),
        (
            format!("http://user:pass@{address}/plain"),
            0,
            "invalid_arguments",
        ),
    ] {
        let refused = fetch(&mut client, url.clone(), max_bytes).await;
        assert_eq!(refused.err().as_deref(), Some(code), "{url}");
    }
    let anonymous = client.fetch(FetchRequest::default()).await.unwrap_err();
    assert_eq!(anonymous.code(), Code::Unauthenticated);
    drop(client);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_never_comes_ends_with_its_time() {
    let silent = TcpListener::bind((HERE, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut worker = start(address, |c| {
        c.service.outbound.max_timeout = Duration::from_millis(500);
    })
    .await;
    let mut client = client(&worker).await;
    let late = fetch(&mut client, format!("http://{address}/"), 0).await;
    assert_eq!(late.err().as_deref(), Some("timeout"));
    drop(client);
    worker.stop().await.unwrap();
}
