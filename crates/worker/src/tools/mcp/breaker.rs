//! A circuit breaker: a server that fails again and again is left alone for a while, then tried by one call.

use crate::outcome::Code;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many failures in a row open it.
const FAILURES: u32 = 5;
/// For how long.
const OPEN_FOR: Duration = Duration::from_secs(30);
/// When the one that tries is taken to be lost.
const PROBE_TIME: Duration = Duration::from_secs(300);

/// What a call tells of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answers.
    Good,
    /// It does not, or not in time, or nonsense.
    Bad,
    /// Nothing: nobody waited for the end, or the server was never asked.
    Unknown,
}

impl Verdict {
    /// Of a call that ended so; `status`: HTTP's, where that was the failure.
    pub(super) fn of(code: Option<Code>, status: Option<u64>) -> Self {
        match code {
            Some(
                Code::Timeout
                | Code::DnsFailed
                | Code::ConnectFailed
                | Code::TlsFailed
                | Code::ConnectionLost
                | Code::InvalidResponse
                | Code::InvalidRedirect
                | Code::TooManyRedirects,
            ) => Self::Bad,
            Some(Code::HttpStatus) if status.is_none_or(|status| status >= 500) => Self::Bad,
            Some(
                Code::AddressNotAllowed
                | Code::InvalidTool
                | Code::InvalidArguments
                | Code::Cancelled
                | Code::WorkerStopped,
            ) => Self::Unknown,
            _ => Self::Good,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probed { since: Instant },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Lets a call pass.
    ///
    /// # Errors
    /// For how long the server is left alone.
    pub(super) fn enter(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until } if until > now => Err(until - now),
            State::Probed { since } if now.duration_since(since) < PROBE_TIME => Err(Duration::ZERO),
            State::Open { .. } | State::Probed { .. } => {
                *state = State::Probed { since: now };
                Ok(())
            }
        }
    }

    /// Whether the server is left alone now, or one call tries it.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed { .. } => false,
            State::Open { until } => until > now,
            State::Probed { since } => now.duration_since(since) < PROBE_TIME,
        }
    }

    /// Notes how a call ended.
    pub(super) fn settle(&self, verdict: Verdict, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match (verdict, *state) {
            (Verdict::Good, _) => State::Closed { failures: 0 },
            (Verdict::Bad, State::Closed { failures }) if failures + 1 < FAILURES => State::Closed {
                failures: failures + 1,
            },
            (Verdict::Bad, State::Closed { .. } | State::Probed { .. }) => State::Open {
                until: now + OPEN_FOR,
            },
            // The next one may try at once.
            (Verdict::Unknown, State::Probed { .. }) => State::Open { until: now },
            (Verdict::Bad | Verdict::Unknown, state) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_call_tries() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES - 1 {
            breaker.settle(Verdict::Bad, start);
        }
        breaker.settle(Verdict::Good, start);
        for _ in 1..=FAILURES {
            assert!(!breaker.is_open(start), "an answer counts from the start again");
            assert_eq!(breaker.enter(start), Ok(()));
            breaker.settle(Verdict::Bad, start);
        }
        assert!(breaker.is_open(start));
        assert_eq!(breaker.enter(start), Err(OPEN_FOR));
        let later = start + OPEN_FOR;
        assert!(!breaker.is_open(later), "nobody is refused");
        assert_eq!(breaker.enter(later), Ok(()), "one may try");
        assert!(
            breaker.is_open(later) && breaker.enter(later).is_err(),
            "and no other"
        );
        assert!(!breaker.is_open(later + PROBE_TIME), "who tries for ever is lost");
        breaker.settle(Verdict::Unknown, later);
        assert_eq!(breaker.enter(later), Ok(()), "who left has not tried");
        breaker.settle(Verdict::Bad, later);
        assert_eq!(breaker.enter(later), Err(OPEN_FOR));
        let again = later + OPEN_FOR;
        assert_eq!(breaker.enter(again), Ok(()));
        breaker.settle(Verdict::Good, again);
        assert!(!breaker.is_open(again));
        assert_eq!(breaker.enter(again), Ok(()));
    }

    #[test]
    fn what_is_not_the_servers_fault_does_not_open_it() {
        assert_eq!(Verdict::of(Some(Code::HttpStatus), Some(401)), Verdict::Good);
        assert_eq!(Verdict::of(Some(Code::HttpStatus), Some(503)), Verdict::Bad);
        assert_eq!(Verdict::of(Some(Code::ToolError), None), Verdict::Good);
        assert_eq!(Verdict::of(Some(Code::AddressNotAllowed), None), Verdict::Unknown);
        assert_eq!(Verdict::of(None, None), Verdict::Good);
    }
}
