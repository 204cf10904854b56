//! Somebody at the REST API.

use crate::Work;
use anyhow::Context;
use e2e::Json;
use http::Method;
use serde_json::json;
use std::sync::Arc;

/// How many contexts one keeps before deleting the oldest.
const KEPT: usize = 20;

impl Work {
    /// Works until the time is over.
    pub(crate) async fn engineer(self: Arc<Self>) {
        let mut contexts: Vec<String> = Vec::new();
        while self.pause().await {
            let known = contexts.last().cloned().unwrap_or_default();
            match self.next() % 10 {
                0 => {
                    let made = self.tally.note("REST context create", self.create().await);
                    contexts.extend(made);
                }
                1 if !known.is_empty() => self.append(&known).await,
                2 => {
                    self.read("REST search", "/api/v1/contexts/search?q=error", 200)
                        .await
                }
                3 => self.read("REST list", "/api/v1/contexts?limit=20", 200).await,
                4 => {
                    self.execute(["traffic-works", "traffic-fails", "traffic-times-out"])
                        .await
                }
                5 => self.read("REST not found", "/api/v1/tools/nobody", 404).await,
                6 => self.stranger().await,
                7 if !known.is_empty() => {
                    let path = format!("/api/v1/contexts/{known}");
                    self.read("REST context read", &path, 200).await;
                }
                8 => self.read("REST tools", "/api/v1/tools", 200).await,
                _ if contexts.len() > KEPT => {
                    let path = format!("/api/v1/contexts/{}", contexts.remove(0));
                    self.expect("REST context delete", Method::DELETE, &path, None, 204)
                        .await;
                }
                _ => self.read("REST executions", "/api/v1/executions", 200).await,
            }
        }
    }

    async fn create(&self) -> anyhow::Result<String> {
        let kind = ["manual", "incident", "conversation", "tool_result"][(self.next() % 4) as usize];
        // From some bytes to some hundred kilobytes, small ones more often.
        let times = 1_usize << (self.next() % 14);
        let body = json!({"name": "Traffic", "type": kind, "expires_in": "1h",
            "items": [{"role": "user", "content": "error rate of checkout rises ".repeat(times)}]});
        let made = self.rest.post("/api/v1/contexts", &body).await?.expect(201)?;
        made["id"].as_str().map(str::to_owned).context("no id")
    }

    async fn append(&self, context: &str) {
        let items = json!({"items": [{"role": "user", "content": "error rate is back to normal"}]});
        let path = format!("/api/v1/contexts/{context}/items");
        self.expect("REST items append", Method::POST, &path, Some(&items), 201)
            .await;
    }

    pub(crate) async fn read(&self, what: &'static str, path: &str, status: u16) {
        self.expect(what, Method::GET, path, None, status).await;
    }

    pub(crate) async fn expect(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Json>,
        status: u16,
    ) {
        let done = async { self.rest.send(method, path, &[], body).await?.expect(status) };
        self.tally.note(what, done.await);
    }

    async fn execute(&self, tools: [&str; 3]) {
        let tool = tools[(self.next() % 3) as usize];
        let path = format!("/api/v1/tools/{tool}/execute");
        let call = json!({"arguments": {}});
        self.expect("REST tool execute", Method::POST, &path, Some(&call), 200)
            .await;
    }

    /// Somebody without a key, or with a wrong one.
    async fn stranger(&self) {
        let key = self.next().is_multiple_of(2).then_some("dmcp_wrong");
        let refused = async { self.rest.with_key(key).get("/api/v1/contexts").await?.expect(401) };
        self.tally.note("REST refused", refused.await);
    }
}
