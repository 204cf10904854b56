//! The time, as it is stored.

use domain::Time;
use std::time::Duration;

/// The longest that anything may be asked to live, a hundred years: no calendar overflows by it.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The present moment, with the precision that is stored: microseconds.
pub(crate) fn now() -> Time {
    let now = chrono::Utc::now();
    Time::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

/// The moment that lies so far ahead, at most [`LONGEST`].
pub(crate) fn ahead(duration: Duration) -> Time {
    now() + duration.min(LONGEST)
}
