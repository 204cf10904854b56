//! The endpoint that counts.

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::json;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// One arrival in so many is answered with 503, where trying again is safe.
const ONE_FAILS_IN: u64 = 20;
/// The longest that an answer takes, milliseconds.
const LONGEST_MS: u64 = 40;

/// When requests arrived, by idempotency key.
type Arrivals = Arc<Mutex<HashMap<String, Vec<SystemTime>>>>;

#[derive(Clone)]
struct Counter {
    arrivals: Arrivals,
    seed: u64,
}

/// Counts what arrives under each idempotency key. `/steady` always answers well, `/flaky` not always.
pub(crate) struct Endpoint {
    arrivals: Arrivals,
    url: String,
    server: JoinHandle<()>,
}

impl Endpoint {
    /// Starts it; `seed` decides what fails, and how long answers take.
    pub(crate) async fn start(seed: u64) -> anyhow::Result<Self> {
        let arrivals = Arrivals::default();
        let counter = Counter {
            arrivals: arrivals.clone(),
            seed,
        };
        let routes = Router::new()
            .route("/steady", any(steady))
            .route("/flaky", any(flaky))
            .with_state(counter);
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("the endpoint's port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(async move {
            // It ends when it is aborted.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self {
            arrivals,
            url,
            server,
        })
    }

    /// The address of `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// When requests arrived under this key.
    pub(crate) fn arrivals(&self, key: &str) -> Vec<SystemTime> {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.get(key).cloned().unwrap_or_default()
    }

    /// How many requests arrived in all, and under how many keys.
    pub(crate) fn totals(&self) -> (usize, usize) {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        (arrivals.values().map(Vec::len).sum(), arrivals.len())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Counter {
    /// Notes an arrival and draws its lot.
    fn note(&self, headers: &HeaderMap) -> u64 {
        let key = headers
            .get("idempotency-key")
            .and_then(|key| key.to_str().ok())
            .unwrap_or("none");
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = arrivals.entry(key.to_owned()).or_default();
        of_key.push(SystemTime::now());
        let mut hasher = DefaultHasher::new();
        (self.seed, key, of_key.len()).hash(&mut hasher);
        hasher.finish()
    }
}

async fn answer(lot: u64) -> Response {
    tokio::time::sleep(Duration::from_millis(lot % LONGEST_MS)).await;
    axum::Json(json!({ "done": true })).into_response()
}

async fn steady(State(counter): State<Counter>, headers: HeaderMap) -> Response {
    answer(counter.note(&headers)).await
}

async fn flaky(State(counter): State<Counter>, headers: HeaderMap) -> Response {
    let lot = counter.note(&headers);
    if (lot >> 32).is_multiple_of(ONE_FAILS_IN) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    answer(lot).await
}
