//! What the kernel knows of a process.

use anyhow::Context;
use std::fs;

/// Seconds in one of the kernel's ticks, as it tells them to programs (`USER_HZ`).
const TICK: f64 = 0.01;

/// The CPU time that a process has taken with all its threads, seconds, to a hundredth.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} has ended"))?;
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? * TICK)
}

/// What a process holds in memory, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All of it.
    pub(crate) resident: u64,
    /// Without the pages of its files: heap and stacks.
    pub(crate) anonymous: u64,
}

/// What a process holds in memory.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        anyhow::Ok(
            number
                .with_context(|| format!("no {name} in the status"))?
                .parse::<u64>()?
                * 1024,
        )
    };
    Ok(Memory {
        resident: bytes("VmRSS:")?,
        anonymous: bytes("RssAnon:")?,
    })
}
