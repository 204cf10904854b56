//! Times as agents write them, and as sources want them.

use crate::outcome::{Code, Failure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use domain::Time;
use std::time::Duration;

/// A time: RFC 3339, Unix seconds, or relative to `now`: `now`, `-1h`, `now-15m`, `now+5m`.
///
/// # Errors
/// [`Code::InvalidArguments`] says what is expected.
pub fn parse(text: &str, now: Time) -> Result<Time, Failure> {
    let trimmed = text.trim();
    let parsed = relative(trimmed, now)
        .or_else(|| unix_seconds(trimmed))
        .or_else(|| {
            let parsed = DateTime::parse_from_rfc3339(trimmed).ok()?;
            Some(parsed.with_timezone(&Utc))
        });
    // Years with more than four digits would be understood by nobody else.
    let sane = parsed.filter(|time| (0..=253_402_300_799).contains(&time.timestamp()));
    sane.ok_or_else(|| {
        let shown: String = trimmed.chars().take(40).collect();
        invalid(format!(
            "cannot read the time `{shown}`: write RFC 3339 (2026-11-02T15:04:05Z), Unix seconds, `now` or relative \
             to it (-15m, now-1h30m)"
        ))
    })
}

/// A duration: `90s`, `1h30m`, `2d`; `w` is a week, `y` 365 days, as PromQL has them.
///
/// # Errors
/// [`Code::InvalidArguments`] says what is expected.
pub fn duration(text: &str) -> Result<Duration, Failure> {
    span(text.trim()).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        invalid(format!(
            "cannot read the duration `{shown}`: write 30s, 5m, 1h30m or 7d"
        ))
    })
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidArguments, message)
}

fn relative(text: &str, now: Time) -> Option<Time> {
    let offset = text.strip_prefix("now").unwrap_or(text).trim();
    if offset.is_empty() {
        return (text == "now").then_some(now);
    }
    let back = offset.starts_with('-');
    let length = span(offset.strip_prefix(['-', '+'])?.trim_start())?;
    let length = TimeDelta::from_std(length).ok()?;
    if back {
        now.checked_sub_signed(length)
    } else {
        now.checked_add_signed(length)
    }
}

fn unix_seconds(text: &str) -> Option<Time> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.chars().all(digits) {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded; a fraction of a millisecond is nothing"
    )]
    let millis = (seconds < 1e12).then(|| (seconds * 1000.0).round() as i64)?;
    DateTime::from_timestamp_millis(millis)
}

fn span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let millis: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
    }
    (!text.is_empty() && total <= Duration::from_secs(1000 * 365 * 86_400)).then_some(total)
}

/// From when to when something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its first moment.
    pub start: Time,
    /// Its last.
    pub end: Time,
}

impl Range {
    /// From what a caller wrote. Without an end, up to `now`; without a start, `default` before the end.
    ///
    /// # Errors
    /// [`Code::InvalidArguments`] when one of them cannot be read, the end is not after the start, or they lie further
    /// apart than `longest`.
    pub fn parse(
        start: Option<&str>,
        end: Option<&str>,
        default: Duration,
        longest: Duration,
        now: Time,
    ) -> Result<Self, Failure> {
        let end = end.map_or(Ok(now), |end| parse(end, now))?;
        let start = match start {
            Some(start) => parse(start, now)?,
            None => end - default,
        };
        let range = Self { start, end };
        if range.length().is_zero() {
            return Err(invalid(format!(
                "the end, {}, is not after the start, {}",
                rfc3339(end),
                rfc3339(start)
            )));
        }
        if range.length() > longest {
            let days = longest.as_secs_f64() / 86_400.0;
            return Err(invalid(format!(
                "the range is longer than {days} days; ask for less"
            )));
        }
        Ok(range)
    }

    /// How long it is; nothing where it ends before it starts.
    pub fn length(&self) -> Duration {
        (self.end - self.start).to_std().unwrap_or_default()
    }

    /// As long, so much earlier.
    pub fn earlier(&self, by: Duration) -> Self {
        Self {
            start: self.start - by,
            end: self.end - by,
        }
    }
}

/// The step that gives a range about so many points, and not more: a round one.
pub fn step(range: &Range, points: u32) -> Duration {
    const ROUND: [u64; 20] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
        172_800, 604_800,
    ];
    let between = u64::from(points.max(2)) - 1;
    let least = range.length().as_secs().div_ceil(between).max(1);
    let round = ROUND.into_iter().find(|step| *step >= least);
    Duration::from_secs(round.unwrap_or_else(|| least.div_ceil(604_800) * 604_800))
}

/// `2026-11-02T15:04:05Z`
pub fn rfc3339(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Seconds since 1970 with milliseconds, as Prometheus wants them.
pub fn unix(time: Time) -> String {
    let millis = time.timestamp_millis();
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}

/// Microseconds since 1970, as Jaeger wants them.
pub fn micros(time: Time) -> String {
    time.timestamp_micros().to_string()
}

/// Nanoseconds since 1970, as Loki wants them.
pub fn nanos(time: Time) -> String {
    let nanos = time.timestamp_nanos_opt();
    nanos.map_or_else(|| i64::MAX.to_string(), |nanos| nanos.to_string())
}

/// `90s`, `2h`, `1h30m`: as short as it goes, in whole seconds.
pub fn short(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{}ms", duration.as_millis());
    }
    let mut text = String::new();
    for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        let count = seconds / length;
        seconds %= length;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Time {
        "2026-11-02T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn times_are_read_as_agents_write_them() {
        let read = |text| parse(text, now()).map(rfc3339);
        for (text, expected) in [
            ("now", "2026-11-02T12:00:00Z"),
            ("-1h", "2026-11-02T11:00:00Z"),
            ("now-15m", "2026-11-02T11:45:00Z"),
            ("now - 1h30m", "2026-11-02T10:30:00Z"),
            ("now+1d", "2026-11-03T12:00:00Z"),
            ("2026-11-02T13:00:00+01:00", "2026-11-02T12:00:00Z"),
            ("2026-11-02T12:00:00.5Z", "2026-11-02T12:00:00Z"),
            ("1793620800", "2026-11-02T12:00:00Z"),
            ("1793620800.250", "2026-11-02T12:00:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "1h",
            "yesterday",
            "now-",
            "now1h",
            "-1x",
            "--1h",
            "NaN",
            "1e9",
            "99999999999999999999",
            "-99999999999999999999y",
            "+292278994-01-01T00:00:00Z",
            "now-1h-é",
        ] {
            assert_eq!(
                read(text).map_err(|failure| failure.code),
                Err(Code::InvalidArguments),
                "{text}"
            );
        }
    }

    #[test]
    fn a_range_has_an_order_and_a_bound() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let read = |start, end| Range::parse(start, end, hour, day, now());
        assert_eq!(read(None, None).unwrap().length(), hour);
        assert_eq!(
            read(Some("-2h"), Some("-1h")).unwrap().earlier(hour).start,
            now() - hour * 3
        );
        assert!(read(Some("-1h"), Some("-2h")).is_err());
        assert!(read(Some("now"), None).is_err());
        assert!(read(Some("-25h"), None).unwrap_err().message.contains("1 days"));
    }

    #[test]
    fn steps_are_round_and_give_no_more_points_than_asked_for() {
        for (length, points, expected) in [
            (3600, 61, 60),
            (3600, 60, 120),
            (3600, 20, 300),
            (10, 60, 1),
            (86_400 * 30, 60, 43_200 * 2),
            (86_400 * 3650, 20, 604_800 * 28),
        ] {
            let range = Range {
                start: now() - Duration::from_secs(length),
                end: now(),
            };
            let step = step(&range, points).as_secs();
            assert_eq!(step, expected, "{length} {points}");
            assert!(length / step < u64::from(points));
        }
    }

    #[test]
    fn times_are_written_as_sources_want_them() {
        let time = now() + TimeDelta::milliseconds(7);
        assert_eq!(unix(time), "1793620800.007");
        assert_eq!(nanos(time), "1793620800007000000");
        assert_eq!(micros(time), "1793620800007000");
        assert_eq!(short(Duration::from_secs(5400)), "1h30m");
        assert_eq!(short(Duration::from_millis(250)), "250ms");
    }
}
