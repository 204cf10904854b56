//! What the kernel knows of a process.

use anyhow::Context;
use nix::{time::clock_getcpuclockid, unistd::Pid};
use std::{fs, time::Duration};

/// The CPU time that a process has taken with all its threads, seconds, to a fraction of a microsecond.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let clock = clock_getcpuclockid(pid).with_context(|| format!("process {pid} has ended"))?;
    Ok(Duration::from(clock.now()?).as_secs_f64())
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

/// How many files, sockets among them, a process has open.
pub(crate) fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}
