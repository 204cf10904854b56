//! Another MCP server, of the newer era: one tool answers, one says that it failed.

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

/// Its place below the endpoint.
pub(crate) const PATH: &str = "/mcp";

pub(crate) fn routes() -> Router {
    Router::new().route(PATH, post(answer))
}

async fn answer(Json(asked): Json<Value>) -> Response {
    let result = match asked["method"].as_str() {
        Some("server/discover") => {
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
        }
        Some("tools/list") => json!({"tools": [tool("says"), tool("fails")]}),
        Some("tools/call") => called(asked["params"]["name"] == "fails"),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    Json(json!({"jsonrpc": "2.0", "id": asked["id"], "result": result})).into_response()
}

fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}})
}

fn called(fails: bool) -> Value {
    json!({"isError": fails, "content": [{"type": "text", "text": "said"}]})
}
