//! An agent is paged and finds the cause, by MCP and nothing else.
//!
//! One of many registered tools becomes slow. The alert comes by Alertmanager's webhook and opens an incident, of which an
//! agent that listens is told. From there on a real client, in both eras of the protocol, asks the product's own tools for
//! the service, the route, the tool, a trace and its log lines. The incident ends with the fault, as a postmortem.

use crate::{
    request::Tool,
    stack::{Addresses, Stack},
};
use anyhow::{Context, ensure};
use e2e::{
    Json,
    mcp::{self, Client, Era},
    raw::Raw,
    wait_at_most,
};
use futures_util::future::join_all;
use rmcp::model::{ReadResourceRequestParams, ResourceContents, SubscribeRequestParams};
use serde_json::json;
use std::{fs, path::Path, time::Duration};
use tokio::task::JoinHandle;

/// Longer than McpToolLatency allows a call of a tool.
const SLOW: &str = "/slow/6000";
/// How many call the slow tool at the same time: enough failures for the objective's guard against tiny traffic. The quick
/// one has a caller that rests, so that most of all calls are slow, and the budget burns at the rate that pages.
const CALLERS: usize = 12;
const REST: Duration = Duration::from_secs(2);
/// What the fault must raise.
const ALERT: &str = "McpToolLatencyBudgetBurn";
/// The objective is judged over an hour, scaled a minute; and a group waits before it is told.
const TOLD: Duration = Duration::from_secs(240);
/// Where incidents are opened, in the containers' words.
const WEBHOOK: &str = "http://rest-api:8080/api/v1/alerts";
const OPEN: &str = "incidents://open";

/// Calls a tool again and again, until it is dropped.
struct Load(Vec<JoinHandle<()>>);

impl Load {
    /// Enough calls that are quick for the budget to burn no more, over the hours of which the warning tells, too.
    fn calm(at: &Addresses, tool: &str) -> Self {
        Self::on(at, tool, CALLERS, Duration::from_millis(100))
    }

    fn on(at: &Addresses, tool: &str, callers: usize, rest: Duration) -> Self {
        let caller = || {
            let (raw, tool) = (Raw::new(&at.mcp_url, Some(&at.api_key)), tool.to_owned());
            tokio::spawn(async move {
                loop {
                    let params = json!({"name": tool, "arguments": {}});
                    // What it is answered shows in the metrics.
                    let _answer = raw.call("tools/call", params).await;
                    tokio::time::sleep(rest).await;
                }
            })
        };
        Self((0..callers).map(|_| caller()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// The whole story; takes away what it made, but for the incident.
///
/// # Errors
/// When a step leads nowhere.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let secrets = stack.at.alertmanager_secrets.as_deref();
    let secrets = secrets.context("--alertmanager-secrets: where Alertmanager reads the key from")?;
    let webhook = key(
        stack,
        "alertmanager",
        &["alerts:receive", "observe:read", "platform:observe"],
    )
    .await?;
    let agent = key(
        stack,
        "agent",
        &[
            "contexts:read",
            "contexts:write",
            "observe:read",
            "platform:observe",
        ],
    )
    .await?;
    let slow = Tool::register_at(stack, SLOW).await?;
    let quick = Tool::register(stack).await?;
    let sink = page(secrets, WEBHOOK, &webhook.secret)?;
    let done = story(stack, &agent.secret, &slow.name, &quick.name).await;
    let removed = join_all([slow.remove(), quick.remove()]).await;
    page(secrets, &sink, "nobody's")?;
    for key in [webhook, agent] {
        stack.rest.delete(&format!("/api/v1/keys/{}", key.id)).await?;
    }
    done?;
    removed.into_iter().collect()
}

struct Key {
    id: String,
    secret: String,
}

async fn key(stack: &Stack, name: &str, scopes: &[&str]) -> anyhow::Result<Key> {
    let body = json!({"name": name, "scopes": scopes, "expires_in": "1h"});
    let key = stack.rest.post("/api/v1/keys", &body).await?.expect(201)?;
    let text = |member: &str| key[member].as_str().map(str::to_owned).context("a key");
    Ok(Key {
        id: text("id")?,
        secret: text("secret")?,
    })
}

/// Tells Alertmanager where incidents are opened and with which key; says where before. In place: the files are mounted,
/// and read anew for each notification.
fn page(secrets: &Path, url: &str, key: &str) -> anyhow::Result<String> {
    let file = secrets.join("incidents_url");
    let before = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    fs::write(secrets.join("incidents_api_key"), key)?;
    fs::write(&file, url)?;
    Ok(before)
}

async fn story(stack: &Stack, key: &str, slow: &str, quick: &str) -> anyhow::Result<()> {
    let listener = mcp::connect(&stack.at.mcp_url, key, Era::Legacy).await?;
    subscribe(&listener).await?;
    if firing(&listener).await?.is_some() {
        // What an earlier run began.
        let _calm = Load::calm(&stack.at, quick);
        wait_at_most(TOLD, "the alert's last incident to be over", async || {
            firing(&listener).await.ok()?.is_none().then_some(())
        })
        .await?;
    }
    let load = (
        Load::on(&stack.at, slow, CALLERS, Duration::ZERO),
        Load::on(&stack.at, quick, 1, REST),
    );
    let incident = paged(&listener).await?;
    println!("   paged    {} ({})", incident["title"], incident["id"]);
    for era in Era::ALL {
        let client = mcp::connect(&stack.at.mcp_url, key, era).await?;
        let found = investigate(&client, &incident, slow).await;
        client.close().await;
        let steps = found.with_context(|| format!("by a client of {}", era.version()))?;
        println!("   found    {} by {} calls of {}", slow, steps, era.version());
    }
    drop(load);
    let calm = Load::calm(&stack.at, quick);
    let ended = ended(&listener, &incident, slow).await;
    drop(calm);
    listener.close().await;
    ended
}

#[expect(deprecated, reason = "clients of older versions subscribe one by one")]
async fn subscribe(client: &Client) -> anyhow::Result<()> {
    Ok(client
        .subscribe(SubscribeRequestParams::new(OPEN))
        .await
        .map(drop)?)
}

/// Waits until the client is told that there is an incident, and reads which.
async fn paged(client: &Client) -> anyhow::Result<Json> {
    wait_at_most(TOLD, "an incident that the agent is told of", async || {
        client.heard.updates().iter().find(|uri| *uri == OPEN)?;
        firing(client).await.ok()?
    })
    .await
}

/// The open incident about the alert.
async fn firing(client: &Client) -> anyhow::Result<Option<Json>> {
    let open = read(client, OPEN).await?;
    let incidents = open["incidents"].as_array().context("no list of incidents")?;
    let about = |incident: &&Json| {
        let alerts = incident["alerts"].as_array();
        alerts.is_some_and(|all| all.contains(&json!(ALERT)))
    };
    Ok(incidents.iter().find(about).cloned())
}

/// A resource's JSON.
async fn read(client: &Client, uri: &str) -> anyhow::Result<Json> {
    serde_json::from_str(&text(client, uri).await?).with_context(|| uri.to_owned())
}

async fn text(client: &Client, uri: &str) -> anyhow::Result<String> {
    let result = client.read_resource(ReadResourceRequestParams::new(uri)).await?;
    match result.contents.into_iter().next() {
        Some(ResourceContents::TextResourceContents { text, .. }) => Ok(text),
        other => anyhow::bail!("{uri} is no text: {other:?}"),
    }
}

/// What an agent does, by calls of tools alone; counts them.
struct Agent<'a> {
    client: &'a Client,
    calls: usize,
}

impl Agent<'_> {
    async fn ask(&mut self, tool: &str, arguments: &Json) -> anyhow::Result<Json> {
        self.calls += 1;
        self.client.structured(tool, arguments).await
    }

    /// The tool whose calls take the most time of all.
    async fn slowest_tool(&mut self) -> anyhow::Result<String> {
        let query = "topk(1, sum by (tool) (rate(mcp_server_operation_duration_seconds_sum{method=\"tools/call\"}[2m])))";
        let answer = self.ask("query_metrics", &json!({"query": query})).await?;
        let tool = answer["series"][0]["labels"]["tool"].as_str();
        Ok(tool.with_context(|| format!("no tool in {answer}"))?.to_owned())
    }

    /// A trace of a slow call of the tool: its id, and as `get_trace` shows it.
    async fn trace(&mut self, tool: &str) -> anyhow::Result<(String, Json)> {
        let wanted = json!({"service": "mcp-server", "min_duration": "5s", "limit": 5});
        let found = self.ask("search_traces", &wanted).await?;
        for trace in found["traces"].as_array().context("no traces")? {
            let id = trace["trace_id"].as_str().context("no trace id")?;
            let whole = self.ask("get_trace", &json!({"trace_id": id})).await?;
            if whole.to_string().contains(&format!("execute_tool {tool}")) {
                return Ok((id.to_owned(), whole));
            }
        }
        anyhow::bail!("no trace of {tool} in {found}")
    }
}

/// From the incident to the cause; how many calls it took.
async fn investigate(client: &Client, incident: &Json, slow: &str) -> anyhow::Result<usize> {
    let mut agent = Agent { client, calls: 0 };
    let alerts = agent.ask("list_alerts", &json!({"name": ALERT})).await?;
    let service = alerts["alerts"][0]["service"].as_str();
    let service = service
        .with_context(|| format!("no service in {alerts}"))?
        .to_owned();
    ensure!(
        service == "mcp-server",
        "the alert is about mcp-server, not {service}"
    );
    let explained = agent.ask("explain_alert", &json!({"alert": ALERT})).await?;
    let summary = explained["summary"].as_str().unwrap_or_default();
    ensure!(
        summary.contains(&service),
        "the summary does not name {service}: {explained}"
    );
    let health = agent.ask("service_health", &json!({"service": service})).await?;
    ensure!(
        health.to_string().contains("McpToolLatency"),
        "nothing of the objective that burns: {health}"
    );
    let tool = agent.slowest_tool().await?;
    ensure!(tool == slow, "the slow tool is {slow}, not {tool}");
    let (trace_id, trace) = agent.trace(&tool).await?;
    ensure!(
        trace.to_string().contains("POST /mcp"),
        "the route is not in the trace: {trace}"
    );
    // The Collector brings lines within seconds.
    let lines = wait_at_most(Duration::from_secs(30), "the lines of the trace", async || {
        let lines = client
            .structured("query_logs", &json!({"trace_id": trace_id}))
            .await
            .ok()?;
        lines.to_string().contains(&tool).then_some(lines)
    })
    .await?;
    agent.calls += 1;
    let line = lines["lines"][0]["line"].as_str().context("a line of a log")?;
    let note = format!("`{tool}` is slow: trace {trace_id}.\n\n```log\n{line}\n```");
    let items = json!([{"role": "assistant", "content": note}]);
    agent
        .ask(
            "context_append",
            &json!({"id": incident["context_id"], "items": items}),
        )
        .await?;
    Ok(agent.calls)
}

/// The fault is over: so is the incident, and it reads as a postmortem that cites what was found.
async fn ended(client: &Client, incident: &Json, slow: &str) -> anyhow::Result<()> {
    let id = incident["id"].as_str().context("an incident has an id")?;
    let uri = format!("incident://{id}");
    wait_at_most(TOLD, "the incident to be resolved", async || {
        let now = read(client, &uri).await.ok()?;
        (now["status"] == "resolved").then_some(())
    })
    .await?;
    let postmortem = text(client, &format!("{uri}/postmortem")).await?;
    for cited in [
        ALERT,
        slow,
        "### Queries",
        "mcp_server_operation_duration_seconds",
        "### Traces",
        "### Lines of logs",
    ] {
        ensure!(
            postmortem.contains(cited),
            "the postmortem does not cite {cited}:\n{postmortem}"
        );
    }
    println!(
        "   resolved, and {} lines of postmortem",
        postmortem.lines().count()
    );
    Ok(())
}
