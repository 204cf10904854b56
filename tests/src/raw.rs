//! JSON-RPC by hand, where the protocol's own errors are asserted.

use crate::{Era, Json, rest::Answer};
use anyhow::Context;
use serde_json::json;

/// Where the protocol puts its own fields in `_meta`.
pub const META: &str = "io.modelcontextprotocol/";

/// A client that sends what it is told, right or wrong.
#[derive(Clone)]
pub struct Raw {
    client: reqwest::Client,
    url: String,
    key: Option<String>,
}

impl Raw {
    /// A client of `url` (`…/mcp`).
    pub fn new(url: &str, key: Option<&str>) -> Self {
        Self {
            client: crate::http_client(),
            url: url.to_owned(),
            key: key.map(str::to_owned),
        }
    }

    /// A POST with the headers that every client sends.
    pub fn post(&self) -> reqwest::RequestBuilder {
        let accept = "application/json, text/event-stream";
        self.authorized(self.client.post(&self.url))
            .header("accept", accept)
            .header("content-type", "application/json")
    }

    /// A DELETE: what ends a session.
    pub fn delete(&self) -> reqwest::RequestBuilder {
        self.authorized(self.client.delete(&self.url))
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// A well-formed request of the modern era, yet to be sent.
    pub fn modern(&self, method: &str, mut params: Json) -> reqwest::RequestBuilder {
        let version = Era::Modern.version();
        params["_meta"][format!("{META}protocolVersion")] = json!(version);
        let capabilities = &mut params["_meta"][format!("{META}clientCapabilities")];
        if capabilities.is_null() {
            *capabilities = json!({});
        }
        params["_meta"][format!("{META}clientInfo")] = json!({ "name": "e2e", "version": "0" });
        let mut request = self
            .post()
            .header("mcp-protocol-version", version)
            .header("mcp-method", method);
        let names = ["name", "uri", "taskId"];
        if let Some(name) = names.iter().find_map(|name| params[*name].as_str()) {
            request = request.header("mcp-name", name);
        }
        request.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
    }

    /// Sends a well-formed request of the modern era.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, method: &str, params: Json) -> anyhow::Result<Answer> {
        Answer::read(self.modern(method, params).send().await?).await
    }
}

/// The JSON-RPC response in an answer, be it JSON or a stream of events.
///
/// # Errors
/// When there is none.
pub fn response(answer: &Answer) -> anyhow::Result<Json> {
    let is_response = |message: &Json| message.get("result").is_some() || message.get("error").is_some();
    let direct = answer.json();
    if is_response(&direct) {
        return Ok(direct);
    }
    let events = answer.text.lines().filter_map(|line| line.strip_prefix("data:"));
    events
        .filter_map(|data| serde_json::from_str::<Json>(data.trim()).ok())
        .find(is_response)
        .with_context(|| format!("no JSON-RPC response in {} {}", answer.status, answer.text))
}
