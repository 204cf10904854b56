//! An MCP server of the newer era that misbehaves on demand; and one of the older era, made of a newer one.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use e2e::Json;
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::{net::TcpListener, task::JoinHandle};

/// The server; stops when dropped.
pub(super) struct Fake {
    port: u16,
    state: Arc<Mutex<Shown>>,
    server: JoinHandle<()>,
}

struct Shown {
    tools: Json,
    broken: bool,
    authorization: String,
}

type Shared = Arc<Mutex<Shown>>;

fn lock(state: &Shared) -> MutexGuard<'_, Shown> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listed() -> Json {
    let schema = json!({"type": "object"});
    json!([
        {"name": "say", "description": "says it", "inputSchema": schema},
        {"name": "say", "inputSchema": schema},
        {"name": "taken", "inputSchema": schema},
        {"name": "a/b", "inputSchema": schema},
        {"name": "elsewhere", "inputSchema": {"type": "object", "properties": {"x": {"$ref": "http://169.254.169.254/"}}}},
        {"name": "fail", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
        {"name": "huge", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
        {"name": "astray", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
        {"name": "slow", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
    ])
}

impl Fake {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(Shown {
            tools: listed(),
            broken: false,
            authorization: String::new(),
        }));
        let routes = Router::new()
            .route("/mcp", post(answer))
            .with_state(state.clone());
        Self::serve(routes, state).await
    }

    /// One of the older era in front of the server at `url`: it does not know what the newer one begins with.
    pub(super) async fn before(url: String) -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(Shown {
            tools: Json::Null,
            broken: false,
            authorization: String::new(),
        }));
        let routes = Router::new().route("/mcp", post(pass_on)).with_state(url);
        Self::serve(routes, state).await
    }

    async fn serve(routes: Router, state: Shared) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the fake server ended: {error}");
            }
        });
        Ok(Self { port, state, server })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Lists these tools from now on.
    pub(super) fn relist(&self, tools: Json) {
        lock(&self.state).tools = tools;
    }

    /// Answers 500 to everything, or does so no more.
    pub(super) fn break_down(&self, broken: bool) {
        lock(&self.state).broken = broken;
    }

    /// What it was shown last; empty: nothing.
    pub(super) fn last_authorization(&self) -> String {
        lock(&self.state).authorization.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(state): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let message: Json = serde_json::from_str(&body).unwrap_or_default();
    let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
    let tools = {
        let mut state = lock(&state);
        shown.unwrap_or_default().clone_into(&mut state.authorization);
        if state.broken {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        state.tools.clone()
    };
    let result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
        "tools/list" => json!({"tools": tools}),
        "tools/call" => return call(&message).await,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    axum::Json(reply(&message, &result)).into_response()
}

fn reply(message: &Json, result: &Json) -> Json {
    json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
}

async fn call(message: &Json) -> Response {
    let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
    let result = match message["params"]["name"].as_str().unwrap_or_default() {
        "say" => {
            let progress =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}});
            let said = reply(message, &text("said over events"));
            let events = format!(": hello\n\ndata: {progress}\n\nevent: message\ndata: {said}\n\n");
            return ([("content-type", "text/event-stream")], events).into_response();
        }
        "fail" => json!({"isError": true, "content": [{"type": "text", "text": "no such thing"}]}),
        "huge" => text(&"x".repeat(2 << 20)),
        "astray" => {
            let to = [("location", "http://169.254.169.254/latest/meta-data/")];
            return (StatusCode::TEMPORARY_REDIRECT, to).into_response();
        }
        "slow" => std::future::pending().await,
        _ => text("here"),
    };
    axum::Json(reply(message, &result)).into_response()
}

/// Passes on what a client of the older era says, and refuses the rest as such a server does.
async fn pass_on(State(url): State<String>, headers: HeaderMap, body: String) -> Response {
    let message: Json = serde_json::from_str(&body).unwrap_or_default();
    if message["method"] == "server/discover" {
        return (StatusCode::BAD_REQUEST, "Bad Request: no session").into_response();
    }
    let mut request = e2e::http_client().post(url).body(body);
    for (name, value) in &headers {
        if !["host", "content-length"].contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let Ok(answer) = request.send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let status = answer.status();
    let kept = ["content-type", "mcp-session-id"].map(|name| (name, answer.headers().get(name).cloned()));
    let mut passed = (status, answer.text().await.unwrap_or_default()).into_response();
    for (name, value) in kept {
        passed.headers_mut().remove(name);
        passed
            .headers_mut()
            .extend(value.map(|value| (http::HeaderName::from_static(name), value)));
    }
    passed
}
