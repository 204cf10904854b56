//! Polls that take too long.

use super::{meter::LONG_POLLS, track::About};
use axum::extract::MatchedPath;
use parking_lot::Mutex;
use std::{
    cell::Cell,
    panic::Location,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// How many lines are written within [`WINDOW`]; the metric counts all.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

thread_local! {
    /// How many nanoseconds of the poll in hand have been told already, by a poll within it.
    static TOLD: Cell<u64> = const { Cell::new(0) };
    static THREAD: Arc<Thread> = Thread::register();
}

/// Keeps a long poll from being told twice: a request's is also one of its connection's task.
pub(super) struct Blame {
    outer: u64,
}

impl Blame {
    pub(super) fn begin() -> Self {
        Self {
            outer: TOLD.replace(0),
        }
    }

    /// Ends the poll, which took that many nanoseconds: whether it is to be told. With a limit of 0, nothing is.
    pub(super) fn is_long(&self, took: u64, limit: u64) -> bool {
        let told = TOLD.get();
        let long = limit > 0 && took.saturating_sub(told) >= limit;
        TOLD.set(self.outer + if long { took } else { told });
        long
    }
}

/// A thread that works on requests.
#[derive(Debug, Default)]
struct Thread {
    /// What it works on, and since when.
    now: Mutex<Option<(&'static str, Instant)>>,
}

static THREADS: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

impl Thread {
    fn register() -> Arc<Self> {
        let thread = Arc::new(Self::default());
        let mut threads = THREADS.lock();
        threads.retain(|other| other.strong_count() > 0);
        threads.push(Arc::downgrade(&thread));
        thread
    }
}

/// A request that a thread works on, for as long as this lives.
pub(super) struct InProgress {
    /// The outermost of several within each other, which began first.
    outermost: bool,
}

impl InProgress {
    pub(super) fn begin(name: &'static str, now: Instant) -> Self {
        let begin = |thread: &Arc<Thread>| {
            let mut current = thread.now.lock();
            let outermost = current.is_none();
            if outermost {
                *current = Some((name, now));
            }
            outermost
        };
        // A thread that ends has no such values any more.
        let outermost = THREAD.try_with(begin).unwrap_or(false);
        Self { outermost }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if self.outermost {
            let _ = THREAD.try_with(|thread| *thread.now.lock() = None);
        }
    }
}

/// What threads work on right now, and since when.
pub(super) fn in_progress() -> Vec<(&'static str, Instant)> {
    let threads = THREADS.lock();
    let threads = threads.iter().filter_map(Weak::upgrade);
    threads.filter_map(|thread| *thread.now.lock()).collect()
}

/// Counts a poll that took `nanos`, and tells of it.
#[cold]
pub(super) fn report(
    name: &'static str,
    spawned_at: Option<&Location<'static>>,
    request: &About,
    nanos: u64,
) {
    LONG_POLLS.inc([name]);
    let Some(left_out) = LIMIT.lock().admit(Instant::now()) else {
        return;
    };
    let poll_ms = (nanos / 1000) as f64 / 1000.0;
    tracing::warn!(
        task = name,
        poll_ms,
        method = request.method.as_deref(),
        path = request.path.as_ref().map(MatchedPath::as_str),
        spawned_at = spawned_at.map(tracing::field::display),
        left_out,
        "a poll took too long: something blocked a thread of the runtime"
    );
}

static LIMIT: Mutex<Limit> = Mutex::new(Limit {
    began: None,
    lines: 0,
    left_out: 0,
});

/// How much was written.
struct Limit {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Limit {
    /// Whether one more line may be written, and then how many were not before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= WINDOW)
        {
            (self.began, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_long_polls_leaves_few_lines() {
        let (mut limit, start) = (
            Limit {
                began: None,
                lines: 0,
                left_out: 0,
            },
            Instant::now(),
        );
        let written = (0..1000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(limit.admit(start + WINDOW), Some(1000 - u64::from(LINES)));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }

    #[test]
    fn what_was_told_within_is_not_told_again() {
        let connection = Blame::begin();
        let request = Blame::begin();
        assert!(request.is_long(300, 100));
        assert!(!connection.is_long(310, 100), "the rest is short");
        let connection = Blame::begin();
        let request = Blame::begin();
        assert!(request.is_long(300, 100));
        assert!(connection.is_long(450, 100), "the rest is long as well");
        assert!(!Blame::begin().is_long(u64::MAX, 0), "switched off");
        TOLD.set(0);
    }
}
