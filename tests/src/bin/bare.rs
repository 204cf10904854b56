//! What the load measurement compares with: a bare axum, a bare rmcp and a bare gRPC server that give the services'
//! answers from memory. Same runtime, allocator and MCP settings as the services; no key, no limits, no telemetry, no
//! database. With an upstream, tools/call asks it as mcp-server asks rest-api, and then answers from memory all the same.

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE},
    routing::{get, post},
    serve::{ListenerExt, serve},
};
use clap::Parser;
use http_body_util::{BodyExt, Full};
use proto::v1::{ListItemsRequest, contexts_client::ContextsClient};
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
use tonic::{
    service::Routes,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

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
    /// Where to serve gRPC; `Contexts.ListItems` alone
    #[arg(long, env = "BARE_GRPC")]
    grpc: SocketAddr,
    /// The file that holds the message that gRPC answers
    #[arg(long, env = "BARE_ITEMS")]
    items: PathBuf,
    /// The gRPC server to ask before a tools/call is answered
    #[arg(long, env = "BARE_UPSTREAM")]
    upstream: Option<String>,
    /// Written once it listens
    #[arg(long, env = "DEVOPS_MCP__READY_FILE")]
    ready_file: PathBuf,
}

/// An MCP server with one answer.
struct Bare {
    result: CallToolResult,
    upstream: Option<ContextsClient<Channel>>,
}

impl ServerHandler for Bare {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(mut upstream) = self.upstream.clone() {
            let id = call.arguments.unwrap_or_default()["id"].to_string();
            let request = ListItemsRequest {
                id,
                with_context: true,
                ..Default::default()
            };
            let answer = upstream.list_items(request).await;
            answer.map_err(|status| ErrorData::internal_error(status.to_string(), None))?;
        }
        Ok(self.result.clone().into())
    }
}

/// One message for every call, framed as gRPC frames it.
fn grpc(message: &[u8]) -> anyhow::Result<Routes> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len())?.to_be_bytes());
    framed.extend(message);
    let framed: &'static [u8] = framed.leak();
    let answer = async move |_: axum::body::Bytes| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::from(framed).with_trailers(async { Some(Ok(trailers)) });
        let mut response = Response::new(Body::new(body));
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    };
    let router = Router::new().route("/devops_mcp.v1.Contexts/ListItems", post(answer));
    Ok(Routes::from(router))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let context: &'static [u8] = fs::read(&args.context)?.leak();
    let upstream = args.upstream.map(Endpoint::from_shared).transpose()?;
    let handler = Arc::new(Bare {
        result: serde_json::from_slice(&fs::read(&args.result)?)?,
        upstream: upstream.map(|endpoint| ContextsClient::new(endpoint.tcp_nodelay(true).connect_lazy())),
    });
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
    let connections = TcpIncoming::from(TcpListener::bind(args.grpc).await?).with_nodelay(Some(true));
    let rpc = grpc(&fs::read(&args.items)?)?;
    tokio::spawn(Server::builder().add_routes(rpc).serve_with_incoming(connections));
    fs::write(&args.ready_file, "{}")?;
    serve(listener, routes).await?;
    Ok(())
}
