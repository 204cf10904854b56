//! What the tools of the load measurement and of the soak call: a bare axum server. With an upstream it serves MCP
//! besides: a bare rmcp server whose every tool calls the upstream with reqwest, as an MCP server made for that one tool
//! would. Same runtime, allocator and MCP settings as the services; no key, no limits, no telemetry, no database.

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
    serve::{ListenerExt, serve},
};
use clap::Parser;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{CallToolRequestParams, CallToolResponse, CallToolResult, ServerCapabilities, ServerConfig},
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::net::TcpListener;

chassis::allocator!();

/// Answers at once, or as the path says.
#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long, env = "ENDPOINT_ADDRESS")]
    address: SocketAddr,
    /// What every tools/call asks
    #[arg(long, env = "ENDPOINT_UPSTREAM")]
    upstream: Option<String>,
    /// Written once it listens
    #[arg(long, env = "DEVOPS_MCP__READY_FILE")]
    ready_file: PathBuf,
}

/// What has arrived, as far as anybody asks.
#[derive(Default)]
struct Arrivals {
    /// How many requests for work.
    count: u64,
    /// How long they took to get here, microseconds, where they say when they were sent.
    delays: Vec<u64>,
    /// The idempotency keys that were answered with 503 and have not come again.
    refused: HashSet<String>,
}

type Shared = Arc<Mutex<Arrivals>>;

fn with<T>(shared: &Shared, change: impl FnOnce(&mut Arrivals) -> T) -> T {
    change(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Answers at once. `sent` is when the call was asked for, in microseconds since 1970.
async fn work(State(shared): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sent = query.get("sent").and_then(|sent| sent.parse::<u64>().ok());
    with(&shared, |arrivals| {
        arrivals.count += 1;
        let delay = sent.and_then(|sent| u64::try_from(now.as_micros()).ok()?.checked_sub(sent));
        arrivals.delays.extend(delay);
    });
    Json(json!({ "done": true }))
}

/// What has arrived so far. The delays are forgotten.
async fn arrived(State(shared): State<Shared>) -> Json<Value> {
    with(&shared, |arrivals| {
        let delays = std::mem::take(&mut arrivals.delays);
        Json(json!({ "count": arrivals.count, "delays_us": delays }))
    })
}

async fn slow(Path(ms): Path<u64>) -> Json<Value> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Json(json!({ "done": true }))
}

/// 503 for the first request with an idempotency key, 200 for the second.
async fn flaky(State(shared): State<Shared>, headers: HeaderMap) -> StatusCode {
    let key = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    with(&shared, |arrivals| {
        if arrivals.refused.remove(&key) {
            StatusCode::OK
        } else {
            arrivals.refused.insert(key);
            StatusCode::SERVICE_UNAVAILABLE
        }
    })
}

/// An MCP server whose tools all do the same.
struct Bare {
    client: reqwest::Client,
    upstream: String,
}

impl Bare {
    async fn ask(&self) -> reqwest::Result<Value> {
        let answer = self.client.get(&self.upstream).send().await?;
        let status = answer.status().as_u16();
        Ok(json!({ "status": status, "body": answer.json::<Value>().await? }))
    }
}

impl ServerHandler for Bare {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        _call: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answer = self.ask().await;
        let answer = answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(CallToolResult::structured(answer).into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let shared = Shared::default();
    let mut routes = Router::new()
        .route("/work", get(work))
        .route("/arrived", get(arrived))
        .route("/slow/{ms}", get(slow))
        .route("/flaky", post(flaky))
        .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/drop", post(async || Json(json!({ "dropped": true }))))
        .with_state(shared);
    if let Some(upstream) = args.upstream {
        let _ = rustls::crypto::ring::default_provider().install_default(); // by somebody else already: as good
        let client = reqwest::Client::builder().build().context("the HTTP client")?;
        let handler = Arc::new(Bare { client, upstream });
        let config = StreamableHttpServerConfig::default()
            .with_allowed_hosts(["localhost", "127.0.0.1", "::1"])
            .enforce_origin_validation()
            .with_json_response(true);
        let sessions = Arc::new(LocalSessionManager::default());
        let mcp = StreamableHttpService::new(move || Ok(handler.clone()), sessions, config);
        routes = routes.route_service("/mcp", mcp);
    }
    let listener = TcpListener::bind(args.address).await?.tap_io(|stream| {
        // As the services do; without it the measurement still holds.
        let _ = stream.set_nodelay(true);
    });
    fs::write(&args.ready_file, "{}")?;
    serve(listener, routes).await?;
    Ok(())
}
