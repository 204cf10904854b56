//! `cargo xtask doctor` finds nothing wrong with a healthy installation, and says what is with one that lacks a part.
//!
//! The installation runs as for the alerts, with its notifications coming here: where they lead nowhere, something is
//! wrong.

use crate::stack::Stack;
use anyhow::{Context, ensure};
use e2e::{Json, alerts::sinks::Sinks, process, wait_at_most};
use std::{cell::RefCell, process::Stdio, time::Duration};
use tokio::process::Command;

/// Alertmanager could not deliver before the sinks were there, and the Collector waits before it tries anew what it could
/// not send; two minutes later that is forgotten.
const HEALED: Duration = Duration::from_secs(240);
const WRONG_KEY: &str = "dmcp_000000000000000000000000000000000000000000";

/// What it said.
struct Said {
    code: Option<i32>,
    report: Json,
}

impl Said {
    /// The finding of a check.
    fn of(&self, check: &str) -> anyhow::Result<&Json> {
        let mut all = self.report["findings"].as_array().into_iter().flatten();
        all.find(|finding| finding["check"] == check)
            .with_context(|| format!("no check {check:?} in {:#}", self.report))
    }

    /// The checks that ended so.
    fn ended(&self, verdict: &str) -> Vec<&str> {
        let all = self.report["findings"].as_array().into_iter().flatten();
        all.filter(|finding| finding["verdict"] == verdict)
            .filter_map(|finding| finding["check"].as_str())
            .collect()
    }

    /// That this check failed and named a remedy, and that nothing else did but what follows from it.
    fn failed(&self, check: &str, remedy: &str, others: &[&str]) -> anyhow::Result<()> {
        ensure!(
            self.code == Some(1),
            "exit code {:?}: {:#}",
            self.code,
            self.report
        );
        let finding = self.of(check)?;
        let told = finding["remedy"].as_str().unwrap_or_default();
        ensure!(
            finding["verdict"] == "failed" && told.contains(remedy),
            "expected {check} to have failed with {remedy}: {finding:#}"
        );
        let failed = self.ended("failed");
        // A notification that failed before the sinks listened may show up only now.
        let known = |name: &str| name == check || name == "notifications" || others.contains(&name);
        let unexpected = failed.iter().find(|name| !known(name));
        ensure!(
            unexpected.is_none(),
            "failed, too: {unexpected:?}: {:#}",
            self.report
        );
        println!("   told     {check}: {} ({})", finding["means"], finding["came"]);
        Ok(())
    }
}

/// Runs it on the healthy installation, with a wrong key, and without one part after the other.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let _sinks = Sinks::start(stack.at.sink_port).await?;
    healthy(stack).await?;
    let said = ask(stack, WRONG_KEY).await?;
    said.failed("API key", "keys create", &["MCP"])?;
    ensure!(
        said.of("trace")?["verdict"] == "not_checked",
        "no key, no request: {:#}",
        said.report
    );
    without(stack, "loki", "log line", "start loki", &[]).await?;
    without(stack, "jaeger", "trace", "start jaeger", &[]).await?;
    // Both are there, and nothing comes.
    without(stack, "otel-collector", "trace", "NoTraces", &["log line"]).await?;
    healthy(stack).await
}

/// Waits until nothing is wrong, not quite right, or left out.
async fn healthy(stack: &Stack) -> anyhow::Result<()> {
    let last = RefCell::new(Json::Null);
    let waited = wait_at_most(HEALED, "the doctor to find nothing wrong", async || {
        let said = ask(stack, &stack.at.api_key).await.ok()?;
        let (ok, notes) = (said.ended("ok").len(), said.ended("note"));
        let is_well = said.code == Some(0)
            && ["warning", "not_checked", "failed"]
                .iter()
                .all(|verdict| said.ended(verdict).is_empty());
        let told = is_well.then(|| format!("{ok} checks ok, notes: {notes:?}"));
        last.replace(said.report);
        told
    });
    let told = waited.await.with_context(|| format!("{:#}", last.borrow()))?;
    println!("   healthy  {told}");
    Ok(())
}

/// Takes a part away, asks, and gives it back.
async fn without(
    stack: &Stack,
    part: &str,
    check: &str,
    remedy: &str,
    others: &[&str],
) -> anyhow::Result<()> {
    stack.stop(part).await?;
    let said = ask(stack, &stack.at.api_key).await;
    stack.start(part).await?;
    // Prometheus may or may not have tried to scrape it meanwhile: that is a warning.
    said?.failed(check, remedy, others)
}

async fn ask(stack: &Stack, key: &str) -> anyhow::Result<Said> {
    let at = &stack.at;
    let mut command = Command::new(process::binary("xtask")?);
    command
        .args(["doctor", "--json"])
        .envs(at.variables())
        .env("API_KEY", key)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("running xtask")?;
    let said = String::from_utf8_lossy(&output.stdout);
    for secret in [key, &at.admin_token] {
        ensure!(!said.contains(secret), "a secret is told: {said}");
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&said).with_context(|| format!("no JSON: {said}{complaint}"))?;
    Ok(Said {
        code: output.status.code(),
        report,
    })
}
