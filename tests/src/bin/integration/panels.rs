//! Every panel, alert expression and recording rule has data.

use crate::stack::Stack;
use anyhow::ensure;
use e2e::observability::{self, live};
use std::time::Duration;

/// From the first scrape to what a rule makes of the second, with time to spare for a busy machine.
const PATIENCE: Duration = Duration::from_secs(420);

/// Puts every query of dashboards, rules, runbooks and documents to the running stack, and prints what came.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let backends = live::Backends {
        prometheus_url: stack.at.prometheus_url.clone(),
        loki_url: stack.at.loki_url.clone(),
        jaeger_url: stack.at.jaeger_url.clone(),
        patience: PATIENCE.into(),
    };
    let findings = live::run(&observability::root(), &backends).await?;
    ensure!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
    Ok(())
}
