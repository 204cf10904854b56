//! Time from start to ready, and memory.

use crate::procfs::{self, Memory};
use e2e::Stack;
use std::time::Duration;
use tokio::time::sleep;

/// How long a service is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// One service's footprint.
pub(crate) struct Footprint {
    /// Its name.
    pub(crate) service: &'static str,
    /// Process start to ready, each time.
    pub(crate) starts: Vec<Duration>,
    /// What it holds when nobody has called it.
    pub(crate) idle: Memory,
}

/// Starts each service of `stack` again, so many times, and then reads what they hold.
pub(crate) async fn measure(stack: &mut Stack, times: usize) -> anyhow::Result<Vec<Footprint>> {
    let names: Vec<_> = stack.names().collect();
    let mut all = Vec::new();
    for service in names {
        let process = stack.process_mut(service);
        let mut starts = Vec::new();
        for _ in 0..times {
            process.signal("-TERM")?;
            process.ended(Duration::from_secs(15)).await?;
            starts.push(process.start().await?);
        }
        all.push((service, starts));
    }
    sleep(SETTLE).await;
    let idle = memory(stack)?;
    Ok(all
        .into_iter()
        .zip(idle)
        .map(|((service, starts), (_, idle))| Footprint {
            service,
            starts,
            idle,
        })
        .collect())
}

/// What each service holds now.
pub(crate) fn memory(stack: &Stack) -> anyhow::Result<Vec<(&'static str, Memory)>> {
    stack
        .names()
        .map(|name| Ok((name, procfs::memory(stack.process(name).pid()?)?)))
        .collect()
}
