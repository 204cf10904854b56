//! Faults become notifications, and their healing too.
//!
//! The installation runs with the copies that [`scale()`] writes, in which a minute takes a second, and whose notifications
//! come here. Real faults are provoked in it, one group after the other; for each, the very notifications that must reach
//! Slack and PagerDuty are waited for, then their resolution. What a cause keeps quiet must not come.

mod expected;
mod faults;

use crate::stack::Stack;
use anyhow::{Context, ensure};
use e2e::{
    alerts::{scale, sinks::Sinks},
    wait_at_most,
};
use expected::Protocol;
use faults::Faults;
use std::{cell::RefCell, env, path::Path, time::Duration};

/// Alerts of the traffic before must be over; the longest look back an hour, scaled a minute.
const QUIET: Duration = Duration::from_secs(150);
/// Prometheus tells anew of what fires each minute, so an Alertmanager that was not there at first hears of it then.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(100);

/// Writes the scaled-down copies into folders of `out`: `alerts`, `prometheus` and `alertmanager`.
///
/// # Errors
/// When the repository is not around the current directory, or a file cannot be read or written.
pub(crate) fn scale(out: &Path, sink: &str) -> anyhow::Result<()> {
    let here = env::current_dir()?;
    let repository = here
        .ancestors()
        .find(|dir| dir.join("deploy/alertmanager").is_dir());
    let repository = repository.with_context(|| format!("{} is not in the repository", here.display()))?;
    scale::write(repository, out, sink)
}

/// Provokes faults, and mends all of them again, whatever comes.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let config = stack
        .get(&format!("{}/api/v1/status/config", stack.at.prometheus_url), &[])
        .await?;
    let config = config["data"]["yaml"].as_str().unwrap_or_default();
    ensure!(
        config.contains("scrape_interval: 1s"),
        "Prometheus runs with the original times: start the stack with the folders that `integration scale` writes"
    );
    let sinks = Sinks::start(stack.at.sink_port).await?;
    let mut protocol = Protocol::new(stack, &sinks);
    heartbeats(&sinks, 1).await?;
    quiet(stack).await?;
    let mut faults = Faults::prepare(stack, &sinks).await?;
    let done = faults.all(&mut protocol).await;
    let mended = faults.mend().await;
    protocol.print();
    done.and(mended)?;
    let seen = sinks.heartbeats().len();
    heartbeats(&sinks, seen + 2).await?;
    println!(
        "   the dead-man switch heard from Watchdog {} times",
        sinks.heartbeats().len()
    );
    let nonsense = sinks.nonsense();
    ensure!(
        nonsense.is_empty(),
        "notifications as nobody takes them:\n{}",
        nonsense.join("\n")
    );
    Ok(())
}

async fn heartbeats(sinks: &Sinks, count: usize) -> anyhow::Result<()> {
    wait_at_most(FIRST_HEARTBEAT, "Watchdog at the dead-man switch", async || {
        (sinks.heartbeats().len() >= count).then_some(())
    })
    .await
}

/// Waits until none of the alerts that are provoked here is active already: it would not be told of again.
async fn quiet(stack: &Stack) -> anyhow::Result<()> {
    let url = format!("{}/api/v2/alerts", stack.at.alertmanager_url);
    // What starts, or what others did before, is not over before Prometheus has seen it for as long as rules look back.
    wait_at_most(QUIET, "Prometheus to have data of a minute", async || {
        let back = stack.promql("count(up offset 65s)").await.ok()?;
        (!back.is_empty()).then_some(())
    })
    .await?;
    let active = RefCell::new(Vec::new());
    let waited = wait_at_most(QUIET, "alerts to be over", async || {
        let alerts = stack.get(&url, &[]).await.ok()?;
        let provoked = alerts
            .as_array()?
            .iter()
            .filter_map(faults::is_provoked)
            .collect();
        *active.borrow_mut() = provoked;
        active.borrow().is_empty().then_some(())
    });
    let waited = waited.await;
    waited.with_context(|| format!("active before anything was done: {:?}", active.borrow()))
}
