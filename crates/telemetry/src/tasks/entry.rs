//! What is kept of one task.

use std::{
    panic::Location,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A live task. Only the thread that polls it writes to it; whoever looks sees each number as it is, and not necessarily
/// all at the same moment.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) location: &'static Location<'static>,
    /// How often it is polled at least, in nanoseconds; 0 when nobody said.
    every: AtomicU64,
    pub(super) spawned: Instant,
    /// When it was last begun or ended to be polled, in nanoseconds since it was spawned, doubled; plus one while it is.
    since: AtomicU64,
    polls: AtomicU64,
    busy: AtomicU64,
}

/// An [`Entry`]'s numbers at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) running: bool,
    /// Since it was spawned.
    pub(super) age: Duration,
    /// How long it has been running, or idle.
    pub(super) since: Duration,
    pub(super) polls: u64,
    /// With the poll in progress.
    pub(super) busy: Duration,
    pub(super) every: Option<Duration>,
}

impl Entry {
    pub(super) fn new(name: &'static str, location: &'static Location<'static>) -> Self {
        let (every, since, polls, busy) = Default::default();
        Self {
            name,
            location,
            every,
            spawned: Instant::now(),
            since,
            polls,
            busy,
        }
    }

    pub(super) fn set_every(&self, every: Duration) {
        self.every.store(nanos(every), Ordering::Relaxed);
    }

    /// A poll begins; gives back when that is.
    pub(super) fn begin(&self) -> u64 {
        let now = nanos(self.spawned.elapsed());
        self.since.store(now << 1 | 1, Ordering::Relaxed);
        // Nobody else writes: a plain store is enough, and cheaper than an addition that is atomic.
        let polls = self.polls.load(Ordering::Relaxed);
        self.polls.store(polls + 1, Ordering::Relaxed);
        now
    }

    /// The poll that began then ends; gives back how long it took, in nanoseconds.
    pub(super) fn end(&self, began: u64) -> u64 {
        let now = nanos(self.spawned.elapsed());
        let took = now.saturating_sub(began);
        let busy = self.busy.load(Ordering::Relaxed);
        self.busy.store(busy + took, Ordering::Relaxed);
        self.since.store(now << 1, Ordering::Relaxed);
        took
    }

    pub(super) fn read(&self, now: Instant) -> Reading {
        let since = self.since.load(Ordering::Relaxed);
        let age = now.saturating_duration_since(self.spawned);
        let (running, at) = (since & 1 == 1, Duration::from_nanos(since >> 1));
        let since = age.saturating_sub(at);
        let busy = Duration::from_nanos(self.busy.load(Ordering::Relaxed));
        let every = self.every.load(Ordering::Relaxed);
        Reading {
            running,
            age,
            since,
            polls: self.polls.load(Ordering::Relaxed),
            busy: if running { busy + since } else { busy },
            every: (every > 0).then(|| Duration::from_nanos(every)),
        }
    }
}

/// Whole nanoseconds; 63 bits of them last for 292 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).map_or(u64::MAX >> 1, |nanos| nanos.min(u64::MAX >> 1))
}
