//! MCP over plain HTTP.

use super::{
    Doctor,
    ask::{Answer, Ask},
    places::Part,
    report::{Problem, Report},
    services::dead,
};
use serde_json::{Value, json};

const MCP_VERSION: &str = "2026-07-28";

/// Whether MCP answers, and lists tools.
pub(super) fn check(doctor: &Doctor<'_>, report: &mut Report) -> bool {
    let Some(key) = &doctor.places.api_key else {
        report.skip("MCP", "no API key (API_KEY)");
        return false;
    };
    let url = &doctor.places.of(Part::McpServer).url;
    let mut tools = 0;
    for method in ["server/discover", "tools/list"] {
        let (ask, body) = rpc(url, key, method, json!({}));
        let answer = match doctor.client.post(&ask, &body) {
            Ok(answer) => answer,
            Err(failed) => {
                report.fail("MCP", dead("mcp-server", &failed));
                return false;
            }
        };
        match response(&answer.body) {
            Some(message) if message["result"].is_object() => {
                tools = message["result"]["tools"].as_array().map_or(tools, Vec::len);
            }
            _ => {
                let means = format!("MCP refuses {method}");
                report.fail(
                    "MCP",
                    Problem::new(&answer.asked, &answer.told(), &means, refused(&answer)),
                );
                return false;
            }
        }
    }
    report.ok(
        "MCP",
        format!("server/discover and tools/list answer, {tools} tools on the first page"),
    );
    true
}

fn refused(answer: &Answer) -> &'static str {
    match answer.status {
        401 => "the key is refused, see \"API key\"",
        403 if answer.body.contains("forbidden_host") => {
            "clients reach mcp-server by a name that it does not serve: add it to DEVOPS_MCP__ALLOWED_HOSTS"
        }
        503 => "rest-api is away, as seen from mcp-server; docs/runbooks/DependencyDown.md",
        _ => "docs/OPERATIONS.md, \"When something is refused\", names the codes",
    }
}

/// A JSON-RPC request to mcp-server; headers say again what the body says, as the protocol wants it.
pub(super) fn rpc<'a>(url: &str, key: &'a str, method: &str, mut params: Value) -> (Ask<'a>, Value) {
    let meta = |name: &str| format!("io.modelcontextprotocol/{name}");
    params["_meta"] = json!({
        meta("protocolVersion"): MCP_VERSION,
        meta("clientCapabilities"): {},
        meta("clientInfo"): { "name": "doctor", "version": env!("CARGO_PKG_VERSION") },
    });
    let mut ask = Ask::of(url, "/mcp")
        .bearer(key)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", MCP_VERSION)
        .header("mcp-method", method);
    if let Some(name) = params["name"].as_str() {
        ask = ask.header("mcp-name", name);
    }
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    (ask, body)
}

/// The JSON-RPC response in an answer, be it JSON or a stream of events.
fn response(body: &str) -> Option<Value> {
    let is_response = |message: &Value| message.get("result").is_some() || message.get("error").is_some();
    let whole = serde_json::from_str(body).ok().filter(is_response);
    let events = body.lines().filter_map(|line| line.strip_prefix("data:"));
    let mut events = events.filter_map(|data| serde_json::from_str(data.trim()).ok());
    whole.or_else(|| events.find(is_response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_found_in_json_and_in_events() {
        let response = |body: &str| super::response(body).map(|message| message["result"]["a"].clone());
        assert_eq!(response(r#"{"result":{"a":1}}"#), Some(json!(1)));
        let events = "event: message\ndata: {\"method\":\"x\"}\n\ndata: {\"result\":{\"a\":2}}\n";
        assert_eq!(response(events), Some(json!(2)));
        assert_eq!(response("Forbidden"), None);
    }
}
