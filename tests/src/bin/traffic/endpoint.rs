//! What the tools of the traffic call: answers at once, slowly, at length, with errors, or breaks off.

use crate::server;
use anyhow::Context;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::stream;
use serde_json::json;
use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;

/// Of how many executions it is remembered that they were refused once.
const REMEMBERED: usize = 10_000;

/// The idempotency keys that were answered with 503 and have not come again.
type Refused = Arc<Mutex<HashSet<String>>>;

/// A running endpoint.
pub(crate) struct Endpoint {
    base: String,
}

impl Endpoint {
    /// Listens on `listen`. Workers reach it at `advertise`: a URL or a name, to which the port is added that was taken;
    /// where none is given, at the address itself.
    pub(crate) async fn start(listen: SocketAddr, advertise: Option<&str>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening on {listen}"))?;
        let own = listener.local_addr()?;
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes()).await {
                eprintln!("the endpoint of the tools ended: {error}");
            }
        });
        let base = advertise.map_or_else(
            || Ok(format!("http://{own}")),
            |named| advertised(named, own.port()),
        )?;
        Ok(Self { base })
    }

    /// Where the tools find `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// `host`, `host:port` or a URL of either, as a URL with a port.
fn advertised(named: &str, port: u16) -> anyhow::Result<String> {
    let named = named.trim_end_matches('/');
    let url = if named.contains("://") {
        named.to_owned()
    } else {
        format!("http://{named}")
    };
    let parsed = reqwest::Url::parse(&url).with_context(|| format!("--advertise {named}"))?;
    Ok(if parsed.port().is_some() {
        url
    } else {
        format!("{url}:{port}")
    })
}

fn routes() -> Router {
    Router::new()
        .route("/slow/{ms}", any(slow))
        .route(
            "/big/{bytes}",
            any(async |Path(bytes): Path<usize>| "x".repeat(bytes)),
        )
        .route("/status/{code}", any(status))
        .route("/flaky", any(flaky))
        .route("/breaks-off", any(breaks_off))
        .fallback(async || Json(json!({ "done": true })))
        .with_state(Refused::default())
        .merge(server::routes())
}

async fn slow(Path(ms): Path<u64>) -> Json<serde_json::Value> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Json(json!({ "waited_ms": ms }))
}

async fn status(Path(code): Path<u16>) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT)
}

/// 503 the first time that an execution comes, 200 the second time.
async fn flaky(State(refused): State<Refused>, headers: HeaderMap) -> StatusCode {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.unwrap_or_default().to_owned();
    let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
    if refused.remove(&key) {
        return StatusCode::OK;
    }
    if refused.len() >= REMEMBERED {
        refused.clear();
    }
    refused.insert(key);
    StatusCode::SERVICE_UNAVAILABLE
}

/// Begins an answer and never ends it.
async fn breaks_off() -> Response {
    let parts = stream::iter([Ok("{"), Err(io::Error::other("broken off on purpose"))]);
    Body::from_stream(parts).into_response()
}
