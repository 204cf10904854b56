//! Boots the real services and drives them as their users do.
//!
//! [`Stack`] starts the binaries that `cargo build --workspace --bins` left beside this one, on free ports and in
//! a directory of its own; [`rest`], [`mcp`] and [`raw`] are clients; [`Sink`] stands where the collector would,
//! [`Target`] where a tool's endpoint would.

pub mod alerts;
pub mod backend;
pub mod conformance;
pub mod installation;
pub mod logs;
pub mod mcp;
pub mod observability;
pub mod postgres;
pub mod pprof;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod rest;
pub mod scrape;
pub mod sink;
pub mod stack;
pub mod target;
pub mod trace;

pub use backend::Backend;
pub use mcp::Era;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::Redis;
pub use sink::Sink;
pub use stack::Stack;
pub use target::Target;

use std::{future::Future, process::ExitCode, time::Duration};
use tokio::time::{Instant, sleep};

/// A JSON value, as requests and answers hold it.
pub type Json = serde_json::Value;

/// How long to wait for what must come about, where how soon is not the question: long enough for a machine that is
/// ten times slower and busy with other things. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` again and again until it gives something; fails after [`PATIENCE`] with what was waited for.
///
/// # Errors
/// When nothing came in that time.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    probe: impl FnMut() -> F,
) -> anyhow::Result<T> {
    wait_at_most(PATIENCE, what, probe).await
}

/// The same with a limit that is itself what is tested, or that is known to be too short otherwise. What is asked
/// before the limit counts, however long the answer takes.
///
/// # Errors
/// When what was asked after `limit` still gave nothing.
pub async fn wait_at_most<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        let asked = started.elapsed();
        if let Some(found) = probe().await {
            return Ok(found);
        }
        anyhow::ensure!(asked < limit, "waited {limit:?} in vain: {what}");
        sleep(Duration::from_millis(25)).await;
    }
}

/// The HTTP client that everything here uses: it follows no redirect and gives up after two minutes, later
/// than anything that is waited for.
///
/// # Panics
/// When rustls cannot be set up.
pub fn http_client() -> reqwest::Client {
    // Fails where it is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(2 * PATIENCE)
        .build()
        .expect("a client without certificates to load")
}

/// How a program ends whose checks passed, or found these things wrong, a line each.
pub fn ended_with(findings: anyhow::Result<Vec<String>>) -> ExitCode {
    ended(findings.map(|findings| {
        for finding in &findings {
            println!("✗ {finding}");
        }
        if !findings.is_empty() {
            println!("{} findings", findings.len());
        }
        findings.is_empty()
    }))
}

/// How a program ends whose steps all passed, or did not, or could not be tried.
pub fn ended(passed: anyhow::Result<bool>) -> ExitCode {
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
