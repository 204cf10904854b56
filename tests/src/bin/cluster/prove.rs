//! What is proven from a pod beside the services: one request in metrics, logs and traces, and Prometheus's targets.

use crate::{end_to_end::ADDRESSES, inside::Job, setup::Setup, targets};
use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use e2e::Json;
use std::{env, fs, time::Duration};
use tokio::process::Command;

/// On a slow machine.
const LIMIT: Duration = Duration::from_secs(360);
/// Where what watches answers, for pods of other namespaces.
const WATCHERS: [(&str, &str); 4] = [
    ("PROMETHEUS_URL", "http://prometheus.devops-mcp-monitoring:9090"),
    (
        "ALERTMANAGER_URL",
        "http://alertmanager.devops-mcp-monitoring:9093",
    ),
    ("LOKI_URL", "http://loki.devops-mcp-monitoring:3100"),
    ("JAEGER_URL", "http://jaeger.devops-mcp-monitoring:16686"),
];

/// What is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proof {
    /// Every target is up, every rule healthy.
    Targets,
    /// One request is found in traces, logs and metrics.
    Request,
}

/// Proves it in a Job.
pub(crate) async fn run(setup: &Setup, proof: Proof) -> anyhow::Result<()> {
    let name = match proof {
        Proof::Targets => "targets",
        Proof::Request => "request",
    };
    let mut job = Job::new(name, ["/usr/local/bin/cluster", "prove", name]);
    for (name, value) in ADDRESSES.into_iter().chain(WATCHERS) {
        job = job.env(name, value);
    }
    job.run(setup, LIMIT).await
}

/// Proves it here, inside of the cluster.
pub(crate) async fn inside(proof: Proof) -> anyhow::Result<()> {
    match proof {
        Proof::Targets => targets::check(WATCHERS[0].1).await,
        Proof::Request => request().await,
    }
}

/// Runs the integration's own step, as a tenant of its own.
async fn request() -> anyhow::Result<()> {
    let token = env::var("ADMIN_TOKEN_FILE").context("rest-api's configuration names no ADMIN_TOKEN_FILE")?;
    let token = fs::read_to_string(&token).with_context(|| token.clone())?;
    let tenant = format!("request-{}", uuid::Uuid::now_v7().simple());
    rest_api(&["tenants", "create", &tenant]).await?;
    let create = [
        "keys", "create", "--json", "--tenant", &tenant, "--name", "request", "--scopes", "all",
    ];
    let key: Json = serde_json::from_str(&rest_api(&create).await?)?;
    let status = Command::new("integration")
        .args(["run", "--only", "request"])
        .env(
            "API_KEY",
            key["secret"].as_str().context("a key without a secret")?,
        )
        .env("ADMIN_TOKEN", token.trim())
        .status()
        .await
        .context("starting integration")?;
    ensure!(status.success(), "integration run --only request: {status}");
    Ok(())
}

/// `rest-api ARGUMENTS`, with the configuration of the pods of rest-api; what it prints.
async fn rest_api(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("rest-api").args(arguments).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "rest-api {arguments:?}: {out}{err}");
    Ok(out)
}
