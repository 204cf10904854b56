//! What the product knows about its own telemetry, put into the program when it is built: a runbook for each alert, the
//! catalogue of metrics, the dashboards' queries, the objectives. Constants only: nothing is read or parsed at run time.

/// What to do when an alert fires.
#[derive(Clone, Copy, Debug)]
pub struct Runbook {
    /// The alert's name.
    pub alert: &'static str,
    /// Markdown.
    pub text: &'static str,
}

/// A dashboard of Grafana.
#[derive(Clone, Copy, Debug)]
pub struct Dashboard {
    /// Its stable id.
    pub uid: &'static str,
    /// Its name.
    pub title: &'static str,
    /// Those that ask something, in order.
    pub panels: &'static [Panel],
}

/// A panel of a dashboard.
#[derive(Clone, Copy, Debug)]
pub struct Panel {
    /// Its name.
    pub title: &'static str,
    /// What it asks, in PromQL or LogQL, with Grafana's variables in it.
    pub queries: &'static [&'static str],
}

/// A service level objective, as `alerts/slos.yaml` has it.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    /// Its name; its alert is the name with `BudgetBurn` behind it.
    pub name: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// What is promised, and what counts.
    pub description: &'static str,
    /// How many percent of the events must be good.
    pub percent: f64,
    /// Over which time: `30d`, `7d`.
    pub window: &'static str,
    /// Labels that tell what burns it, beside the service.
    pub breakdown: &'static [&'static str],
    /// Bad events a second by service and [`breakdown`](Self::breakdown), in PromQL. See [`Objective::burning`].
    errors: &'static str,
}

impl Objective {
    /// Bad events a second over `window` (such as `1h`), by service and [`breakdown`](Self::breakdown).
    pub fn burning(&self, window: &str) -> String {
        self.errors.replace("{{window}}", window)
    }
}

include!(concat!(env!("OUT_DIR"), "/knowledge.rs"));

/// The runbook of an alert, in Markdown.
pub fn runbook(alert: &str) -> Option<&'static str> {
    let found = RUNBOOKS.binary_search_by(|runbook| runbook.alert.cmp(alert));
    found.ok().map(|index| RUNBOOKS[index].text)
}

/// All runbooks, by their alerts' names.
pub fn runbooks() -> &'static [Runbook] {
    RUNBOOKS
}

/// Every metric of the services, in Markdown: name, type, unit, labels, help.
pub fn metric_catalogue() -> &'static str {
    METRICS
}

/// All dashboards.
pub fn dashboards() -> &'static [Dashboard] {
    DASHBOARDS
}

/// All objectives, as they are shipped.
pub fn objectives() -> &'static [Objective] {
    OBJECTIVES
}

/// The objective of a name, as it is shipped.
pub fn objective(name: &str) -> Option<&'static Objective> {
    OBJECTIVES.iter().find(|objective| objective.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, path::Path};

    /// The names of the alerts in `alerts/*.rules.yml`.
    fn alerts() -> BTreeSet<String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../alerts");
        let files = fs::read_dir(dir).expect("the rules are there");
        let texts = files.filter_map(|file| {
            let path = file.expect("a file").path();
            let is_rules = path.to_str().is_some_and(|name| name.ends_with(".rules.yml"));
            is_rules.then(|| fs::read_to_string(path).expect("text"))
        });
        let named = |text: String| -> Vec<String> {
            let lines = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("- alert: "));
            lines.map(str::to_owned).collect()
        };
        texts.flat_map(named).collect()
    }

    #[test]
    fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
        let alerts = alerts();
        assert!(alerts.len() > 40, "{alerts:?}");
        let known: BTreeSet<String> = runbooks()
            .iter()
            .map(|runbook| runbook.alert.to_owned())
            .collect();
        assert_eq!(alerts, known);
        for alert in &alerts {
            let text = runbook(alert).unwrap_or_default();
            assert!(text.starts_with(&format!("# {alert}\n")), "{alert}");
        }
        assert_eq!(runbook("README"), None);
    }

    #[test]
    fn dashboards_and_metrics_are_there() {
        assert!(metric_catalogue().contains("`http_requests_total`"));
        let service = dashboards().iter().find(|dashboard| dashboard.uid == "service");
        let queries = service.map(|dashboard| dashboard.panels.iter().flat_map(|panel| panel.queries));
        assert!(
            queries.is_some_and(|mut queries| queries.any(|query| query.contains("http_requests_total")))
        );
        assert!(dashboards().iter().all(|dashboard| !dashboard.panels.is_empty()));
    }

    #[test]
    fn an_objective_says_what_burns_it() {
        let objective = objective("ApiAvailability").expect("shipped");
        assert_eq!((objective.percent, objective.window), (99.9, "30d"));
        assert_eq!(
            objective.burning("1h"),
            r#"sum by (service, method, path) (rate(http_requests_total{status=~"5.."}[1h]))"#
        );
        for objective in objectives() {
            assert!(!objective.burning("5m").contains("{{"), "{}", objective.name);
        }
    }
}
