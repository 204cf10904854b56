//! Time stamps, quickly: the date is worked out once a second.

use std::{cell::RefCell, io::Write, time::SystemTime};

/// `2026-11-03T09:15:27`
const SECONDS_LEN: usize = 19;

thread_local! {
    static LAST: RefCell<(i64, [u8; SECONDS_LEN])> = const { RefCell::new((i64::MIN, [0; SECONDS_LEN])) };
}

/// Appends a time as RFC 3339 in UTC, to the microsecond: `2026-11-03T09:15:27.123456Z`.
pub(super) fn push(line: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs().cast_signed();
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            let date = chrono::DateTime::from_timestamp(second, 0).unwrap_or_default();
            // Years after 9999 would not fit; the rest of such a line still stands.
            let _ = write!(&mut text[..], "{}", date.format("%Y-%m-%dT%H:%M:%S"));
            *last = second;
        }
        line.extend_from_slice(text);
    });
    let _ = write!(line, ".{:06}Z", since.subsec_micros());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_is_rfc_3339_in_utc_with_microseconds() {
        for (micros, text) in [
            (1_793_697_327_123_456, "2026-11-03T09:15:27.123456Z"),
            (1_793_697_327_000_007, "2026-11-03T09:15:27.000007Z"),
            (1_793_697_328_000_000, "2026-11-03T09:15:28.000000Z"),
        ] {
            let mut line = Vec::new();
            push(&mut line, SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
            assert_eq!(String::from_utf8(line).unwrap(), text);
        }
    }
}
