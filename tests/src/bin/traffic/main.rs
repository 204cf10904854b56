//! Drives the running services as a team and its agents would, for a bounded time: `cargo xtask traffic`.
//!
//! Several people and agents work at once, over REST and over MCP in both eras. Most of what they do succeeds; some of
//! it fails as in real life, so that every panel and every alert has something to show.

mod agent;
mod endpoint;
mod engineer;
mod operator;
mod server;
mod world;

use anyhow::Context;
use clap::Parser;
use e2e::{Era, rest::Rest};
use endpoint::Endpoint;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
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
    /// Where the endpoint of the tools listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// By which name or URL workers reach it [default: the address that it listens on].
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
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
    let endpoint = Endpoint::start(work.args.listen, work.args.advertise.as_deref()).await?;
    work.register(&endpoint).await.context("registering the tools")?;
    work.join(&endpoint)
        .await
        .context("registering another MCP server")?;
    work.schedule().await.context("making the schedule")?;
    let callers = work.callers().await.context("making the keys")?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&work).operator(callers));
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
}
