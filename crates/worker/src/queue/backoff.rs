//! Waits that grow.

use std::time::Duration;

/// The wait after the first failure.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits after failures: each is twice as long as the one before, up to a bound, and spread over its upper half, so that
/// workers that failed together don't come back together.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: SHORTEST }
    }

    /// It went well: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.next = SHORTEST;
    }

    /// How long to wait now.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }
}
