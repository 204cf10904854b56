//! Five-field cron expressions, by the clock of a time zone.

use crate::{Invalid, Time};
use chrono::{
    DateTime, Datelike as _, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _,
    Timelike as _, Utc,
};
use chrono_tz::Tz;
use std::ops::RangeInclusive;

/// The longest expression, bytes.
const MAX_BYTES: usize = 256;
/// How many days ahead a time is looked for: what comes on a 29 February and a certain weekday comes within these.
const MAX_DAYS: usize = 12_000;
/// How long a zone's clock may stand: a day, where the date line moved, and a little.
const MAX_GAP_MINUTES: i64 = 26 * 60;

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A cron expression: minute, hour, day of the month, month, day of the week.
///
/// A field is `*`, a number, a name (`JAN`, `MON`), a range `a-b`, a step `*/n`, `a-b/n` or `a/n`, or a list of these.
/// The week's days are 0 to 7, Sunday both. When both days are restricted, either suffices. `@hourly`, `@daily`,
/// `@weekly`, `@monthly` and `@yearly` stand for what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both days are restricted.
    either_day: bool,
    /// The hour is `*` or a step of it: the expression means an interval rather than times of the day.
    interval: bool,
}

impl std::str::FromStr for Cron {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        parse(text).map_err(|expected| Invalid::new("cron", expected))
    }
}

fn parse(text: &str) -> Result<Cron, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("at most {MAX_BYTES} bytes"));
    }
    let text = match text.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        text => text,
    };
    let fields: Vec<_> = text.split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err("five fields: minute, hour, day of the month, month, day of the week".to_owned());
    };
    let weekdays = field("day of the week", weekday, 0..=7, &WEEKDAYS, 0)?;
    Ok(Cron {
        minutes: field("minute", minute, 0..=59, &[], 0)?,
        hours: field("hour", hour, 0..=23, &[], 0)?,
        days: field("day of the month", day, 1..=31, &[], 0)?,
        months: field("month", month, 1..=12, &MONTHS, 1)?,
        // Sunday is 0 and 7.
        weekdays: (weekdays | weekdays >> 7) & 0x7f,
        either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        interval: hour.starts_with('*'),
    })
}

/// The bits of a field's values; `first` is what the first of the names stands for.
fn field(
    what: &str,
    text: &str,
    range: RangeInclusive<u32>,
    names: &[&str],
    first: u32,
) -> Result<u64, String> {
    let wrong = || {
        let (low, high) = (range.start(), range.end());
        format!("{what}: '*', {low} to {high}, a range, a step or a list of these")
    };
    let value = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(at) => u32::try_from(at).ok().map(|at| at + first),
            None => Some(text)
                .filter(|text| text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse().ok()),
        };
        value.filter(|value| range.contains(value)).ok_or_else(wrong)
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (span, step) = match part.split_once('/') {
            Some((span, step)) => (span, Some(step.parse::<usize>().map_err(|_| wrong())?)),
            None => (part, None),
        };
        let (low, high) = match span.split_once('-') {
            Some((low, high)) => (value(low)?, value(high)?),
            None if span == "*" => (*range.start(), *range.end()),
            None if step.is_some() => (value(span)?, *range.end()),
            None => (value(span)?, value(span)?),
        };
        if low > high || step == Some(0) {
            return Err(wrong());
        }
        for value in (low..=high).step_by(step.unwrap_or(1)) {
            bits |= 1 << value;
        }
    }
    Ok(bits)
}

fn has(bits: u64, value: u32) -> bool {
    bits & (1 << value) != 0
}

impl Cron {
    fn on_day(&self, date: NaiveDate) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().num_days_from_sunday());
        has(self.months, date.month())
            && if self.either_day {
                day || weekday
            } else {
                day && weekday
            }
    }

    fn at(&self, time: NaiveTime) -> bool {
        has(self.hours, time.hour()) && has(self.minutes, time.minute())
    }
}

/// A cron expression by the clock of a time zone.
///
/// When the clock is put forward, a time of the day that does not come is made up for right after the gap; when it is
/// put back, a time that comes twice is taken once, the first time. An expression whose hour is `*` or a step of it
/// means an interval: it follows the hours that really pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

impl Timetable {
    /// From a cron expression and a time zone's IANA name.
    ///
    /// # Errors
    /// When either is none, or the time never comes.
    pub fn parse(cron: &str, timezone: &str) -> Result<Self, Invalid> {
        let zone = timezone
            .parse()
            .map_err(|_| Invalid::new("timezone", "an IANA time zone, e.g. Europe/Berlin or UTC"))?;
        let table = Self {
            cron: cron.parse()?,
            zone,
        };
        match table.next(DateTime::UNIX_EPOCH + TimeDelta::days(20_000)) {
            Some(_) => Ok(table),
            None => Err(Invalid::new("cron", "a time that ever comes")),
        }
    }

    /// The first time after `after`.
    pub fn next(&self, after: Time) -> Option<Time> {
        if self.cron.interval {
            self.next_of_interval(after)
        } else {
            self.next_time_of_day(after)
        }
    }

    /// The next times after `after`, at most `count`.
    pub fn upcoming(&self, after: Time, count: usize) -> Vec<Time> {
        std::iter::successors(self.next(after), |time| self.next(*time))
            .take(count)
            .collect()
    }

    /// Goes through the clock's times and takes the first that really comes after `after`.
    fn next_time_of_day(&self, after: Time) -> Option<Time> {
        let local = after.with_timezone(&self.zone).naive_local();
        let mut date = local.date();
        if !self.cron.on_day(date) {
            date = self.next_day(date)?;
        }
        loop {
            for hour in (0..24).filter(|hour| has(self.cron.hours, *hour)) {
                for minute in (0..60).filter(|minute| has(self.cron.minutes, *minute)) {
                    let shown = date.and_hms_opt(hour, minute, 0)?;
                    // What the clock has shown has been, if only the first time.
                    if shown > local
                        && let Some(time) = self.really(shown).filter(|time| *time > after)
                    {
                        return Some(time);
                    }
                }
            }
            date = self.next_day(date)?;
        }
    }

    /// Goes through the minutes that really pass.
    fn next_of_interval(&self, after: Time) -> Option<Time> {
        let seconds = after.timestamp().div_euclid(60) * 60 + 60;
        let mut time = DateTime::from_timestamp(seconds, 0)?;
        loop {
            let local = time.with_timezone(&self.zone).naive_local();
            if !self.cron.on_day(local.date()) {
                let midnight = self.next_day(local.date())?.and_time(NaiveTime::MIN);
                let midnight = self.really(midnight)?;
                time = midnight.max(time + TimeDelta::minutes(1));
            } else if self.cron.at(local.time()) {
                return Some(time);
            } else {
                time += TimeDelta::minutes(1);
            }
        }
    }

    /// The first day after `date` on which it runs.
    fn next_day(&self, date: NaiveDate) -> Option<NaiveDate> {
        date.iter_days()
            .skip(1)
            .take(MAX_DAYS)
            .find(|date| self.cron.on_day(*date))
    }

    /// When the zone's clock shows `local`: the first time, if it does twice, and the first moment after the gap, if
    /// it never does.
    fn really(&self, local: NaiveDateTime) -> Option<Time> {
        (0..=MAX_GAP_MINUTES).find_map(|later| {
            match self
                .zone
                .from_local_datetime(&(local + TimeDelta::minutes(later)))
            {
                MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => {
                    Some(time.with_timezone(&Utc))
                }
                MappedLocalTime::None => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upcoming(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let table = Timetable::parse(cron, zone).unwrap_or_else(|e| panic!("{cron}: {e}"));
        let times = table.upcoming(after.parse().expect("RFC 3339"), count);
        times
            .iter()
            .map(|time| time.format("%m-%dT%H:%M").to_string())
            .collect()
    }

    #[test]
    fn expressions_mean_what_cron_says() {
        // 1 March 2026 is a Sunday.
        for (cron, expected) in [
            ("* * * * *", ["03-01T00:01", "03-01T00:02"]),
            ("*/20 * * * *", ["03-01T00:20", "03-01T00:40"]),
            ("5/25 1-3/2 * * *", ["03-01T01:05", "03-01T01:30"]),
            ("0 9 * * MON-FRI", ["03-02T09:00", "03-03T09:00"]),
            ("0 9 * * 7", ["03-01T09:00", "03-08T09:00"]),
            ("0 9 * * 5-7", ["03-01T09:00", "03-06T09:00"]),
            ("30 4 1,15 * *", ["03-01T04:30", "03-15T04:30"]),
            ("0 0 13 * FRI", ["03-06T00:00", "03-13T00:00"]),
            ("0 0 31 * *", ["03-31T00:00", "05-31T00:00"]),
            ("0 12 * feb,dec *", ["12-01T12:00", "12-02T12:00"]),
            ("@daily", ["03-02T00:00", "03-03T00:00"]),
            ("@hourly", ["03-01T01:00", "03-01T02:00"]),
        ] {
            assert_eq!(
                upcoming(cron, "UTC", "2026-03-01T00:00:30Z", 2),
                expected,
                "{cron}"
            );
        }
        assert_eq!(
            upcoming("0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", 1),
            ["02-29T00:00"]
        );
    }

    #[test]
    fn what_is_no_cron_or_never_comes_is_refused() {
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "*/x * * * *",
            "a * * * *",
            "-1 * * * *",
            "1,, * * * *",
            "1--2 * * * *",
            "+1 * * * *",
            "0 0 31 2 *",
            "@reboot",
            "🦀 * * * *",
            "*/99999999999999999999999 * * * *",
        ] {
            let error = Timetable::parse(bad, "UTC").expect_err(bad);
            assert_eq!(error.field, "cron", "{bad}");
        }
        assert!(Timetable::parse(&"1,".repeat(200), "UTC").is_err());
        assert_eq!(
            Timetable::parse("* * * * *", "Mars/Olympus").unwrap_err().field,
            "timezone"
        );
    }

    /// Berlin, 29 March 2026: 02:00 becomes 03:00, which is 01:00 UTC.
    #[test]
    fn a_time_that_the_clock_leaves_out_is_made_up_for() {
        let berlin = |cron, count| upcoming(cron, "Europe/Berlin", "2026-03-28T23:30:00Z", count);
        assert_eq!(berlin("30 2 * * *", 2), ["03-29T01:00", "03-30T00:30"]);
        // Two times in the gap are one run, and 03:00 is the same one.
        assert_eq!(
            berlin("*/30 2,3 * * *", 3),
            ["03-29T01:00", "03-29T01:30", "03-30T00:00"]
        );
        assert_eq!(
            berlin("30 * * * *", 3),
            ["03-29T00:30", "03-29T01:30", "03-29T02:30"]
        );
    }

    /// Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC.
    #[test]
    fn a_time_that_comes_twice_is_taken_once_but_an_interval_goes_on() {
        let berlin = |cron, count| upcoming(cron, "Europe/Berlin", "2026-10-24T23:45:00Z", count);
        assert_eq!(berlin("30 2 * * *", 2), ["10-25T00:30", "10-26T01:30"]);
        assert_eq!(
            berlin("30 * * * *", 3),
            ["10-25T00:30", "10-25T01:30", "10-25T02:30"]
        );
        // In the midst of the second time.
        assert_eq!(
            upcoming("45 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", 1),
            ["10-26T01:45"]
        );
    }

    #[test]
    fn clocks_may_move_by_half_an_hour_or_a_day() {
        // Lord Howe, 5 April 2026: 02:00 becomes 01:30 at 15:00 UTC on the 4th.
        let lord_howe = upcoming("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T13:00:00Z", 2);
        assert_eq!(lord_howe, ["04-04T14:45", "04-05T15:15"]);
        // Samoa left 30 December 2011 out.
        let apia = upcoming("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3);
        assert_eq!(apia, ["12-29T22:00", "12-30T10:00", "12-30T22:00"]);
    }
}
