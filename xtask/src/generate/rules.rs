//! The objectives' recording and alerting rules, under the names that Sloth gives them.
//!
//! Every ratio is a quotient of sums, so a request weighs the same whenever it came. Ranges up to an hour are asked of
//! the counters. Longer ones would read days of every series each time; they add up what was recorded of the last 5
//! minutes, errors and total alike, which weighs requests just so and is cheap.

use super::slos::{Burn, Slo, number};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write};

const HEADER: &str = "\
# Generated from alerts/slos.yaml by `cargo xtask generate`: change that file. docs/adr/0005-slos.md explains the rules.
";
/// Where an alert's runbook is.
pub(super) const RUNBOOKS: &str = "https://github.com/devops-mcp/devops-mcp/blob/main/docs/runbooks";
/// Seconds between evaluations: what is recorded of 5 minutes stands for so long.
const STEP: u32 = 30;
/// Asked of the counters.
const SHORT: [&str; 3] = ["5m", "30m", "1h"];
/// Added up.
const LONG: [&str; 4] = ["2h", "6h", "1d", "3d"];

#[derive(Serialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    name: String,
    interval: String,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rule {
    Record {
        record: String,
        expr: String,
        labels: BTreeMap<String, String>,
    },
    Alert {
        alert: String,
        expr: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<&'static str, String>,
    },
}

/// The text of `alerts/slo.rules.yml`.
pub(super) fn render(slos: &[Slo]) -> anyhow::Result<String> {
    let groups = slos.iter().map(group).collect();
    Ok(format!("{HEADER}{}", yaml_serde::to_string(&File { groups })?))
}

/// One group for each objective: its rules are evaluated one after another, so each sees what those before recorded.
fn group(slo: &Slo) -> Group {
    let mut rules = vec![
        record(slo, "slo:sli_errors:rate5m", errors_or_none(slo, "5m")),
        record(slo, "slo:sli_total:rate5m", slo.total("5m", &[])),
    ];
    for window in SHORT {
        rules.push(record(slo, &ratio_name(window), short_ratio(slo, window)));
    }
    let period = slo.window.range();
    for window in LONG.into_iter().chain([period.as_str()]) {
        rules.push(record(slo, &ratio_name(window), long_ratio(slo, window)));
    }
    rules.extend(meta(slo));
    rules.push(alert(slo, "critical"));
    rules.push(alert(slo, "warning"));
    Group {
        name: format!("slo_{}", slo.name),
        interval: format!("{STEP}s"),
        rules,
    }
}

/// What the alerts and the dashboard need besides the ratios.
fn meta(slo: &Slo) -> Vec<Rule> {
    let budget = number(slo.budget());
    let burn = |window: &str| format!("{} / {budget}", series(slo, &ratio_name(window)));
    let left = format!("1 - {}", series(slo, "slo:period_burn_rate:ratio"));
    let constant = |value: String| format!("vector({value})");
    vec![
        record(
            slo,
            "slo:objective:ratio",
            constant(number(slo.objective_ratio())),
        ),
        record(slo, "slo:error_budget:ratio", constant(budget.clone())),
        record(
            slo,
            "slo:time_period:days",
            constant(slo.window.days().to_string()),
        ),
        record(slo, "slo:current_burn_rate:ratio", burn("5m")),
        record(slo, "slo:period_burn_rate:ratio", burn(&slo.window.range())),
        record(slo, "slo:period_error_budget_remaining:ratio", left),
    ]
}

fn record(slo: &Slo, name: &str, expr: String) -> Rule {
    Rule::Record {
        record: name.to_owned(),
        expr,
        labels: BTreeMap::from([("slo".to_owned(), slo.name.clone())]),
    }
}

pub(super) fn ratio_name(window: &str) -> String {
    format!("slo:sli_error:ratio_rate{window}")
}

/// A recorded series of this objective.
pub(super) fn series(slo: &Slo, name: &str) -> String {
    format!("{name}{{slo=\"{}\"}}", slo.name)
}

/// A perfect service has never counted an error, so that its series is not there: that is 0, not nothing.
fn errors_or_none(slo: &Slo, window: &str) -> String {
    let (errors, total) = (slo.errors(window, &[]), slo.total(window, &[]));
    format!("({errors})\nor\n0 * ({total})")
}

/// An idle service has no ratio.
fn short_ratio(slo: &Slo, window: &str) -> String {
    if window == "5m" {
        let (errors, total) = ("slo:sli_errors:rate5m", "slo:sli_total:rate5m");
        return format!("{}\n/\n({} > 0)", series(slo, errors), series(slo, total));
    }
    let (errors, total) = (errors_or_none(slo, window), slo.total(window, &[]));
    format!("(\n{}\n)\n/\n(({total}) > 0)", indent(&errors))
}

fn long_ratio(slo: &Slo, window: &str) -> String {
    let sum = |name: &str| format!("sum_over_time({}[{window}])", series(slo, name));
    let (errors, total) = (sum("slo:sli_errors:rate5m"), sum("slo:sli_total:rate5m"));
    format!("{errors}\n/\n({total} > 0)")
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn alert(slo: &Slo, severity: &str) -> Rule {
    let burns = slo.window.burns().iter().filter(|burn| burn.severity == severity);
    let conditions: Vec<String> = burns.map(|burn| condition(slo, burn)).collect();
    let mut labels = slo.alerting.labels.clone();
    labels.insert("severity".to_owned(), severity.to_owned());
    labels.insert("slo".to_owned(), slo.name.clone());
    Rule::Alert {
        alert: slo.alert(),
        expr: conditions.join("\nor\n"),
        labels,
        annotations: annotations(slo),
    }
}

/// Burning now, and for long enough to matter, and by more than a handful of events.
fn condition(slo: &Slo, burn: &Burn) -> String {
    let threshold = format!("{} * {}", number(burn.factor(slo.window)), number(slo.budget()));
    let burning = |window: &str| format!("{} > {threshold}", series(slo, &ratio_name(window)));
    let errors = series(slo, "slo:sli_errors:rate5m");
    format!(
        "(\n    {}\n  and\n    {}\n  and\n    sum_over_time({errors}[{}]) * {STEP} >= {}\n)",
        burning(burn.short),
        burning(burn.long),
        burn.long,
        slo.minimum_failures
    )
}

fn annotations(slo: &Slo) -> BTreeMap<&'static str, String> {
    let mut description = String::new();
    let of_service = |name: &str| {
        format!(
            "with printf `{name}{{slo=\"{}\",service=\"%s\"}}` $labels.service | query",
            slo.name
        )
    };
    let _infallible = write!(
        description,
        "{{{{ $value | humanizePercentage }}}} of the events are bad now (objective: {}% good over {} days). \
         The budget burns {{{{ {} }}}}{{{{ . | first | value | printf \"%.1f\" }}}}{{{{ end }}}} times as fast as would \
         just keep the objective; {{{{ {} }}}}{{{{ . | first | value | humanizePercentage }}}}{{{{ end }}}} of it is \
         left.",
        number(slo.objective),
        slo.window.days(),
        of_service("slo:current_burn_rate:ratio"),
        of_service("slo:period_error_budget_remaining:ratio"),
    );
    BTreeMap::from([
        (
            "summary",
            format!(
                "{{{{ $labels.service }}}} spends the error budget of {} ({}) too fast",
                slo.name, slo.title
            ),
        ),
        ("description", description),
        ("runbook_url", format!("{RUNBOOKS}/{}.md", slo.alert())),
        ("dashboard", "slo".to_owned()),
    ])
}
