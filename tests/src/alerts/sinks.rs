//! Where Slack, PagerDuty and the dead-man switch would be: servers that keep what they are sent. And the endpoint of
//! the tools that fail, hold, or work.

use super::notice::{Channel, Notice};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{any, post},
};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::Instant};

#[derive(Default)]
struct Kept {
    notices: Vec<Notice>,
    /// What could not be understood: a finding.
    nonsense: Vec<String>,
    heartbeats: Vec<Instant>,
}

#[derive(Clone)]
struct Shared {
    kept: Arc<Mutex<Kept>>,
    failing: Arc<AtomicBool>,
    held: watch::Sender<bool>,
}

/// The server; stops when dropped.
pub struct Sinks {
    shared: Shared,
    server: JoinHandle<()>,
}

impl Sinks {
    /// Listens on all interfaces of this host, for containers come from others than the loopback's.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        let shared = Shared {
            kept: Arc::default(),
            failing: Arc::default(),
            held: watch::Sender::new(false),
        };
        let routes = Router::new()
            .route("/slack", post(slack))
            .route("/v2/enqueue", post(pagerduty))
            .route("/dead-man", post(dead_man))
            // Agents are told what people are told, too.
            .route("/agents", post(async || StatusCode::OK))
            .route("/tools/works", any(async || Json(json!({ "done": true }))))
            .route("/tools/fails", any(fails))
            .route("/tools/holds", any(holds))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the sinks ended: {error}");
            }
        });
        Ok(Self { shared, server })
    }

    /// The notifications so far, oldest first.
    pub fn notices(&self) -> Vec<Notice> {
        self.with(|kept| kept.notices.clone())
    }

    /// What arrived and was no notification.
    pub fn nonsense(&self) -> Vec<String> {
        self.with(|kept| kept.nonsense.clone())
    }

    /// When the dead-man switch heard from Watchdog.
    pub fn heartbeats(&self) -> Vec<Instant> {
        self.with(|kept| kept.heartbeats.clone())
    }

    /// Whether `/tools/fails` fails: with 503, or with 200.
    pub fn fail(&self, fails: bool) {
        self.shared.failing.store(fails, Ordering::Relaxed);
    }

    /// Whether `/tools/holds` holds its requests. Those that are held are answered when it ends.
    pub fn hold(&self, holds: bool) {
        self.shared.held.send_replace(holds);
    }

    fn with<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        read(&self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn keep(&self, parsed: anyhow::Result<Notice>, body: &Value) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match parsed {
            Ok(notice) => kept.notices.push(notice),
            Err(error) => kept.nonsense.push(format!("{error:#}: {body}")),
        }
    }
}

async fn slack(State(shared): State<Shared>, Json(body): Json<Value>) -> &'static str {
    shared.keep(Notice::parse(Channel::Slack, &body), &body);
    "ok"
}

async fn pagerduty(State(shared): State<Shared>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    shared.keep(Notice::parse(Channel::PagerDuty, &body), &body);
    let answer = json!({ "status": "success", "message": "Event processed", "dedup_key": body["dedup_key"] });
    (StatusCode::ACCEPTED, Json(answer))
}

async fn dead_man(State(shared): State<Shared>, Json(body): Json<Value>) {
    let watchdog = body["commonLabels"]["alertname"] == "Watchdog" && body["status"] == "firing";
    let mut kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
    if watchdog {
        kept.heartbeats.push(Instant::now());
    } else {
        kept.nonsense.push(format!("the dead-man switch was sent {body}"));
    }
}

async fn fails(State(shared): State<Shared>) -> StatusCode {
    match shared.failing.load(Ordering::Relaxed) {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::OK,
    }
}

async fn holds(State(shared): State<Shared>) {
    // Its sender is in the state, so it cannot be gone.
    let _ = shared.held.subscribe().wait_for(|held| !held).await;
}
