//! What the load measurement compares with: a bare axum and a bare rmcp server that give the services' answers from
//! memory. Same runtime, allocator and MCP settings as the services; no key, no limits, no telemetry, no database.

use axum::{
    Router,
    extract::Path,
    http::header::CONTENT_TYPE,
    routing::get,
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
use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::net::TcpListener;

chassis::allocator!();

/// Gives one answer to every GET of a context and one to every tools/call.
#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long, env = "BARE_ADDRESS")]
    address: SocketAddr,
    /// The file that holds the answer to `GET /api/v1/contexts/{id}`
    #[arg(long, env = "BARE_CONTEXT")]
    context: PathBuf,
    /// The file that holds the result of every tools/call
    #[arg(long, env = "BARE_RESULT")]
    result: PathBuf,
    /// Written once it listens
    #[arg(long, env = "DEVOPS_MCP__READY_FILE")]
    ready_file: PathBuf,
}

/// An MCP server with one answer.
struct Bare(CallToolResult);

impl ServerHandler for Bare {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        _request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        Ok(self.0.clone().into())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let context: &'static [u8] = fs::read(&args.context)?.leak();
    let handler = Arc::new(Bare(serde_json::from_slice(&fs::read(&args.result)?)?));
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(["localhost", "127.0.0.1", "::1"])
        .enforce_origin_validation()
        .with_json_response(true);
    let sessions = Arc::new(LocalSessionManager::default());
    let mcp = StreamableHttpService::new(move || Ok(handler.clone()), sessions, config);
    let answer = async move |_: Path<String>| ([(CONTENT_TYPE, "application/json")], context);
    let routes = Router::new()
        .route("/api/v1/contexts/{id}", get(answer))
        .route_service("/mcp", mcp);
    let listener = TcpListener::bind(args.address).await?.tap_io(|stream| {
        // As the services do; without it the measurement still holds.
        let _ = stream.set_nodelay(true);
    });
    fs::write(&args.ready_file, "{}")?;
    serve(listener, routes).await?;
    Ok(())
}
