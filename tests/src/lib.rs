//! Boots the real services and drives them as their users do.
//!
//! [`Stack`] starts the binaries that `cargo build --workspace --bins` left beside this one, on free ports and in
//! a directory of its own; [`rest`], [`mcp`] and [`raw`] are clients; [`Sink`] stands where the collector would,
//! [`Target`] where a tool's endpoint would.

pub mod backend;
pub mod conformance;
pub mod logs;
pub mod mcp;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod rest;
pub mod scrape;
pub mod sink;
pub mod stack;
pub mod target;
pub mod trace;

pub use backend::Backend;
pub use mcp::Era;
pub use proxy::Proxy;
pub use sink::Sink;
pub use stack::Stack;
pub use target::Target;

use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep};

/// A JSON value, as requests and answers hold it.
pub type Json = serde_json::Value;

/// Asks `probe` again and again until it gives something; fails after `limit` with what was waited for.
///
/// # Errors
/// When nothing came within `limit`.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        anyhow::ensure!(started.elapsed() < limit, "waited {limit:?} in vain: {what}");
        sleep(Duration::from_millis(25)).await;
    }
}

/// The HTTP client that everything here uses: it follows no redirect and gives up after 30 s.
///
/// # Panics
/// When rustls cannot be set up.
pub fn http_client() -> reqwest::Client {
    // Fails where it is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client without certificates to load")
}
