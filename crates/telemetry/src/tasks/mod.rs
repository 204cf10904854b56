//! The live tasks of the process: where each was started, what it does now, how long it has been at it.
//!
//! Tokio's own knowledge of its tasks needs an unstable build, so whoever spawns says what: [`spawn`] keeps an entry in a
//! registry for as long as the task lives, and two readings of the clock around each poll tell the rest. What libraries
//! spawn is not in the registry; it shows as the difference to the number of tasks that the runtime says are alive.
//!
//! A poll that takes too long keeps everything else on that thread waiting: it is counted under the task's name, and told
//! in the log with the ids of the request that it was done for.

mod entry;
mod long_polls;
mod meter;
mod registry;
mod snapshot;
#[cfg(test)]
mod tests;
mod text;
mod track;

pub(crate) use meter::{DECLARATIONS, EVERY as SCHEDULING_DELAY_EVERY, measure_scheduling_delay, observe};
pub use snapshot::{Group, Request, Runtime, Snapshot, State, Task, snapshot};
pub use track::{Polled, Tracked, polled, track};

use crate::settings;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::task::JoinHandle;

/// From how many nanoseconds on a poll is long; 0 while tasks are not tracked.
static LONG_POLL: AtomicU64 = AtomicU64::new(0);

/// Switches tracking on or off for what is spawned from now on; [`init`](crate::init) does it for a service.
pub fn configure(settings: &settings::Tasks) {
    let nanos = Duration::from_millis(settings.long_poll_ms).as_nanos();
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
    LONG_POLL.store(if settings.enabled { nanos } else { 0 }, Ordering::Relaxed);
}

fn enabled() -> bool {
    LONG_POLL.load(Ordering::Relaxed) > 0
}

/// Spawns a task onto the current runtime and tracks it. `name` says what it does (`http connection`); all tasks that do
/// the same share it, for it is a label of metrics.
///
/// # Panics
/// Outside of a runtime.
#[track_caller]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(track(name, future))
}

/// Spawns a task that does something again and again, and says how often it is polled at least: when it was not for three
/// times `every`, it counts as stuck.
///
/// # Panics
/// Outside of a runtime.
#[track_caller]
pub fn spawn_every<F>(name: &'static str, every: Duration, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(track(name, future).every(every))
}
