//! Alertmanager: an alert would reach somebody, and somebody would notice if none could.

use super::{
    Doctor,
    ask::{Answer, Ask, Failed, wait},
    places::Part,
    prometheus::{Shipped, items, query, some, text},
    report::{Found, Problem, Report},
    route::{Matcher, receivers, ways},
};
use serde_json::Value;
use std::time::Duration;

/// Prometheus evaluates the Watchdog a while after its start, and tells anew of what fires each minute: an Alertmanager
/// that was not there at first hears of it then.
const HEARD: Duration = Duration::from_secs(75);
const NOT_FIRED: &str = "docs/runbooks/troubleshooting/AlertDidNotFire.md";
/// Where nobody is told on purpose.
const AT_HOME: [&str; 3] = ["development", "local", "test"];
/// The receiver that is DevOps MCP itself.
const AGENTS: &str = "agents";
const FAILING: &str = "sum by (integration) (increase(alertmanager_notifications_failed_total[2m])) > 0";

/// Looks at it; `prometheus` may be asked, too.
pub(super) fn check(doctor: &Doctor<'_>, report: &mut Report, shipped: &Shipped, prometheus: bool) {
    let place = doctor.places.of(Part::Alertmanager);
    if let Some(reason) = place.left_out() {
        report.skip("Alertmanager", reason);
        return;
    }
    let status = doctor.client.json(&Ask::of(&place.url, "/api/v2/status"));
    let status = match status {
        Ok(status) => status,
        Err(failed) => {
            let problem = Problem::of(
                &failed,
                "Alertmanager does not answer: alerts fire, and nobody is told",
                "docker compose -p devops-mcp start alertmanager; docs/runbooks/AlertmanagerMissing.md",
            );
            report.add("Alertmanager", place.missed(&failed, problem));
            return;
        }
    };
    report.ok("Alertmanager", "it answers");
    let alerts = alerts(doctor, prometheus);
    let environment = environment(alerts.as_deref().unwrap_or_default());
    let environment = environment.or_else(|| prometheus.then(|| configured_environment(doctor)).flatten());
    let is_home = environment.is_some_and(|name| AT_HOME.contains(&name.as_str()));
    match yaml(&status["config"]["original"]) {
        Some(config) => {
            report.add("route of critical", critical_route(&config, is_home));
            report.add("dead man's switch", dead_man_route(&config, is_home));
        }
        None => report.skip(
            "route of critical",
            "Alertmanager does not show its configuration",
        ),
    }
    match &alerts {
        Ok(alerts) => {
            report.add("Watchdog", watchdog(alerts, doctor, prometheus));
            firing(report, alerts);
        }
        Err(failed) => report.fail("Watchdog", broken(failed)),
    }
    silences(doctor, report, shipped);
    notifications(doctor, report, prometheus);
}

fn broken(failed: &Failed) -> Problem {
    Problem::of(
        failed,
        "Alertmanager does not answer as it should",
        "docker compose -p devops-mcp logs --tail 50 alertmanager",
    )
}

/// A configuration as it is shown; secrets are masked in it.
fn yaml(text: &Value) -> Option<Value> {
    let yaml: yaml_serde::Value = yaml_serde::from_str(text.as_str()?).ok()?;
    serde_json::to_value(yaml).ok()
}

/// What it holds; while Prometheus is there, the Watchdog is waited for.
fn alerts(doctor: &Doctor<'_>, prometheus: bool) -> Result<Vec<Value>, Failed> {
    let limit = if prometheus { HEARD } else { Duration::ZERO };
    let ask = Ask::of(&doctor.places.of(Part::Alertmanager).url, "/api/v2/alerts");
    let heard = wait(limit, || {
        let alerts = doctor
            .client
            .get(&ask)
            .and_then(Answer::ok)
            .and_then(|answer| answer.json());
        match alerts {
            Ok(Value::Array(alerts)) if find(&alerts).is_some() => Ok(Ok(alerts)),
            Ok(alerts) => Err(items(&alerts).cloned().collect()),
            Err(failed) => Ok(Err(failed)),
        }
    });
    heard.unwrap_or_else(Ok)
}

/// Whether Prometheus fires the Watchdog.
fn fires(doctor: &Doctor<'_>) -> Result<bool, Failed> {
    let samples = query(doctor, "ALERTS{alertname=\"Watchdog\", alertstate=\"firing\"}")?;
    Ok(!samples.is_empty())
}

fn find(alerts: &[Value]) -> Option<&Value> {
    alerts
        .iter()
        .find(|alert| alert["labels"]["alertname"] == "Watchdog")
}

/// Where this runs, as the Watchdog's labels say.
fn environment(alerts: &[Value]) -> Option<String> {
    Some(text(&find(alerts)?["labels"]["environment"]))
}

/// The same, as Prometheus is configured.
fn configured_environment(doctor: &Doctor<'_>) -> Option<String> {
    let url = &doctor.places.of(Part::Prometheus).url;
    let answer = doctor.client.json(&Ask::of(url, "/api/v1/status/config")).ok()?;
    let config = yaml(&answer["data"]["yaml"])?;
    Some(text(&config["global"]["external_labels"]["environment"]))
}

/// A way that leads to nobody: wrong in production, as it is meant on a desk.
fn to_nobody(problem: Problem, is_home: bool) -> Found {
    if is_home {
        Found::Warning(problem)
    } else {
        Found::Failed(problem)
    }
}

/// Judges whom an alert of severity critical would reach.
fn critical_route(config: &Value, is_home: bool) -> Found {
    let labels = [
        ("alertname", "HighErrorRate"),
        ("severity", "critical"),
        ("service", "rest-api"),
    ];
    let whom = receivers(config, &labels);
    let told: Vec<String> = whom
        .iter()
        .map(|name| format!("{name} ({})", ways(config, name).join(", ")))
        .collect();
    // Agents do what they can; who answers for it is a person.
    let mut people = whom.iter().filter(|name| *name != AGENTS);
    if people.any(|name| !ways(config, name).is_empty()) {
        return Found::Ok(format!("reaches {}", told.join(", ")));
    }
    let problem = Problem::new(
        "the route of {alertname=\"HighErrorRate\", severity=\"critical\", service=\"rest-api\"}",
        &format!("receiver {}, which has nothing configured", whom.join(", ")),
        "a critical alert reaches nobody",
        &format!(
            "put the real addresses into deploy/secrets (slack_webhook_url, pagerduty_routing_key) and run `cargo xtask \
             stack up` again; {NOT_FIRED}"
        ),
    );
    to_nobody(problem, is_home)
}

/// Judges who would notice when no alert can come any more.
fn dead_man_route(config: &Value, is_home: bool) -> Found {
    let whom = receivers(config, &[("alertname", "Watchdog"), ("severity", "none")]);
    let ways: Vec<String> = whom.iter().flat_map(|name| ways(config, name)).collect();
    if !ways.is_empty() {
        return Found::Ok(format!(
            "Watchdog goes to {} ({})",
            whom.join(", "),
            ways.join(", ")
        ));
    }
    let problem = Problem::new(
        "the route of {alertname=\"Watchdog\", severity=\"none\"}",
        &format!("receiver {}, which has nothing configured", whom.join(", ")),
        "nobody notices when Prometheus or Alertmanager themselves are down",
        "put the address of a dead man's switch into deploy/secrets/dead_man_url and run `cargo xtask stack up` again; \
         docs/runbooks/Watchdog.md",
    );
    to_nobody(problem, is_home)
}

/// Judges whether what always fires arrived.
fn watchdog(alerts: &[Value], doctor: &Doctor<'_>, prometheus: bool) -> Found {
    let fires = match prometheus.then(|| fires(doctor)) {
        Some(Ok(fires)) => Some(fires),
        Some(Err(_)) | None => None,
    };
    alarm(find(alerts), fires)
}

fn alarm(held: Option<&Value>, fires: Option<bool>) -> Found {
    match (held, fires) {
        (Some(alert), _) => {
            let whom: Vec<String> = items(&alert["receivers"]).map(|one| text(&one["name"])).collect();
            Found::Ok(format!(
                "fires, and Alertmanager passes it on to {}",
                whom.join(", ")
            ))
        }
        (None, Some(false)) => Found::Failed(Problem::new(
            "Prometheus, ALERTS{alertname=\"Watchdog\"}",
            "it does not fire",
            "the alert that always fires does not: no other would, either",
            &format!("are the rules loaded and evaluated? docs/runbooks/Watchdog.md, {NOT_FIRED}"),
        )),
        (None, Some(true)) => Found::Failed(Problem::new(
            "Alertmanager, /api/v2/alerts",
            "no Watchdog, though it fires in Prometheus",
            "alerts do not get from Prometheus to Alertmanager",
            "does Prometheus reach it (`alerting:`, `prometheus_notifications_errors_total`)? docs/runbooks/AlertmanagerMissing.md",
        )),
        (None, None) => Found::Failed(Problem::new(
            "Alertmanager, /api/v2/alerts",
            "no Watchdog",
            "Alertmanager does not hear of the alert that always fires",
            "is Prometheus up? docs/runbooks/Watchdog.md",
        )),
    }
}

/// What somebody is being woken for now.
fn firing(report: &mut Report, alerts: &[Value]) {
    let critical = alerts
        .iter()
        .filter(|alert| alert["labels"]["severity"] == "critical" && alert["status"]["state"] == "active");
    let names: Vec<String> = critical
        .map(|alert| {
            format!(
                "{} of {}",
                text(&alert["labels"]["alertname"]),
                text(&alert["labels"]["service"])
            )
        })
        .collect();
    if !names.is_empty() {
        report.note(
            "firing now",
            format!("{}: each has its page in docs/runbooks", some(&names)),
        );
    }
}

fn silences(doctor: &Doctor<'_>, report: &mut Report, shipped: &Shipped) {
    let ask = Ask::of(&doctor.places.of(Part::Alertmanager).url, "/api/v2/silences");
    let found = match doctor.client.json(&ask) {
        Ok(all) => silenced(&all, &shipped.alerts.iter().cloned().collect::<Vec<_>>()),
        Err(failed) => Found::Failed(broken(&failed)),
    };
    report.add("silences", found);
}

/// Judges what is silenced: critical alerts, and the Watchdog.
fn silenced(all: &Value, alerts: &[(String, String)]) -> Found {
    let (mut active, mut told) = (0, Vec::new());
    for silence in items(all).filter(|silence| silence["status"]["state"] == "active") {
        active += 1;
        let matchers: Vec<Matcher> = items(&silence["matchers"])
            .map(|one| Matcher {
                name: text(&one["name"]),
                value: text(&one["value"]),
                is_regex: one["isRegex"] == true,
                is_equal: one["isEqual"] != false,
            })
            .collect();
        let hidden: Vec<String> = alerts
            .iter()
            .filter(|(name, severity)| severity == "critical" || name == "Watchdog")
            .filter(|(name, severity)| hides(&matchers, name, severity))
            .map(|(name, _)| name.clone())
            .collect();
        if !hidden.is_empty() {
            told.push(format!(
                "{} until {} by {} (\"{}\")",
                some(&hidden),
                text(&silence["endsAt"]),
                text(&silence["createdBy"]),
                text(&silence["comment"])
            ));
        }
    }
    match (active, told.is_empty()) {
        (0, _) => Found::Ok("none".to_owned()),
        (_, true) => Found::Ok(format!("{active}, none of a critical alert")),
        (_, false) => Found::Warning(Problem::new(
            "Alertmanager, /api/v2/silences",
            &told.join("\n"),
            "critical alerts are silenced: nobody is told of them",
            "when that is over: `amtool --alertmanager.url=$ALERTMANAGER_URL silence query`, then `… silence expire ID`",
        )),
    }
}

/// Whether an alert can be hidden by them: what they ask of labels that only a firing alert has may hold.
fn hides(matchers: &[Matcher], name: &str, severity: &str) -> bool {
    let labels = [("alertname", name), ("severity", severity)];
    let known = |matcher: &&Matcher| labels.iter().any(|(label, _)| *label == matcher.name);
    matchers
        .iter()
        .filter(known)
        .all(|matcher| matcher.fits(&labels) != Some(false))
}

fn notifications(doctor: &Doctor<'_>, report: &mut Report, prometheus: bool) {
    if !prometheus {
        report.skip("notifications", "Prometheus counts them, and cannot be asked");
        return;
    }
    let found = match query(doctor, FAILING) {
        Ok(samples) => delivered(&samples),
        Err(failed) => Found::Failed(broken(&failed)),
    };
    report.add("notifications", found);
}

/// Judges the notifications that failed, by the way they take.
fn delivered(samples: &[(Value, f64)]) -> Found {
    if samples.is_empty() {
        return Found::Ok("none failed in the last 2 minutes".to_owned());
    }
    let came: Vec<String> = samples
        .iter()
        .map(|(labels, count)| format!("{count:.0} by {}", text(&labels["integration"])))
        .collect();
    Found::Failed(Problem::new(
        FAILING,
        &format!("{} failed", came.join(", ")),
        "notifications fail: people are not told",
        "its log says why (`docker compose -p devops-mcp logs --tail 50 alertmanager`), mostly an address in deploy/secrets; \
         docs/runbooks/NotificationsFailing.md",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_route_to_an_empty_receiver_is_wrong_but_at_home() {
        let config = |ways: Value| {
            json!({
                "route": { "receiver": "slack", "routes": [{ "matchers": ["alertname=\"Watchdog\""], "receiver": "dead-man" }] },
                "receivers": [{ "name": "slack", "slack_configs": ways }, { "name": "dead-man", "webhook_configs": ways }],
            })
        };
        let (good, empty) = (config(json!([{}])), config(json!([])));
        for judge in [critical_route, dead_man_route] {
            assert!(matches!(judge(&good, false), Found::Ok(_)));
            assert!(matches!(judge(&empty, false), Found::Failed(_)));
            assert!(matches!(judge(&empty, true), Found::Warning(_)));
        }
        let held = json!({ "labels": { "alertname": "Watchdog", "environment": "local" } });
        assert_eq!(environment(&[held]).as_deref(), Some("local"));
        assert_eq!(environment(&[]), None);
    }

    #[test]
    fn the_watchdog_must_get_through() {
        let held = json!({ "receivers": [{ "name": "dead-man" }] });
        assert!(matches!(alarm(Some(&held), Some(true)), Found::Ok(text) if text.contains("dead-man")));
        let means = |fires| match alarm(None, fires) {
            Found::Failed(problem) => problem.means,
            other => panic!("{other:?}"),
        };
        assert!(means(Some(false)).contains("always fires does not"));
        assert!(means(Some(true)).contains("do not get from Prometheus"));
        assert!(means(None).contains("does not hear"));
    }

    #[test]
    fn a_silence_over_critical_alerts_is_told() {
        let alerts = [
            ("HighErrorRate".to_owned(), "critical".to_owned()),
            ("SlowQueries".to_owned(), "warning".to_owned()),
            ("Watchdog".to_owned(), "none".to_owned()),
        ];
        let silence = |name: &str, value: &str, state: &str| {
            json!([{ "status": { "state": state }, "createdBy": "me", "comment": "why", "endsAt": "then",
                "matchers": [{ "name": name, "value": value, "isRegex": value.contains('*'), "isEqual": true }] }])
        };
        let came = |all: &Value| match silenced(all, &alerts) {
            Found::Warning(problem) => problem.came,
            other => format!("{other:?}"),
        };
        assert_eq!(
            came(&silence("alertname", ".*", "active")),
            "HighErrorRate, Watchdog until then by me (\"why\")"
        );
        assert!(came(&silence("service", "rest-api", "active")).contains("HighErrorRate"));
        assert!(came(&silence("alertname", "SlowQueries", "active")).contains("none of a critical"));
        assert!(came(&silence("alertname", ".*", "expired")).contains("Ok"));
    }

    #[test]
    fn failed_notifications_are_told_by_their_way() {
        assert!(matches!(delivered(&[]), Found::Ok(_)));
        let failing = delivered(&[(json!({ "integration": "slack" }), 3.2)]);
        assert!(matches!(failing, Found::Failed(problem) if problem.came == "3 by slack failed"));
    }
}
