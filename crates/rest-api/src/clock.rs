//! The time, as it is stored.

use domain::Time;

/// The present moment, with the precision that is stored: microseconds.
pub(crate) fn now() -> Time {
    let now = chrono::Utc::now();
    Time::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
