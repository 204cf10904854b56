//! Drives the running services as a team and its agents would, for a bounded time: `cargo xtask traffic`.
//!
//! Several people and agents work at once, over REST and over MCP in both eras. Most of what they do succeeds; some of
//! it fails as in real life, so that every panel and every alert has something to show.

use anyhow::Context;
use clap::Parser;
use e2e::{Era, Json, Target, mcp, rest::Rest};
use http::Method;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Realistic load on running services.
#[derive(Parser)]
struct Args {
    /// How long, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many people and agents work at once, each way.
    #[arg(long, default_value_t = 2)]
    workers: u64,
    /// How many things each of them does a second, at most.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// rest-api's address.
    #[arg(long, env = "REST_URL", default_value = "http://127.0.0.1:8080")]
    rest_url: String,
    /// mcp-server's address.
    #[arg(long, env = "MCP_URL", default_value = "http://127.0.0.1:8090/mcp")]
    mcp_url: String,
    /// A key with all scopes.
    #[arg(long, env = "API_KEY", hide_env_values = true)]
    api_key: String,
}

/// What was done, and how often it failed when it should not have.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<&'static str, (u64, u64)>>);

impl Tally {
    fn note<T>(&self, what: &'static str, result: anyhow::Result<T>) -> Option<T> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, failed) = counts.entry(what).or_default();
        *done += 1;
        result
            .inspect_err(|error| {
                *failed += 1;
                if *failed <= 3 {
                    eprintln!("{what}: {error:#}");
                }
            })
            .ok()
    }

    fn print(&self) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{:<32} {:>8} {:>8}", "what", "done", "failed");
        for (what, (done, failed)) in counts.iter() {
            println!("{what:<32} {done:>8} {failed:>8}");
        }
    }
}

/// What all of them share.
struct Work {
    args: Args,
    rest: Rest,
    tally: Tally,
    turn: AtomicU64,
    until: Instant,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let rest = Rest::new(&args.rest_url, Some(&args.api_key));
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let work = Arc::new(Work {
        args,
        rest,
        tally: Tally::default(),
        turn: AtomicU64::new(0),
        until,
    });
    let endpoint = Target::start().await?;
    work.register(&endpoint).await.context("registering the tools")?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..work.args.workers {
        tasks.spawn(Arc::clone(&work).engineer());
        for era in Era::ALL {
            tasks.spawn(Arc::clone(&work).agent(era));
        }
    }
    while tasks.join_next().await.is_some() {}
    work.tally.print();
    Ok(())
}

impl Work {
    /// A number that chooses what comes next: scattered, and the same ones in every run.
    fn next(&self) -> u64 {
        let mut mixed = self.turn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed >> 33
    }

    async fn pause(&self) -> bool {
        sleep(Duration::from_secs_f64(1.0 / self.args.rate.max(0.1))).await;
        Instant::now() < self.until
    }

    /// Tools that work, fail and are slow.
    async fn register(&self, endpoint: &Target) -> anyhow::Result<()> {
        for (name, path, timeout_ms) in [
            ("traffic-works", "/echo", 5000),
            ("traffic-fails", "/status/500", 5000),
            ("traffic-times-out", "/slow/1000", 200),
        ] {
            let tool = json!({"name": name, "description": "Part of the generated traffic", "timeout_ms": timeout_ms,
                "url": endpoint.url(path)});
            self.rest.delete(&format!("/api/v1/tools/{name}")).await?;
            self.rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        }
        Ok(())
    }

    /// Somebody at the REST API.
    async fn engineer(self: Arc<Self>) {
        let mut contexts: Vec<String> = Vec::new();
        while self.pause().await {
            let known = contexts.last().cloned().unwrap_or_default();
            match self.next() % 8 {
                0 => {
                    let made = self.tally.note("REST context create", self.create().await);
                    contexts.extend(made);
                }
                1 if !known.is_empty() => {
                    let items =
                        json!({"items": [{"role": "user", "content": "error rate is back to normal"}]});
                    let path = format!("/api/v1/contexts/{known}/items");
                    self.expect("REST items append", Method::POST, &path, Some(&items), 201)
                        .await;
                }
                2 => {
                    self.expect(
                        "REST search",
                        Method::GET,
                        "/api/v1/contexts/search?q=error",
                        None,
                        200,
                    )
                    .await
                }
                3 => {
                    self.expect("REST list", Method::GET, "/api/v1/contexts?limit=20", None, 200)
                        .await
                }
                4 => {
                    self.execute(["traffic-works", "traffic-fails", "traffic-times-out"])
                        .await
                }
                5 => {
                    self.expect("REST not found", Method::GET, "/api/v1/tools/nobody", None, 404)
                        .await
                }
                6 => self.stranger().await,
                _ if contexts.len() > 20 => {
                    let path = format!("/api/v1/contexts/{}", contexts.remove(0));
                    self.expect("REST context delete", Method::DELETE, &path, None, 204)
                        .await;
                }
                _ => {
                    self.expect("REST executions", Method::GET, "/api/v1/executions", None, 200)
                        .await
                }
            }
        }
    }

    async fn create(&self) -> anyhow::Result<String> {
        let kind = ["manual", "incident", "conversation", "tool_result"][(self.next() % 4) as usize];
        let body = json!({"name": "Traffic", "type": kind, "expires_in": "1h",
            "items": [{"role": "user", "content": "error rate of checkout rises ".repeat(1 + (self.next() % 40) as usize)}]});
        let made = self.rest.post("/api/v1/contexts", &body).await?.expect(201)?;
        made["id"].as_str().map(str::to_owned).context("no id")
    }

    async fn expect(&self, what: &'static str, method: Method, path: &str, body: Option<&Json>, status: u16) {
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

    /// An agent over MCP.
    async fn agent(self: Arc<Self>, era: Era) {
        let connected = mcp::connect(&self.args.mcp_url, &self.args.api_key, era).await;
        let connected = connected.map_err(anyhow::Error::from);
        let Some(client) = self.tally.note("MCP connect", connected) else {
            return;
        };
        while self.pause().await {
            let (what, tool, arguments) = match self.next() % 5 {
                0 => {
                    let items =
                        json!([{"role": "assistant", "content": "the error began with release 4711"}]);
                    let context = json!({"name": "Agent's notes", "type": "conversation", "items": items, "expires_in_seconds": 3600});
                    ("MCP context_create", "context_create", context)
                }
                1 => ("MCP context_search", "context_search", json!({"query": "error"})),
                2 => ("MCP context_list", "context_list", json!({})),
                3 => ("MCP registered tool", "traffic-works", json!({})),
                _ => {
                    self.tally.note(
                        "MCP tools/list",
                        client.list_all_tools().await.map_err(Into::into),
                    );
                    continue;
                }
            };
            self.tally.note(what, client.structured(tool, &arguments).await);
        }
        client.close().await;
    }
}
