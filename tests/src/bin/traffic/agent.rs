//! An agent over MCP.
#![expect(
    deprecated,
    reason = "clients of older versions subscribe one by one and set logging levels"
)]

use crate::Work;
use anyhow::Context;
use e2e::{
    Era,
    mcp::{self, Client},
    raw::{META, Raw, response},
};
use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, LoggingLevel, ReadResourceRequestParams, Reference,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How long a task may take that is followed.
const TASK: Duration = Duration::from_secs(20);

impl Work {
    /// Works until the time is over.
    pub(crate) async fn agent(self: Arc<Self>, era: Era) {
        let connected = mcp::connect(&self.args.mcp_url, &self.args.api_key, era).await;
        let connected = connected.map_err(anyhow::Error::from);
        let Some(client) = self.tally.note("MCP connect", connected) else {
            return;
        };
        let subscribed = self.subscribe(&client, era).await;
        let news = self.tally.note("MCP subscribe", subscribed).flatten();
        let mut context = None;
        while self.pause().await {
            let (what, tool, arguments) = match self.next() % 9 {
                0 => {
                    let items =
                        json!([{"role": "assistant", "content": "the error began with release 4711"}]);
                    let ask = json!({"name": "Agent's notes", "type": "conversation", "items": items, "expires_in_seconds": 3600});
                    let made = client.structured("context_create", &ask).await;
                    let made = self.tally.note("MCP context_create", made);
                    context = made.and_then(|made| made["context"]["id"].as_str().map(str::to_owned));
                    continue;
                }
                1 => ("MCP context_search", "context_search", json!({"query": "error"})),
                2 => ("MCP context_list", "context_list", json!({})),
                3 => ("MCP registered tool", "traffic-works", json!({})),
                4 => {
                    // That it fails is what was asked for.
                    let failed = client.call("traffic-fails", &json!({})).await;
                    self.tally.note("MCP failing tool", failed.map_err(Into::into));
                    continue;
                }
                5 => {
                    let read = self.read_resources(&client, context.as_deref()).await;
                    self.tally.note("MCP resources", read);
                    continue;
                }
                6 => {
                    self.tally.note("MCP completion", complete(&client).await);
                    continue;
                }
                7 if era == Era::Modern => {
                    self.tally.note("MCP task", self.task().await);
                    continue;
                }
                7 => {
                    let level = SetLevelRequestParams::new(LoggingLevel::Warning);
                    let set = client.set_level(level).await;
                    self.tally.note("MCP logging level", set.map_err(Into::into));
                    continue;
                }
                _ => {
                    let listed = client.list_all_tools().await;
                    self.tally.note("MCP tools/list", listed.map_err(Into::into));
                    continue;
                }
            };
            self.tally.note(what, client.structured(tool, &arguments).await);
        }
        drop(news);
        client.close().await;
    }

    /// Asks to be told of a context's changes, for as long as the agent works: in the newer era over a stream, which
    /// ends when it is dropped.
    async fn subscribe(&self, client: &Client, era: Era) -> anyhow::Result<Option<impl Sized + use<>>> {
        let ask = json!({"name": "Watched", "type": "manual", "expires_in_seconds": 86_400});
        let made = client.structured("context_create", &ask).await?;
        let id = made["context"]["id"].as_str().context("no id")?;
        let uri = format!("context://{id}");
        Ok(if era == Era::Legacy {
            client.subscribe(SubscribeRequestParams::new(&uri)).await?;
            None
        } else {
            let filter = SubscriptionFilter::builder().resource_subscription(&uri).build();
            Some(client.listen(filter).await?)
        })
    }

    async fn read_resources(&self, client: &Client, context: Option<&str>) -> anyhow::Result<()> {
        client.list_all_resources().await?;
        client.list_all_resource_templates().await?;
        if let Some(id) = context {
            let uri = format!("context://{id}");
            client.read_resource(ReadResourceRequestParams::new(uri)).await?;
        }
        Ok(())
    }

    /// Calls a tool that takes longer than a client waits, and follows it as a task.
    async fn task(&self) -> anyhow::Result<()> {
        let raw = Raw::new(&self.args.mcp_url, Some(&self.args.api_key));
        let ask = async |method: &str, mut params: e2e::Json| {
            let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
            params["_meta"] = json!({format!("{META}clientCapabilities"): tasks});
            let answer = response(&raw.call(method, params).await?)?;
            anyhow::ensure!(answer["error"].is_null(), "{method}: {answer}");
            anyhow::Ok(answer["result"].clone())
        };
        let begun = ask("tools/call", json!({"name": "traffic-slow", "arguments": {}})).await?;
        let Some(task) = begun["taskId"].as_str().map(str::to_owned) else {
            // It was over before it became one.
            return Ok(());
        };
        timeout(TASK, async {
            while ask("tasks/get", json!({"taskId": task})).await?["status"] == "working" {
                sleep(Duration::from_millis(500)).await;
            }
            anyhow::Ok(())
        })
        .await
        .context("the task does not end")?
    }

    /// A client of mcp-server without a key, and one with a wrong one.
    pub(crate) async fn intruder(&self) -> anyhow::Result<()> {
        for key in [None, Some("dmcp_wrong")] {
            let raw = Raw::new(&self.args.mcp_url, key);
            raw.call("tools/list", json!({})).await?.expect(401)?;
        }
        Ok(())
    }
}

async fn complete(client: &Client) -> anyhow::Result<()> {
    let ask = CompleteRequestParams::new(
        Reference::for_resource("execution://{id}"),
        ArgumentInfo::new("id", "traffic"),
    );
    client.complete(ask).await?;
    Ok(())
}
