//! What all deeds of a soak share.

use crate::endpoint::Endpoint;
use anyhow::{Context, bail};
use e2e::{
    Era, Json, PATIENCE, Stack,
    mcp::{self, Client},
    raw::Raw,
    rest::Rest,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often what must come about is asked for.
const POLL: Duration = Duration::from_millis(250);
/// How many messages of a kind of deed are kept.
const MESSAGES: usize = 3;

/// What was done, how often it failed, and the first reasons.
#[derive(Default)]
pub(super) struct Tally(Mutex<BTreeMap<&'static str, Count>>);

#[derive(Default)]
struct Count {
    done: u64,
    failed: u64,
    messages: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Notes how a deed ended.
    pub(super) fn note(&self, deed: &'static str, result: anyhow::Result<()>) {
        let mut counts = lock(&self.0);
        let count = counts.entry(deed).or_default();
        count.done += 1;
        if let Err(error) = result {
            count.failed += 1;
            if count.messages.len() < MESSAGES {
                eprintln!("{deed}: {error:#}");
                count.messages.push(format!("{error:#}"));
            }
        }
    }

    /// How many deeds failed.
    pub(super) fn failed(&self) -> u64 {
        lock(&self.0).values().map(|count| count.failed).sum()
    }

    /// All counts, and why what failed did.
    pub(super) fn table(&self) -> String {
        let mut out = format!("{:36}{:>8}{:>8}\n", "deed", "done", "failed");
        for (deed, count) in lock(&self.0).iter() {
            let _ = writeln!(out, "{deed:36}{:>8}{:>8}", count.done, count.failed);
            for message in &count.messages {
                let _ = writeln!(out, "    {message}");
            }
        }
        out
    }
}

/// The services' callers, and what the deeds have made.
pub(super) struct World {
    /// May do everything.
    pub(super) rest: Rest,
    /// May run tools, destructive ones only when they are approved.
    pub(super) agent: Rest,
    /// MCP by hand, with the key that may do everything.
    pub(super) raw: Raw,
    /// How the deeds ended.
    pub(super) tally: Tally,
    url: String,
    key: String,
    /// Connected all the time.
    clients: [(Era, Client); 2],
    /// Contexts that nobody uses at the moment.
    contexts: Mutex<VecDeque<String>>,
}

impl World {
    /// Registers the tools and connects.
    pub(super) async fn new(stack: &Stack, endpoint: &Endpoint) -> anyhow::Result<Self> {
        let key = stack.tenant("soak", "all").await?;
        let rest = stack.rest(&key);
        for tool in tools(endpoint) {
            rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        }
        let schedule = json!({"name": "minutely", "tool": "works", "arguments": {}, "cron": "* * * * *"});
        rest.post("/api/v1/schedules", &schedule).await?.expect(201)?;
        let ask = json!({"name": "agent", "scopes": ["tools:read", "tools:execute"]});
        let agent = rest.post("/api/v1/keys", &ask).await?.expect(201)?;
        let agent = rest.with_key(Some(agent["secret"].as_str().context("no secret")?));
        let clients = [
            (Era::Modern, stack.mcp(&key, Era::Modern).await?),
            (Era::Legacy, stack.mcp(&key, Era::Legacy).await?),
        ];
        for (_, client) in &clients {
            client.wait_for_tool("drop").await?;
        }
        Ok(Self {
            rest,
            agent,
            raw: stack.raw(&key),
            tally: Tally::default(),
            url: stack.mcp_url(),
            key,
            clients,
            contexts: Mutex::default(),
        })
    }

    /// The client that stays connected.
    pub(super) fn client(&self, era: Era) -> &Client {
        let [first, second] = &self.clients;
        if first.0 == era { &first.1 } else { &second.1 }
    }

    /// Another client, for as long as it is wanted.
    pub(super) async fn connect(&self, era: Era) -> anyhow::Result<Client> {
        Ok(mcp::connect(&self.url, &self.key, era).await?)
    }

    /// A context for one deed alone, made where there is none; to be given back or deleted.
    pub(super) async fn context(&self) -> anyhow::Result<String> {
        let idle = lock(&self.contexts).pop_front();
        match idle {
            Some(id) => Ok(id),
            None => self.create().await,
        }
    }

    /// Makes a context.
    pub(super) async fn create(&self) -> anyhow::Result<String> {
        let items = json!([{"role": "user", "content": "error rate of checkout rises ".repeat(20)}]);
        let body = json!({"name": "soak", "type": "incident", "expires_in": "1h", "items": items});
        let made = self.rest.post("/api/v1/contexts", &body).await?.expect(201)?;
        Ok(made["id"].as_str().context("no id")?.to_owned())
    }

    /// Gives a context back; how many there are now.
    pub(super) fn put_back(&self, id: String) -> usize {
        let mut contexts = lock(&self.contexts);
        contexts.push_back(id);
        contexts.len()
    }

    /// Asks until an execution has ended so.
    pub(super) async fn ended(&self, id: &str, status: &str) -> anyhow::Result<Json> {
        let begin = Instant::now();
        loop {
            let path = format!("/api/v1/executions/{id}");
            let execution = self.rest.get(&path).await?.expect(200)?;
            if execution["status"] == status && execution["finished_at"].is_string() {
                return Ok(execution);
            }
            if execution["finished_at"].is_string() || begin.elapsed() > PATIENCE {
                bail!("not {status}: {execution}");
            }
            sleep(POLL).await;
        }
    }

    /// Asks `probe` until it gives something.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        mut probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let begin = Instant::now();
        loop {
            if let Some(found) = probe().await? {
                return Ok(found);
            }
            if begin.elapsed() > PATIENCE {
                bail!("in vain: {what}");
            }
            sleep(POLL).await;
        }
    }

    /// Ends what stays connected.
    pub(super) async fn close(&self) {
        let contexts: Vec<String> = lock(&self.contexts).drain(..).collect();
        for id in contexts {
            // The stack ends anyway.
            let _ = self.rest.delete(&format!("/api/v1/contexts/{id}")).await;
        }
    }
}

/// Tools that work, take their time, work at the second attempt, fail, and need somebody's agreement.
fn tools(endpoint: &Endpoint) -> [Json; 5] {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    [
        json!({"name": "works", "description": "d", "method": "GET", "url": endpoint.url("/work"), "input_schema": schema}),
        json!({"name": "slow", "description": "d", "method": "GET", "url": endpoint.url("/slow/{ms}")}),
        json!({
            "name": "flaky", "description": "d", "method": "POST", "url": endpoint.url("/flaky"), "idempotent": true,
            "retry": {"max_attempts": 5, "initial_backoff_ms": 50, "max_backoff_ms": 200},
        }),
        json!({"name": "broken", "description": "d", "method": "GET", "url": endpoint.url("/broken")}),
        json!({"name": "drop", "description": "d", "method": "POST", "url": endpoint.url("/drop"), "destructive": true}),
    ]
}
