//! The end-to-end tests through the Services, from a pod beside them.

use crate::{inside::Job, kubectl::SERVICES, setup::Setup};
use anyhow::ensure;
use e2e::{
    stack::{MCP_SERVER, REST_API, WORKER},
    wait_at_most,
};
use futures_util::future::try_join_all;
use serde_json::json;
use std::time::Duration;

/// All tests together, on a slow machine.
const LIMIT: Duration = Duration::from_secs(420);
/// Until an autoscaler has taken back what it gave.
const SHRINKS: Duration = Duration::from_secs(120);
/// Where the services answer, for pods of their namespace.
pub(crate) const ADDRESSES: [(&str, &str); 3] = [
    ("REST_URL", "http://rest-api:8080"),
    ("MCP_URL", "http://mcp-server:8080/mcp"),
    ("WORKER_URL", "http://worker:8080"),
];

/// Runs them with one pod of each service: some read a metric that counts what they did, and a scrape through a Service
/// is one pod's.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<()> {
    ensure!(!setup.tests.is_empty(), "--tests names none");
    println!("   {} tests, one pod of each service", setup.tests.len());
    let most = try_join_all([REST_API, MCP_SERVER, WORKER].map(one_pod)).await?;
    let command = ["/usr/local/bin/e2e", "--exact"].into_iter().map(str::to_owned);
    let mut job = Job::new("end-to-end", command.chain(setup.tests.iter().cloned()))
        .env("E2E_INSTALLATION", "1")
        .env("RUST_BACKTRACE", "0");
    for (name, value) in ADDRESSES {
        job = job.env(name, value);
    }
    let result = job.run(setup, LIMIT).await;
    for (service, most) in most {
        bound(service, most).await?;
    }
    result
}

/// Has the autoscaler keep to one pod, and waits for it; how many it allowed before.
async fn one_pod(service: &'static str) -> anyhow::Result<(&'static str, u64)> {
    let autoscaler = SERVICES.json(&[&format!("hpa/{service}")]).await?;
    let before = autoscaler["spec"]["maxReplicas"].as_u64().unwrap_or(1);
    bound(service, 1).await?;
    wait_at_most(SHRINKS, &format!("one pod of {service}"), async || {
        let pods = SERVICES.pods(service).await.ok()?;
        (pods.len() == 1).then_some(())
    })
    .await?;
    Ok((service, before))
}

async fn bound(service: &str, most: u64) -> anyhow::Result<()> {
    let spec = json!({ "spec": { "maxReplicas": most } });
    SERVICES.patch(&format!("hpa/{service}"), &spec).await
}
