//! From figures to a verdict: every reason is told, and the gravest one decides.

use super::{
    firing::Alert,
    requests::{Family, Red, Routes},
    saturation::Saturation,
    slos::{Slo, State},
    words,
};
use std::collections::BTreeMap;

/// Fewer requests than these in five minutes say nothing of how long they take.
const FEW: f64 = 10.0;
/// How many times slower than before is told of.
const SLOWER: f64 = 2.0;
/// Differences below this many seconds are not told of.
const NOTICEABLE: f64 = 0.1;

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Verdict {
    /// Nothing is known of it.
    Unknown,
    /// Nothing is wrong with it.
    Healthy,
    /// Something is wrong with it.
    Degraded,
    /// It does not do what it is for.
    Failing,
}

impl Verdict {
    /// The word in answers.
    pub(in super::super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// What a kind of requests is like now, an hour before, and at this time a week before.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Compared {
    /// Now.
    pub(in super::super) now: Red,
    /// An hour before.
    pub(in super::super) hour: Red,
    /// A week before.
    pub(in super::super) week: Red,
}

/// Reasons, each with what it makes of a service.
#[derive(Debug, Default)]
pub(in super::super) struct Reasons(Vec<(Verdict, String)>);

impl Reasons {
    fn add(&mut self, verdict: Verdict, reason: String) {
        self.0.push((verdict, reason));
    }

    /// Of requests of one kind.
    pub(in super::super) fn requests(&mut self, family: &Family, compared: &Compared, routes: &Routes) {
        let Compared { now, hour, week } = compared;
        let kind = words::kind(family.kind);
        let rate = now.rate.unwrap_or_default();
        let asked = rate * 300.0;
        if let Some(errors) = now.errors.filter(|errors| errors * asked >= 3.0) {
            let before = week.errors.or(hour.errors).unwrap_or_default();
            let verdict = match family.failing_at {
                Some(bound) if errors > bound => Some(Verdict::Failing),
                Some(bound) => {
                    (errors > bound / 5.0 && errors > SLOWER * before).then_some(Verdict::Degraded)
                }
                // Where the fault may be another's, only what has become worse says something.
                None => (errors > 0.1 && errors > SLOWER * before).then_some(Verdict::Degraded),
            };
            if let Some(verdict) = verdict {
                let most = routes.worst(family.kind, false);
                let most = most.map_or(String::new(), |route| format!(", most of them {route}"));
                let before = past(hour.errors.map(words::percent), week.errors.map(words::percent));
                self.add(
                    verdict,
                    format!("{} of the {kind} fail{before}{most}", words::percent(errors)),
                );
            }
        }
        self.durations(family, compared, routes, asked);
        let usual = hour
            .rate
            .filter(|hour| week.rate.is_none_or(|week| week > hour * 0.5));
        if let Some(usual) = usual.filter(|usual| *usual > 0.1 && rate < usual * 0.2) {
            let (rate, usual) = (words::short(rate), words::short(usual));
            self.add(
                Verdict::Degraded,
                format!("only {rate} {kind} a second come in, {usual} an hour before"),
            );
        }
    }

    fn durations(&mut self, family: &Family, compared: &Compared, routes: &Routes, asked: f64) {
        let Compared { now, hour, week } = compared;
        let (Some(p95), true) = (now.p95, asked >= FEW) else {
            return;
        };
        let usual = week.p95.or(hour.p95);
        let is_slower = usual.is_some_and(|usual| p95 > SLOWER * usual && p95 - usual > NOTICEABLE);
        let is_slow = family.failing_at.is_some() && now.p99.is_some_and(|p99| p99 > 1.0);
        if is_slower || is_slow {
            let before = past(hour.p95.map(words::seconds), week.p95.map(words::seconds));
            let slowest = routes.worst(family.kind, true);
            let slowest = slowest.map_or(String::new(), |route| format!(", slowest {route}"));
            let kind = words::kind(family.kind);
            let p99 = now
                .p99
                .map_or(String::new(), |p99| format!(", p99 {}", words::seconds(p99)));
            let p95 = words::seconds(p95);
            self.add(
                Verdict::Degraded,
                format!("{kind} are slow: p95 {p95}{p99}{before}{slowest}"),
            );
        }
    }

    /// Of replicas, of what they depend on, and of the room they have.
    pub(in super::super) fn saturation(&mut self, saturation: &Saturation) {
        if let Some((up, of)) = saturation.replicas().filter(|(up, of)| up < of) {
            let verdict = if up == 0.0 {
                Verdict::Failing
            } else {
                Verdict::Degraded
            };
            self.add(
                verdict,
                format!("{} of {} replicas are up", words::short(up), words::short(of)),
            );
        }
        let down = saturation.dependencies_down();
        if !down.is_empty() {
            self.add(
                Verdict::Degraded,
                format!("it does not reach {}", down.join(", ")),
            );
        }
        for complaint in saturation.complaints() {
            self.add(Verdict::Degraded, complaint);
        }
    }

    /// Of alerts that fire, each name once.
    pub(in super::super) fn alerts(&mut self, alerts: &[Alert]) {
        let mut told: Vec<&str> = Vec::new();
        for alert in alerts.iter().filter(|alert| alert.is_firing()) {
            let verdict = match alert.label("severity") {
                "none" | "info" => continue,
                "critical" | "page" => Verdict::Failing,
                _ => Verdict::Degraded,
            };
            if !told.contains(&alert.name()) {
                told.push(alert.name());
                let severity = alert.label("severity");
                self.add(verdict, format!("{} fires ({severity})", alert.name()));
            }
        }
    }

    /// Of error budgets that burn too fast.
    pub(in super::super) fn slos(&mut self, slos: &BTreeMap<String, Slo>, service: &str) {
        for (name, slo) in slos {
            for budget in slo.budgets.iter().filter(|budget| budget.service == service) {
                let (state, windows) = budget.state();
                let verdict = match state {
                    State::Ok => continue,
                    State::Ticket => Verdict::Degraded,
                    State::Page => Verdict::Failing,
                };
                let windows =
                    windows.map_or(String::new(), |(short, long)| format!(" over {short} and {long}"));
                let left = budget.left.map_or(String::new(), |left| match left {
                    left if left <= 0.0 => ", nothing of it is left".to_owned(),
                    left => format!(", {} of it is left", words::percent(left)),
                });
                let rate = words::short(budget.told_rate());
                self.add(
                    verdict,
                    format!("the budget of {name} burns {rate} times too fast{windows}{left}"),
                );
            }
        }
    }

    /// The verdict, where anything `is_known`, and the reasons, gravest first.
    pub(in super::super) fn decide(mut self, is_known: bool) -> (Verdict, Vec<String>) {
        self.0.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
        let gravest = self.0.first().map(|(verdict, _)| *verdict);
        let otherwise = if is_known {
            Verdict::Healthy
        } else {
            Verdict::Unknown
        };
        let reasons = self.0.into_iter().map(|(_, reason)| reason).collect();
        (gravest.unwrap_or(otherwise), reasons)
    }
}

/// ` (34 ms an hour before, 31 ms a week before)`
fn past(hour: Option<String>, week: Option<String>) -> String {
    let hour = hour.map(|hour| format!("{hour} an hour before"));
    let week = week.map(|week| format!("{week} a week before"));
    let told: Vec<String> = [hour, week].into_iter().flatten().collect();
    if told.is_empty() {
        String::new()
    } else {
        format!(" ({})", told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::requests::FAMILIES, *};

    fn red(rate: f64, errors: f64, p95: f64) -> Red {
        Red {
            rate: Some(rate),
            errors: Some(errors),
            p50: Some(p95 / 3.0),
            p95: Some(p95),
            p99: Some(p95 * 1.5),
        }
    }

    /// Of a family, from now, an hour before and a week before.
    fn judged(kind: &str, now: Red, hour: Red, week: Red) -> (Verdict, Vec<String>) {
        let family = FAMILIES.iter().find(|family| family.kind == kind).unwrap();
        let mut reasons = Reasons::default();
        reasons.requests(family, &Compared { now, hour, week }, &Routes::default());
        reasons.decide(true)
    }

    #[test]
    fn what_is_as_ever_is_healthy() {
        let usual = red(10.0, 0.001, 0.05);
        assert_eq!(judged("http", usual, usual, usual).0, Verdict::Healthy);
        // Twice nothing is nothing; nor do three slow requests tell anything, at an hour when few come.
        assert_eq!(
            judged("http", red(10.0, 0.001, 0.09), usual, usual).0,
            Verdict::Healthy
        );
        let few = red(0.01, 0.0, 0.5);
        assert_eq!(
            judged("http", few, usual, red(0.02, 0.0, 0.1)).0,
            Verdict::Healthy
        );
        assert_eq!(
            judged("http", few, usual, usual).1,
            ["only 0.01 HTTP requests a second come in, 10 an hour before"]
        );
    }

    #[test]
    fn failures_decide_by_their_share_and_by_whose_they_may_be() {
        let usual = red(10.0, 0.001, 0.05);
        let failing = red(10.0, 0.2, 0.05);
        let (verdict, reasons) = judged("http", failing, usual, usual);
        assert_eq!(verdict, Verdict::Failing);
        assert_eq!(
            reasons,
            ["20% of the HTTP requests fail (0.1% an hour before, 0.1% a week before)"]
        );
        assert_eq!(
            judged("http", red(10.0, 0.02, 0.05), usual, usual).0,
            Verdict::Degraded
        );
        assert_eq!(judged("tool_runs", failing, usual, usual).0, Verdict::Degraded);
        assert_eq!(judged("tool_runs", failing, failing, failing).0, Verdict::Healthy);
    }

    #[test]
    fn slowness_is_against_the_week_where_that_is_known() {
        let (usual, slow) = (red(10.0, 0.0, 0.2), red(10.0, 0.0, 4.8));
        let (verdict, reasons) = judged("mcp_tool_calls", slow, slow, usual);
        assert_eq!(verdict, Verdict::Degraded);
        assert_eq!(
            reasons,
            ["MCP tool calls are slow: p95 4.8 s, p99 7.2 s (4.8 s an hour before, 200 ms a week before)"]
        );
        assert_eq!(judged("mcp_tool_calls", slow, usual, slow).0, Verdict::Healthy);
        assert_eq!(
            judged("mcp_tool_calls", slow, usual, Red::default()).0,
            Verdict::Degraded
        );
        // A service's own answers must be quick whatever they were.
        assert_eq!(judged("http", slow, slow, slow).0, Verdict::Degraded);
    }

    #[test]
    fn nothing_known_is_no_health() {
        assert_eq!(Reasons::default().decide(false).0, Verdict::Unknown);
        assert_eq!(Verdict::Unknown.as_str(), "unknown");
    }
}
