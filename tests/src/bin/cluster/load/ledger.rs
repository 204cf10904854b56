//! What was sent and what came of it: one line of JSON a second.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Failures told in full a second; the rest is counted.
const TOLD: usize = 20;
/// Bytes of a body that are told.
const EXCERPT: usize = 300;

/// What happened within one second, or, in the last line, since the line before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    /// When it ended, seconds since 1970.
    pub(crate) at: f64,
    /// Who tells it; its tenant is called the same, and that is the value of the label `tenant_id`.
    pub(crate) pod: String,
    /// By kind of request.
    pub(crate) kinds: BTreeMap<String, Kind>,
    /// The least and the most active contexts that there may have been: they differ by the writes under way and by
    /// those whose outcome is not known.
    pub(crate) active: [u64; 2],
    /// Sessions of the older protocol that were opened, and those that the server no longer knew.
    pub(crate) sessions: [u64; 2],
    /// What failed.
    pub(crate) failures: Vec<Failure>,
    /// Nothing comes after this one.
    pub(crate) last: bool,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kind {
    /// Answered as they should be.
    pub(crate) ok: u64,
    /// Not answered, or otherwise than they should be.
    pub(crate) failed: u64,
    /// The median latency, milliseconds.
    pub(crate) median_ms: f64,
    /// The greatest latency, milliseconds.
    pub(crate) max_ms: f64,
}

/// One request that failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// When that was known, seconds since 1970.
    pub(crate) at: f64,
    /// Its kind.
    pub(crate) kind: String,
    /// For how long it was waited, milliseconds.
    pub(crate) took_ms: f64,
    /// The answer's status, if there was one.
    pub(crate) status: Option<u16>,
    /// What was wrong.
    pub(crate) error: String,
}

/// What was wrong with an answer, or that there was none.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// The answer's status, if there was one.
    pub(crate) status: Option<u16>,
    /// What was wrong.
    pub(crate) error: String,
}

impl Wrong {
    /// An answer that is not what was asked for, with the beginning of its body.
    pub(crate) fn answer(status: u16, what: &str, body: &str) -> Self {
        let cut = body.floor_char_boundary(EXCERPT);
        Self {
            status: Some(status),
            error: format!("{what}: {}", body[..cut].trim()),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}: {}", self.error),
            None => f.write_str(&self.error),
        }
    }
}

impl std::error::Error for Wrong {}

impl From<super::wire::NoAnswer> for Wrong {
    fn from(none: super::wire::NoAnswer) -> Self {
        Self {
            status: None,
            error: none.0,
        }
    }
}

/// Everybody's account of the current second.
pub(crate) struct Ledger {
    pod: String,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    second: Second,
    latencies: BTreeMap<&'static str, Vec<f64>>,
    /// At least and at most so many contexts are active now.
    active: [u64; 2],
}

impl Ledger {
    /// An empty one; `active` contexts are there already.
    pub(crate) fn new(pod: &str, active: u64) -> Self {
        let mut open = Open {
            active: [active; 2],
            ..Open::default()
        };
        open.second.active = [active; 2];
        Self {
            pod: pod.to_owned(),
            open: Mutex::new(open),
        }
    }

    /// Notes a request and gives what came of it.
    pub(crate) fn note<T>(&self, kind: &'static str, took: Duration, result: Result<T, Wrong>) -> Option<T> {
        let mut open = self.lock();
        let took_ms = took.as_secs_f64() * 1e3;
        open.latencies.entry(kind).or_default().push(took_ms);
        let count = open.second.kinds.entry(kind.to_owned()).or_default();
        let wrong = match result {
            Ok(value) => {
                count.ok += 1;
                return Some(value);
            }
            Err(wrong) => wrong,
        };
        count.failed += 1;
        if open.second.failures.len() < TOLD {
            open.second.failures.push(Failure {
                at: unix(SystemTime::now()),
                kind: kind.to_owned(),
                took_ms,
                status: wrong.status,
                error: wrong.error,
            });
        }
        None
    }

    /// A context may come to be from now on; with `sure`, it has.
    pub(crate) fn adds(&self, sure: bool) {
        self.counts(|[least, most]| if sure { *least += 1 } else { *most += 1 });
    }

    /// A context may vanish from now on; with `sure`, it has.
    pub(crate) fn removes(&self, sure: bool) {
        self.counts(|[least, most]| if sure { *most -= 1 } else { *least -= 1 });
    }

    fn counts(&self, change: impl FnOnce(&mut [u64; 2])) {
        let mut open = self.lock();
        change(&mut open.active);
        let [least, most] = open.active;
        let told = &mut open.second.active;
        *told = [told[0].min(least), told[1].max(most)];
    }

    /// A session was opened.
    pub(crate) fn session_opened(&self) {
        self.lock().second.sessions[0] += 1;
    }

    /// The server did not know a session that it should have known.
    pub(crate) fn session_lost(&self) {
        self.lock().second.sessions[1] += 1;
    }

    /// Closes the account of this second.
    pub(crate) fn close(&self, last: bool) -> Second {
        let mut open = self.lock();
        let mut second = std::mem::take(&mut open.second);
        open.second.active = open.active;
        for (kind, mut latencies) in std::mem::take(&mut open.latencies) {
            latencies.sort_by(f64::total_cmp);
            let count = second.kinds.entry(kind.to_owned()).or_default();
            count.median_ms = latencies[latencies.len() / 2];
            count.max_ms = latencies.last().copied().unwrap_or_default();
        }
        second.at = unix(SystemTime::now());
        second.pod.clone_from(&self.pod);
        second.last = last;
        second
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_tells_what_happened_in_it_and_nothing_of_the_one_before() {
        let ledger = Ledger::new("load-0", 10);
        let wrong = || Wrong::answer(503, "expected 200", "draining");
        ledger.note("read", Duration::from_millis(4), Ok(()));
        ledger.note("read", Duration::from_millis(90), Err::<(), _>(wrong()));
        ledger.adds(false);
        ledger.adds(true);
        ledger.removes(false);
        let first = ledger.close(false);
        assert_eq!((first.kinds["read"].ok, first.kinds["read"].failed), (1, 1));
        assert_eq!(first.kinds["read"].max_ms, 90.0);
        assert_eq!(first.failures[0].error, "expected 200: draining");
        assert_eq!(first.active, [10, 11]);
        // The removal is still under way.
        let second = ledger.close(true);
        assert_eq!(second.active, [10, 11]);
        assert!(second.kinds.is_empty() && second.failures.is_empty() && second.last);
    }
}
