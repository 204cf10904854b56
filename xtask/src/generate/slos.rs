//! The objectives as `alerts/slos.yaml` states them.

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Stands for a range in a query.
const WINDOW: &str = "{{window}}";
/// Stands for the grouping labels in a query.
const BY: &str = "{{by}}";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    slos: Vec<Slo>,
}

/// One objective; `alerts/slos.yaml` says what its fields mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slo {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) description: String,
    /// In percent.
    pub(super) objective: f64,
    pub(super) window: Window,
    sli: Sli,
    by: Vec<String>,
    #[serde(default)]
    pub(super) breakdown: Vec<String>,
    pub(super) minimum_failures: u32,
    pub(super) alerting: Alerting,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sli {
    errors: String,
    total: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alerting {
    pub(super) labels: BTreeMap<String, String>,
}

/// Over which time the objective must hold.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Window {
    #[serde(rename = "7d")]
    Week,
    #[serde(rename = "30d")]
    Month,
}

impl Window {
    pub(super) fn days(self) -> u32 {
        match self {
            Self::Week => 7,
            Self::Month => 30,
        }
    }

    /// As PromQL writes it.
    pub(super) fn range(self) -> String {
        format!("{}d", self.days())
    }

    pub(super) fn burns(self) -> &'static [Burn; 4] {
        match self {
            Self::Week => &WEEK,
            Self::Month => &MONTH,
        }
    }
}

/// When to tell whom: both windows spend the budget so fast that `percent` of it would be gone in the long one.
pub(super) struct Burn {
    pub(super) severity: &'static str,
    percent: f64,
    /// Ends the alert soon after the fault has ended.
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    long_hours: f64,
}

const fn burn(
    severity: &'static str,
    percent: f64,
    short: &'static str,
    long: &'static str,
    long_hours: f64,
) -> Burn {
    Burn {
        severity,
        percent,
        short,
        long,
        long_hours,
    }
}

/// A person is woken.
const PAGE: &str = "critical";
/// A person looks on the next working day.
const TICKET: &str = "warning";

/// Google's SRE workbook, chapter 5: factors 14.4, 6, 3 and 1.
const MONTH: [Burn; 4] = [
    burn(PAGE, 2.0, "5m", "1h", 1.0),
    burn(PAGE, 5.0, "30m", "6h", 6.0),
    burn(TICKET, 10.0, "2h", "1d", 24.0),
    burn(TICKET, 10.0, "6h", "3d", 72.0),
];
/// The same windows are a larger part of a week. With the month's percentages the factors would sink below 1, so that
/// a service that keeps its objective raised tickets; with these (Sloth's) they are 13.44, 3.5, 1.4 and 0.98.
const WEEK: [Burn; 4] = [
    burn(PAGE, 8.0, "5m", "1h", 1.0),
    burn(PAGE, 12.5, "30m", "6h", 6.0),
    burn(TICKET, 20.0, "2h", "1d", 24.0),
    burn(TICKET, 42.0, "6h", "3d", 72.0),
];

impl Burn {
    /// How many times faster than would just keep the objective.
    pub(super) fn factor(&self, window: Window) -> f64 {
        self.percent / 100.0 * f64::from(window.days()) * 24.0 / self.long_hours
    }
}

impl Slo {
    /// The share of events that must be good.
    pub(super) fn objective_ratio(&self) -> f64 {
        self.objective / 100.0
    }

    /// The share of events that may be bad.
    pub(super) fn budget(&self) -> f64 {
        (100.0 - self.objective) / 100.0
    }

    pub(super) fn alert(&self) -> String {
        format!("{}BudgetBurn", self.name)
    }

    /// The bad events per second over a range; none where nothing bad was ever counted.
    pub(super) fn errors(&self, window: &str, more: &[String]) -> String {
        self.query(&self.sli.errors, window, more)
    }

    /// All events per second over a range.
    pub(super) fn total(&self, window: &str, more: &[String]) -> String {
        self.query(&self.sli.total, window, more)
    }

    fn query(&self, query: &str, window: &str, more: &[String]) -> String {
        let by: Vec<&str> = self.by.iter().chain(more).map(String::as_str).collect();
        query.replace(WINDOW, window).replace(BY, &by.join(", "))
    }

    fn check(&self) -> anyhow::Result<()> {
        let is_word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        ensure!(is_word(&self.name), "the name must be of letters and digits");
        ensure!(
            0.0 < self.objective && self.objective < 100.0,
            "the objective is a percentage between 0 and 100: {} leaves no budget, or nothing to keep",
            self.objective
        );
        for (key, query) in [("errors", &self.sli.errors), ("total", &self.sli.total)] {
            for placeholder in [WINDOW, BY] {
                ensure!(query.contains(placeholder), "sli.{key} must hold {placeholder}");
            }
            let rest = query.replace(WINDOW, "").replace(BY, "");
            ensure!(
                !rest.contains("{{"),
                "sli.{key} holds a placeholder other than {WINDOW} and {BY}"
            );
        }
        ensure!(
            self.by.iter().any(|label| label == "service"),
            "by must hold `service`"
        );
        for label in self.by.iter().chain(&self.breakdown) {
            ensure!(is_word(label), "`{label}` is no label's name");
        }
        for label in ["slo", "service", "severity"] {
            ensure!(
                !self.alerting.labels.contains_key(label),
                "alerting.labels: `{label}` is set by the rules"
            );
        }
        let fastest = self.window.burns()[0].factor(self.window) * self.budget();
        ensure!(
            fastest < 1.0,
            "with {} % the fast alert would need an error ratio of {fastest:.2}, which cannot be",
            self.objective
        );
        Ok(())
    }
}

/// Reads the file; errors say what is wrong and where.
pub(super) fn parse(text: &str) -> anyhow::Result<Vec<Slo>> {
    let Document { slos } = yaml_serde::from_str(text)?;
    let mut names = BTreeSet::new();
    for slo in &slos {
        slo.check().with_context(|| slo.name.clone())?;
        if !names.insert(&slo.name) {
            bail!("{} stands there twice", slo.name);
        }
    }
    ensure!(!slos.is_empty(), "there are no objectives");
    Ok(slos)
}

/// A number as short as PromQL can have it.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
slos:
  - name: A
    title: a
    description: a
    objective: 99.9
    window: 30d
    sli:
      errors: sum by ({{by}}) (rate(bad_total[{{window}}]))
      total: sum by ({{by}}) (rate(all_total[{{window}}]))
    by: [service]
    minimum_failures: 1
    alerting: {labels: {team: a}}
";

    #[test]
    fn factors_are_those_of_the_literature() {
        let factors = |window: Window| {
            let burns = window.burns().iter();
            burns.map(|burn| number(burn.factor(window))).collect::<Vec<_>>()
        };
        assert_eq!(factors(Window::Month), ["14.4", "6", "3", "1"]);
        assert_eq!(factors(Window::Week), ["13.44", "3.5", "1.4", "0.98"]);
    }

    #[test]
    fn queries_are_filled_in() {
        let slos = parse(GOOD).expect("is good");
        let more = ["path".to_owned()];
        assert_eq!(
            slos[0].errors("5m", &more),
            "sum by (service, path) (rate(bad_total[5m]))"
        );
        assert_eq!(slos[0].total("1h", &[]), "sum by (service) (rate(all_total[1h]))");
        assert_eq!(number(slos[0].budget()), "0.001");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (from, to, what) in [
            ("title: a", "titel: a", "unknown field `titel`"),
            ("99.9", "100", "leaves no budget"),
            ("99.9", "90", "which cannot be"),
            ("window: 30d", "window: 28d", "unknown variant `28d`"),
            (
                "bad_total[{{window}}]",
                "bad_total[5m]",
                "sli.errors must hold {{window}}",
            ),
            ("rate(all", "rate({{what}}", "sli.total holds a placeholder"),
            ("by: [service]", "by: [path]", "by must hold `service`"),
            ("team: a", "severity: page", "is set by the rules"),
            (
                "    minimum_failures: 1\n",
                "",
                "missing field `minimum_failures`",
            ),
        ] {
            let error = parse(&GOOD.replacen(from, to, 1)).err().expect("is wrong");
            assert!(format!("{error:#}").contains(what), "{to}: {error:#}");
        }
    }
}
