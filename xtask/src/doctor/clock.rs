//! The clocks: spans, lines and samples of hosts whose clocks differ cannot be put side by side.

use super::{
    Doctor,
    ask::{Answer, Ask},
    places::Part,
    probe::Probe,
    prometheus::query,
    report::{Found, Problem, Report},
    services::Services,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// In seconds. Less does not disturb anybody who compares a trace with a log.
const TOLD: f64 = 2.0;
/// In seconds. Beyond it, Prometheus refuses or misplaces samples, and tokens and deadlines go wrong.
const WRONG: f64 = 30.0;
/// An HTTP date holds whole seconds.
const SECOND: Duration = Duration::from_secs(1);

/// A clock and how far it is ahead of this host's, in seconds, at least.
type Reading = (String, f64);

/// Compares all that can be read.
pub(super) fn check(
    doctor: &Doctor<'_>,
    report: &mut Report,
    services: &Services,
    probe: Option<&Probe>,
    prometheus: bool,
) {
    let mut readings: Vec<Reading> = services
        .answers
        .iter()
        .filter_map(|(part, answer)| Some((part.name().to_owned(), dated(answer)?)))
        .collect();
    for (part, path) in [
        (Part::Loki, "/ready"),
        (Part::Jaeger, "/"),
        (Part::Alertmanager, "/-/ready"),
    ] {
        let place = doctor.places.of(part);
        if place.left_out().is_none()
            && let Ok(answer) = doctor.client.get(&Ask::of(&place.url, path))
        {
            readings.extend(dated(&answer).map(|ahead| (part.name().to_owned(), ahead)));
        }
    }
    if prometheus {
        let sent = SystemTime::now();
        let samples = query(doctor, "vector(time())").unwrap_or_default();
        let told = samples
            .first()
            .and_then(|(_, time)| Duration::try_from_secs_f64(*time).ok());
        let ahead = told.map(|time| ahead(UNIX_EPOCH + time, Duration::ZERO, sent, SystemTime::now()));
        readings.extend(ahead.map(|ahead| ("Prometheus".to_owned(), ahead)));
    }
    if let Some(probe) = probe {
        for (service, began) in &probe.spans {
            let ahead = ahead(*began, Duration::ZERO, probe.sent, probe.answered);
            readings.push((format!("spans of {service}"), ahead));
        }
    }
    for (check, found) in judge(&readings) {
        report.add(&check, found);
    }
}

/// How far the clock is ahead that an answer was dated by; nothing where it was not.
fn dated(answer: &Answer) -> Option<f64> {
    let date = httpdate::parse_http_date(answer.header("date")).ok()?;
    Some(ahead(date, SECOND, answer.sent, answer.came))
}

/// How far a clock that showed `read`, or up to `width` more, between two times of ours is ahead of ours, at least; in
/// seconds, negative when it is behind.
fn ahead(read: SystemTime, width: Duration, sent: SystemTime, came: SystemTime) -> f64 {
    if let Ok(ahead) = read.duration_since(came) {
        return ahead.as_secs_f64();
    }
    sent.duration_since(read + width)
        .map_or(0.0, |behind| -behind.as_secs_f64())
}

/// Judges the clocks: those that differ each, the others together.
fn judge(readings: &[Reading]) -> Vec<(String, Found)> {
    let (well, off): (Vec<&Reading>, Vec<&Reading>) =
        readings.iter().partition(|(_, ahead)| ahead.abs() <= TOLD);
    let mut found = Vec::new();
    if readings.is_empty() {
        found.push((
            "clocks".to_owned(),
            Found::NotChecked("nobody told the time".to_owned()),
        ));
    }
    if !well.is_empty() {
        let names: Vec<&str> = well.iter().map(|(name, _)| name.as_str()).collect();
        let told = format!("within {TOLD} s of this host's: {}", names.join(", "));
        found.push(("clocks".to_owned(), Found::Ok(told)));
    }
    // When all differ, it is this one that is wrong.
    let whose = if well.is_empty() && off.len() > 1 {
        "this host's, for all others differ from it"
    } else {
        "that host's"
    };
    for (name, ahead) in off {
        let way = if *ahead > 0.0 { "ahead of" } else { "behind" };
        let problem = Problem::new(
            &format!("the time of {name}"),
            &format!("{:.1} s {way} this host's", ahead.abs()),
            "clocks differ: traces, logs and metrics do not fit together in time",
            &format!(
                "set {whose} clock by NTP (`timedatectl set-ntp true`; `chronyc tracking` shows the difference)"
            ),
        );
        let finding = if ahead.abs() > WRONG {
            Found::Failed(problem)
        } else {
            Found::Warning(problem)
        };
        found.push((format!("clock of {name}"), finding));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn what_may_be_the_width_of_a_date_or_the_way_is_no_skew() {
        let skew = |date, sent, came| ahead(at(date), SECOND, at(sent), at(came));
        assert_eq!(skew(10_000, 10_100, 10_200), 0.0);
        assert_eq!(skew(10_000, 9_000, 14_000), 0.0);
        assert_eq!(skew(15_000, 9_900, 10_000), 5.0);
        assert_eq!(skew(4_000, 10_000, 10_100), -5.0);
    }

    #[test]
    fn a_clock_that_differs_is_told_and_one_that_differs_much_is_wrong() {
        let readings = [("a", 0.0), ("b", -3.0), ("c", 45.0)].map(|(name, ahead)| (name.to_owned(), ahead));
        let found = judge(&readings);
        assert!(matches!(&found[0].1, Found::Ok(text) if text.ends_with(": a")));
        assert!(matches!(&found[1].1, Found::Warning(problem) if problem.came == "3.0 s behind this host's"));
        assert!(matches!(&found[2].1, Found::Failed(problem) if problem.remedy.contains("that host's")));
        let all = judge(&readings[1..]);
        assert!(matches!(&all[1].1, Found::Failed(problem) if problem.remedy.contains("this host's,")));
        assert!(matches!(&judge(&[])[0].1, Found::NotChecked(_)));
    }
}
