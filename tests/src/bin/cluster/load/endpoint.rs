//! What the load's tools call: it gives back what it was sent, and knows what came twice.

use super::ledger::{Ledger, Wrong};
use anyhow::Context;
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;

/// The kind of request that a tool is counted as that must run once at most.
pub(crate) const ONCE: &str = "mcp tool once";

#[derive(Clone)]
struct Seen {
    ledger: Arc<Ledger>,
    once: Arc<Mutex<HashSet<String>>>,
}

/// Answers on `listen` until the process ends.
///
/// # Errors
/// When the port is taken.
pub(crate) async fn start(listen: SocketAddr, ledger: Arc<Ledger>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listening on {listen}"))?;
    let routes = Router::new()
        .route("/", get(async || "load"))
        .route(
            "/echo/{word}",
            get(async |Path(word): Path<String>| Json(json!({ "word": word }))),
        )
        .route("/once/{word}", post(once))
        .with_state(Seen {
            ledger,
            once: Arc::default(),
        });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            eprintln!("the endpoint of the tools ended: {error}");
        }
    });
    Ok(())
}

async fn once(State(seen): State<Seen>, Path(word): Path<String>) -> Json<Value> {
    let first = {
        let mut once = seen.once.lock().unwrap_or_else(PoisonError::into_inner);
        once.insert(word.clone())
    };
    if !first {
        let error = format!("{word} was called twice, although its tool must not be");
        let twice = Wrong { status: None, error };
        seen.ledger.note(ONCE, Duration::ZERO, Err::<(), _>(twice));
    }
    Json(json!({ "word": word }))
}
