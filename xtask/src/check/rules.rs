//! Prometheus's configuration and rules: valid for each promtool at hand, their tests pass, and whoever is woken by an
//! alert finds what it means and what to do.

use super::Outcome;
use crate::{
    process::{self, ended},
    workspace::Workspace,
};
use anyhow::Context;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, ScopedJoinHandle},
};

/// Where a runbook is read; an alert's name and `.md` follow.
const RUNBOOKS: &str = "https://github.com/devops-mcp/devops-mcp/blob/main/docs/runbooks/";
const SEVERITIES: [&str; 4] = ["critical", "warning", "info", "none"];
/// The expression that always holds: its alert cannot be silent.
const ALWAYS: &str = "vector(1)";

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    /// Absent in recording rules.
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct TestFile {
    #[serde(default)]
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<ExprTest>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    exp_labels: BTreeMap<String, String>,
}

/// A test of `ALERTS{alertname="…"}`, where labels are enough.
#[derive(Deserialize)]
struct ExprTest {
    expr: String,
    #[serde(default)]
    exp_samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    /// As `{name="value"}`.
    #[serde(default)]
    labels: String,
}

/// An alert; several may share a name and differ in severity.
struct Alert {
    name: String,
    severity: String,
    rule: Rule,
}

/// What the tests look at.
#[derive(Default)]
struct Tested {
    /// Name and severity of each that fires.
    firing: BTreeSet<(String, String)>,
    /// Names of those that are silent.
    silent: BTreeSet<String>,
}

/// Asks each promtool: the one on the `PATH`, and those that `PROMTOOL` names (separated as in `PATH`).
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let root = &workspace.root;
    let (rules, tests) = (root.join("alerts"), root.join("alerts/tests"));
    let (rules, tests) = (files(&rules, ".rules.yml")?, files(&tests, ".test.yml")?);
    let alerts = alerts(&rules)?;
    let mut findings: Vec<String> = alerts.iter().flat_map(incomplete).collect();
    findings.extend(runbooks(&alerts, &root.join("docs/runbooks")));
    findings.extend(untested(&alerts, &tested(&tests)?));
    let programs = programs();
    // Each takes one core for most of a minute.
    let found = thread::scope(|scope| {
        let (rules, tests) = (&rules, &tests);
        let mut asked = Vec::new();
        for program in &programs {
            asked.push(scope.spawn(move || promtool(program, root, rules, tests)));
        }
        let join = |asked: ScopedJoinHandle<'_, _>| asked.join().unwrap_or_else(|panic| resume_unwind(panic));
        asked.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
    })?;
    findings.extend(found.into_iter().flatten());
    if findings.is_empty() && programs.is_empty() {
        let remedy = "promtool is not installed (Debian and Ubuntu have it in the package prometheus; PROMTOOL names one elsewhere)";
        return Ok(Outcome::Partly(remedy.to_owned()));
    }
    Ok(Outcome::from_findings(&findings))
}

/// The files of a folder that end so, in order.
fn files(folder: &Path, end: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    yaml_serde::from_str(&text).with_context(|| path.display().to_string())
}

fn alerts(files: &[PathBuf]) -> anyhow::Result<Vec<Alert>> {
    let mut alerts = Vec::new();
    for file in files {
        let groups = read::<RuleFile>(file)?.groups;
        alerts.extend(groups.into_iter().flat_map(|group| group.rules).filter_map(alert));
    }
    Ok(alerts)
}

fn alert(rule: Rule) -> Option<Alert> {
    Some(Alert {
        name: rule.alert.clone()?,
        severity: rule.labels.get("severity").cloned().unwrap_or_default(),
        rule,
    })
}

/// What an alert lacks.
fn incomplete(alert: &Alert) -> Vec<String> {
    let Alert { name, severity, rule } = alert;
    let mut lacks = Vec::new();
    if !SEVERITIES.contains(&severity.as_str()) {
        lacks.push(format!(
            "{name}: its severity is {severity:?}, none of {SEVERITIES:?}"
        ));
    }
    if !rule.labels.contains_key("team") {
        lacks.push(format!("{name} ({severity}): no label `team`"));
    }
    for text in ["summary", "description"] {
        if rule
            .annotations
            .get(text)
            .is_none_or(|text| text.trim().is_empty())
        {
            lacks.push(format!("{name} ({severity}): no {text}"));
        }
    }
    let url = format!("{RUNBOOKS}{name}.md");
    if rule.annotations.get("runbook_url") != Some(&url) {
        lacks.push(format!("{name} ({severity}): its runbook_url is not {url}"));
    }
    lacks
}

/// Alerts without a runbook, and runbooks of alerts that are gone.
fn runbooks(alerts: &[Alert], folder: &Path) -> Vec<String> {
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    let there = files(folder, ".md").unwrap_or_default();
    let there: BTreeSet<&str> = there
        .iter()
        .filter_map(|path| path.file_stem()?.to_str())
        .filter(|name| *name != "README")
        .collect();
    let missing = names
        .difference(&there)
        .map(|name| format!("{name}: no docs/runbooks/{name}.md"));
    let orphans = there
        .difference(&names)
        .map(|name| format!("docs/runbooks/{name}.md: no alert is called so"));
    missing.chain(orphans).collect()
}

fn tested(files: &[PathBuf]) -> anyhow::Result<Tested> {
    let mut tested = Tested::default();
    for file in files {
        for test in read::<TestFile>(file)?.tests {
            tested.note(test);
        }
    }
    Ok(tested)
}

impl Tested {
    fn note(&mut self, test: Test) {
        for test in test.alert_rule_test {
            let severity = |expected: Expected| expected.exp_labels.get("severity").cloned();
            let severities: Vec<_> = test.exp_alerts.into_iter().map(severity).collect();
            self.note_one(&test.alertname, severities);
        }
        for test in test.promql_expr_test {
            let Some(name) = matched(&test.expr, "alertname") else {
                continue;
            };
            let asked = matched(&test.expr, "severity");
            let severity = |sample: &Sample| matched(&sample.labels, "severity").or(asked).map(str::to_owned);
            self.note_one(name, test.exp_samples.iter().map(severity).collect());
        }
    }

    /// `severities`: of those of that name that fire.
    fn note_one(&mut self, name: &str, severities: Vec<Option<String>>) {
        if severities.is_empty() {
            self.silent.insert(name.to_owned());
        }
        let firing = severities.into_iter().flatten();
        self.firing
            .extend(firing.map(|severity| (name.to_owned(), severity)));
    }
}

/// The value that a label is asked to have in an expression, or has in a sample.
fn matched<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("{label}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// Alerts that no test sees fire, or none sees silent, and tests of alerts that are gone.
fn untested(alerts: &[Alert], tested: &Tested) -> Vec<String> {
    let mut findings = BTreeSet::new();
    for Alert { name, severity, rule } in alerts {
        if !tested.firing.contains(&(name.clone(), severity.clone())) {
            findings.insert(format!(
                "{name} ({severity}): no test in alerts/tests in which it fires"
            ));
        }
        if rule.expr.trim() != ALWAYS && !tested.silent.contains(name) {
            findings.insert(format!("{name}: no test in alerts/tests in which it is silent"));
        }
    }
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    let firing = tested.firing.iter().map(|(name, _)| name);
    for name in tested.silent.iter().chain(firing) {
        if !names.contains(name.as_str()) {
            findings.insert(format!("alerts/tests test {name}, which is no alert"));
        }
    }
    findings.into_iter().collect()
}

/// Every promtool there is, once.
fn programs() -> Vec<PathBuf> {
    let named = env::var_os("PROMTOOL").unwrap_or_default();
    let all = env::split_paths(&named)
        .filter(|path| !path.as_os_str().is_empty())
        .chain(process::on_path("promtool"));
    let mut programs = Vec::new();
    for program in all {
        if !programs.contains(&program) {
            programs.push(program);
        }
    }
    programs
}

/// What one promtool finds in the configuration, the rules and their tests.
fn promtool(
    program: &Path,
    root: &Path,
    rules: &[PathBuf],
    tests: &[PathBuf],
) -> anyhow::Result<Vec<String>> {
    let config = [root.join("deploy/prometheus/prometheus.yml")];
    let asked: [(&[&str], &[PathBuf]); 3] = [
        (&["check", "config"], &config),
        (&["check", "rules", "--lint-fatal"], rules),
        (&["test", "rules"], tests),
    ];
    let mut findings = Vec::new();
    for (what, files) in asked {
        let output = Command::new(program)
            .args(what)
            .args(files)
            .output()
            .with_context(|| format!("starting {}", program.display()))?;
        if !output.status.success() {
            // What passed stands on stdout, what did not on stderr.
            let said = output.stderr;
            let (program, what, how) = (program.display(), what.join(" "), ended(output.status));
            let said = String::from_utf8_lossy(&said);
            findings.push(format!("{program} {what}: {how}\n{}", said.trim()));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(yaml: &str) -> Alert {
        alert(yaml_serde::from_str(yaml).expect("a rule")).expect("an alert")
    }

    fn tests_of(yaml: &str) -> Tested {
        let mut tested = Tested::default();
        let file: TestFile = yaml_serde::from_str(yaml).expect("a file of tests");
        for test in file.tests {
            tested.note(test);
        }
        tested
    }

    const WHOLE: &str = "
        alert: A
        expr: up == 0
        labels: {severity: warning, team: platform}
        annotations:
            summary: s
            description: d
            runbook_url: https://github.com/devops-mcp/devops-mcp/blob/main/docs/runbooks/A.md";

    #[test]
    fn an_alert_has_all_that_it_needs() {
        assert!(incomplete(&one(WHOLE)).is_empty());
        let bare = one("{alert: B, expr: up, labels: {severity: bad}, annotations: {summary: ' '}}");
        assert_eq!(incomplete(&bare).len(), 5);
        let other = WHOLE.replace("/A.md", "/B.md");
        assert_eq!(incomplete(&one(&other)).len(), 1);
    }

    #[test]
    fn each_severity_of_a_name_must_be_seen_firing_and_the_name_silent() {
        let alerts = [one(WHOLE), one(&WHOLE.replace("warning", "critical"))];
        let fires = "{alertname: A, exp_alerts: [{exp_labels: {severity: warning}}]}";
        let tested = tests_of(&format!(
            "tests: [{{alert_rule_test: [{fires}, {{alertname: Old}}]}}]"
        ));
        let found = untested(&alerts, &tested);
        assert_eq!(
            found,
            [
                "A (critical): no test in alerts/tests in which it fires",
                "A: no test in alerts/tests in which it is silent",
                "alerts/tests test Old, which is no alert"
            ]
        );
    }

    #[test]
    fn tests_of_the_alerts_series_count_too() {
        let tested = tests_of(
            r#"tests:
                - promql_expr_test:
                    - {expr: 'ALERTS{alertname="A", severity="critical"}', exp_samples: [{labels: '{service="x"}'}]}
                    - {expr: 'ALERTS{alertname="B"}', exp_samples: [{labels: '{severity="warning"}'}]}
                    - {expr: 'ALERTS{alertname="B", severity="critical"}'}
                    - {expr: up, exp_samples: [{labels: '{}'}]}"#,
        );
        let fires = |name: &str, severity: &str| (name.to_owned(), severity.to_owned());
        assert_eq!(
            tested.firing,
            BTreeSet::from([fires("A", "critical"), fires("B", "warning")])
        );
        assert_eq!(tested.silent, BTreeSet::from(["B".to_owned()]));
    }

    #[test]
    fn what_always_fires_need_not_be_silent() {
        let alerts = [one(&WHOLE.replace("up == 0", ALWAYS))];
        let fires = "{alertname: A, exp_alerts: [{exp_labels: {severity: warning}}]}";
        let tested = tests_of(&format!("tests: [{{alert_rule_test: [{fires}]}}]"));
        assert!(untested(&alerts, &tested).is_empty());
    }

    #[test]
    fn runbooks_and_alerts_belong_together() {
        let found = runbooks(&[one(WHOLE)], Path::new("/nonexistent"));
        assert_eq!(found, ["A: no docs/runbooks/A.md"]);
    }
}
