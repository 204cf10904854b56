//! An HTTP server that tools are pointed at; it keeps what it was asked and misbehaves on demand.

use crate::{Json, installation::target_host};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query, as they were sent.
    pub uri: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
    /// Whether the answer was sent; false while the request is held, or when the caller left.
    pub answered: bool,
}

impl Seen {
    /// A header, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// The server; stops when dropped. `/echo/…` answers what it was sent, `/slow/{ms}` waits, `/big/{bytes}` answers
/// that much, `/status/{code}` answers so, `/flaky/{times}` answers 503 so many times and then as it should, `/held` waits for [`release`](Target::release), `/redirect?to=URL`
/// redirects, `/loop` to itself.
pub struct Target {
    log: Log,
    gate: watch::Sender<bool>,
    address: SocketAddr,
    host: String,
    server: JoinHandle<()>,
}

impl Target {
    /// Starts one on a free port of 127.0.0.1, or of all addresses where the services run elsewhere.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_as(target_host()).await
    }

    /// Starts one that the services, which run elsewhere, reach by this name; on this host without one.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start_as(elsewhere: Option<String>) -> anyhow::Result<Self> {
        let own = if elsewhere.is_some() {
            "0.0.0.0:0"
        } else {
            "127.0.0.1:0"
        };
        let listener = TcpListener::bind(own).await?;
        let address = listener.local_addr()?;
        let host = elsewhere.unwrap_or_else(|| address.ip().to_string());
        let log = Log::default();
        let gate = watch::Sender::new(false);
        let opened = gate.subscribe();
        let routes = Router::new()
            .route("/held", any(held).layer(Extension(opened)))
            .route("/slow/{ms}", any(slow))
            .route("/big/{bytes}", any(big))
            .route("/status/{code}", any(status))
            .route("/flaky/{times}", any(flaky))
            .route("/redirect", any(redirect))
            .route(
                "/loop",
                any(async || (StatusCode::FOUND, [(header::LOCATION, "/loop")])),
            )
            .fallback(echo)
            .with_state(log.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the target ended: {error}");
            }
        });
        Ok(Self {
            log,
            gate,
            address,
            host,
            server,
        })
    }

    /// A URL of this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.host, self.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Answers what `/held` holds, and will hold.
    pub fn release(&self) {
        self.gate.send_replace(true);
    }

    /// Everything that has arrived.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.log).clone()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(log: &Log) -> std::sync::MutexGuard<'_, Vec<Seen>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(log: &Log, method: Method, uri: &Uri, headers: HeaderMap, body: &Bytes) -> usize {
    let mut log = lock(log);
    let body = String::from_utf8_lossy(body).into_owned();
    log.push(Seen {
        method,
        uri: uri.to_string(),
        headers,
        body,
        answered: false,
    });
    log.len() - 1
}

fn answered(log: &Log, at: usize) {
    lock(log)[at].answered = true;
}

async fn echo(State(log): State<Log>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let sent = String::from_utf8_lossy(&body).into_owned();
    let answer: Json = json!({ "method": method.as_str(), "uri": uri.to_string(), "body": sent });
    let at = note(&log, method, &uri, headers, &body);
    answered(&log, at);
    axum::Json(answer).into_response()
}

async fn slow(
    State(log): State<Log>,
    Path(ms): Path<u64>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let at = note(&log, method, &uri, headers, &body);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    answered(&log, at);
    axum::Json(json!({ "waited_ms": ms })).into_response()
}

async fn held(
    State(log): State<Log>,
    Extension(mut opened): Extension<watch::Receiver<bool>>,
    method: Method,
    uri: Uri,
) -> Response {
    let at = note(&log, method, &uri, HeaderMap::new(), &Bytes::new());
    // An error says that the server is gone, and with it who asked.
    let _ = opened.wait_for(|opened| *opened).await;
    answered(&log, at);
    axum::Json(json!({})).into_response()
}

async fn big(State(log): State<Log>, Path(bytes): Path<usize>, method: Method, uri: Uri) -> Response {
    let at = note(&log, method, &uri, HeaderMap::new(), &Bytes::new());
    answered(&log, at);
    Body::from("x".repeat(bytes)).into_response()
}

async fn status(State(log): State<Log>, Path(code): Path<u16>, method: Method, uri: Uri) -> Response {
    let at = note(&log, method, &uri, HeaderMap::new(), &Bytes::new());
    answered(&log, at);
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT);
    (status, axum::Json(json!({ "code": code }))).into_response()
}

async fn flaky(
    State(log): State<Log>,
    Path(times): Path<usize>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let at = note(&log, method, &uri, headers, &body);
    answered(&log, at);
    let path = uri.path();
    let seen = lock(&log)[..=at]
        .iter()
        .filter(|seen| seen.uri.split('?').next() == Some(path))
        .count();
    let status = if seen <= times {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, axum::Json(json!({ "seen": seen }))).into_response()
}

async fn redirect(State(log): State<Log>, method: Method, uri: Uri) -> Response {
    let at = note(&log, method, &uri, HeaderMap::new(), &Bytes::new());
    answered(&log, at);
    let to = uri
        .query()
        .and_then(|query| query.strip_prefix("to="))
        .unwrap_or("/")
        .to_owned();
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}
