//! Prometheus: it scrapes the services, has the rules that are shipped and evaluates them, and holds the data.

use super::{
    Doctor,
    ask::{Ask, Failed, wait},
    places::Part,
    report::{Found, Problem, Report},
};
use crate::servers::monitoring::read;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

/// Longer than the usual interval of scrapes and of evaluations: what starts has been scraped by then.
const PATIENCE: Duration = Duration::from_secs(35);
/// In seconds; several scrapes of the usual interval. After five minutes panels are empty.
const STALE: f64 = 120.0;
/// How many names of one kind are told.
const SOME: usize = 8;
const MISSING: &str = "docs/runbooks/troubleshooting/MissingMetrics.md";
/// What must be there of each service once it was asked something.
const DATA: [(&str, &[&str]); 3] = [
    (
        "rest-api",
        &[
            "build_info",
            "dependency_up",
            "http_requests_total",
            "http_request_duration_seconds_bucket",
            "db_query_duration_seconds_bucket",
            "process_resident_memory_bytes",
        ],
    ),
    (
        "mcp-server",
        &[
            "build_info",
            "dependency_up",
            "http_requests_total",
            "mcp_server_operation_duration_seconds_bucket",
            "process_resident_memory_bytes",
        ],
    ),
    (
        "worker",
        &[
            "build_info",
            "dependency_up",
            "worker_slots",
            "process_resident_memory_bytes",
        ],
    ),
];
/// Only there once a tool has run.
const EXECUTIONS: &str = "mcp_tool_executions_total";

/// The rules of this clone: the names in each group, and the alerts with their severity.
pub(super) struct Shipped {
    groups: BTreeMap<String, BTreeSet<String>>,
    pub(super) alerts: BTreeSet<(String, String)>,
}

/// Reads `alerts/*.rules.yml`.
///
/// # Errors
/// When there are none, or one cannot be read.
pub(super) fn shipped(dir: &Path) -> anyhow::Result<Shipped> {
    let mut shipped = Shipped {
        groups: BTreeMap::new(),
        alerts: BTreeSet::new(),
    };
    let files = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for file in files {
        let path = file?.path();
        if path.to_string_lossy().ends_with(".rules.yml") {
            let rules = serde_json::to_value(read(&path)?)?;
            shipped.add(&rules);
        }
    }
    ensure!(!shipped.groups.is_empty(), "{} holds no rules", dir.display());
    Ok(shipped)
}

impl Shipped {
    fn add(&mut self, file: &Value) {
        for group in items(&file["groups"]) {
            let names = self.groups.entry(text(&group["name"])).or_default();
            for rule in items(&group["rules"]) {
                let alert = text(&rule["alert"]);
                if alert.is_empty() {
                    names.insert(text(&rule["record"]));
                } else {
                    self.alerts
                        .insert((alert.clone(), text(&rule["labels"]["severity"])));
                    names.insert(alert);
                }
            }
        }
    }
}

/// Looks at it; whether it can be asked for more.
pub(super) fn check(doctor: &Doctor<'_>, report: &mut Report, shipped: &Shipped) -> bool {
    let place = doctor.places.of(Part::Prometheus);
    if let Some(reason) = place.left_out() {
        report.skip("Prometheus", reason);
        return false;
    }
    let ready = doctor.client.get(&Ask::of(&place.url, "/-/ready"));
    if let Err(failed) = ready.and_then(super::ask::Answer::ok) {
        let problem = Problem::of(
            &failed,
            "Prometheus does not answer: no alert is raised, and only the dead man's switch tells",
            "docker compose -p devops-mcp start prometheus; docs/runbooks/Watchdog.md",
        );
        report.add("Prometheus", place.missed(&failed, problem));
        for check in ["targets", "rules", "data"] {
            report.skip(check, "Prometheus does not answer");
        }
        return false;
    }
    report.ok("Prometheus", "it is ready");
    let up = targets(doctor, report);
    fresh(doctor, report, &up);
    rules(doctor, report, shipped);
    alertmanagers(doctor, report);
    data(doctor, report, &up);
    true
}

/// What an API of Prometheus answers with; nothing, told, when it does not.
fn api(doctor: &Doctor<'_>, ask: &Ask<'_>) -> Result<Value, Failed> {
    let answer = doctor.client.get(ask)?.ok()?;
    Ok(answer.json()?["data"].take())
}

/// The samples of an instant query: labels and value.
pub(super) fn query(doctor: &Doctor<'_>, promql: &str) -> Result<Vec<(Value, f64)>, Failed> {
    let url = &doctor.places.of(Part::Prometheus).url;
    let data = api(doctor, &Ask::of(url, "/api/v1/query").query("query", promql))?;
    let sample = |sample: &Value| {
        let value = sample["value"][1].as_str().and_then(|value| value.parse().ok());
        (sample["metric"].clone(), value.unwrap_or(f64::NAN))
    };
    Ok(items(&data["result"]).map(sample).collect())
}

fn broken(failed: &Failed) -> Problem {
    Problem::of(
        failed,
        "Prometheus does not answer as it should",
        "docker compose -p devops-mcp logs --tail 50 prometheus",
    )
}

/// Judges the targets; the jobs of services that are up.
fn targets(doctor: &Doctor<'_>, report: &mut Report) -> Vec<&'static str> {
    let url = &doctor.places.of(Part::Prometheus).url;
    let ask = Ask::of(url, "/api/v1/targets").query("state", "active");
    // One that is new has not been scraped yet.
    let last = wait(PATIENCE, || match api(doctor, &ask) {
        Ok(data) if is_scraped(&data) => Ok(Ok(data)),
        Ok(data) => Err(Ok(data)),
        Err(failed) => Ok(Err(failed)),
    });
    let data = match last.unwrap_or_else(|last| last) {
        Ok(data) => data,
        Err(failed) => {
            report.fail("targets", broken(&failed));
            return Vec::new();
        }
    };
    let mut up = Vec::new();
    for part in Part::SERVICES {
        let check = format!("target {}", part.name());
        if report.add(&check, target(part.name(), &data)) {
            up.push(part.name());
        }
    }
    if let Some(found) = others(&data) {
        report.add("other targets", found);
    }
    up
}

fn jobs(data: &Value, wanted: impl Fn(&str) -> bool) -> Vec<&Value> {
    let targets = items(&data["activeTargets"]);
    targets
        .filter(|target| wanted(target["labels"]["job"].as_str().unwrap_or_default()))
        .collect()
}

fn is_service(job: &str) -> bool {
    Part::SERVICES.iter().any(|part| part.name() == job)
}

fn is_scraped(data: &Value) -> bool {
    items(&data["activeTargets"]).all(|target| target["health"] != "unknown")
        && Part::SERVICES
            .iter()
            .all(|part| !jobs(data, |job| job == part.name()).is_empty())
}

fn told(target: &Value) -> String {
    let said = text(&target["lastError"]);
    let health = text(&target["health"]);
    format!("{} is {health}: {said}", text(&target["scrapeUrl"]))
}

/// Judges the targets of a service.
fn target(job: &str, data: &Value) -> Found {
    const ASKED: &str = "Prometheus, /api/v1/targets";
    let all = jobs(data, |one| one == job);
    let down: Vec<String> = all
        .iter()
        .filter(|target| target["health"] != "up")
        .map(|target| told(target))
        .collect();
    if all.is_empty() {
        return Found::Failed(Problem::new(
            ASKED,
            &format!("no target of job {job}"),
            &format!("Prometheus does not know of {job}: nothing of it is measured"),
            &format!(
                "is it started, where deploy/prometheus/prometheus.yml looks (job `{job}`: DNS, or a file in \
                 deploy/prometheus/targets)? {MISSING}"
            ),
        ));
    }
    if down.is_empty() {
        return Found::Ok(match all.len() {
            1 => "up".to_owned(),
            count => format!("all {count} up"),
        });
    }
    Found::Failed(Problem::new(
        ASKED,
        &some(&down),
        &format!("Prometheus cannot scrape {job}"),
        "what it says last is the reason, seen from Prometheus; docs/runbooks/TargetDown.md",
    ))
}

/// Judges the targets of everything else: what watches, and the exporters.
fn others(data: &Value) -> Option<Found> {
    let all = jobs(data, |job| !is_service(job));
    let down: Vec<String> = all
        .iter()
        .filter(|target| target["health"] == "down")
        .map(|target| format!("{} {}", text(&target["labels"]["job"]), told(target)))
        .collect();
    if all.is_empty() {
        return None;
    }
    if down.is_empty() {
        return Some(Found::Ok(format!("all {} up", all.len())));
    }
    Some(Found::Warning(Problem::new(
        "Prometheus, /api/v1/targets",
        &some(&down),
        "Prometheus cannot scrape everything: panels about these are empty",
        "docs/runbooks/TargetDown.md",
    )))
}

/// How old the newest data is.
fn fresh(doctor: &Doctor<'_>, report: &mut Report, up: &[&str]) {
    if up.is_empty() {
        report.skip("freshness", "no service is scraped");
        return;
    }
    let promql = format!(
        "max by (job) (time() - timestamp(up{{job=~\"{}\"}}))",
        up.join("|")
    );
    let found = match query(doctor, &promql) {
        Ok(samples) => age(&promql, &samples),
        Err(failed) => Found::Failed(broken(&failed)),
    };
    report.add("freshness", found);
}

fn age(promql: &str, samples: &[(Value, f64)]) -> Found {
    let oldest = samples.iter().map(|(_, age)| *age).fold(f64::NAN, f64::max);
    if oldest <= STALE {
        return Found::Ok(format!("the last scrape was {oldest:.0} s ago or less"));
    }
    let came = if oldest.is_nan() {
        "no data".to_owned()
    } else {
        format!("{oldest:.0} s")
    };
    Found::Failed(Problem::new(
        promql,
        &came,
        "Prometheus has no recent data of the services",
        &format!("docker compose -p devops-mcp logs --tail 50 prometheus; {MISSING}"),
    ))
}

fn rules(doctor: &Doctor<'_>, report: &mut Report, shipped: &Shipped) {
    let ask = Ask::of(&doctor.places.of(Part::Prometheus).url, "/api/v1/rules");
    // One that is new has not been evaluated yet.
    let last = wait(PATIENCE, || match api(doctor, &ask) {
        Ok(data) => match evaluated(shipped, &data) {
            Found::Note(note) => Err(Found::Note(note)),
            found => Ok(found),
        },
        Err(failed) => Ok(Found::Failed(broken(&failed))),
    });
    report.add("rules", last.unwrap_or_else(|last| last));
}

/// Judges the rules: all there, none with an error. A note while some have not been evaluated.
fn evaluated(shipped: &Shipped, data: &Value) -> Found {
    const ASKED: &str = "Prometheus, /api/v1/rules";
    let (mut there, mut sick, mut unknown) = (BTreeMap::<String, BTreeSet<String>>::new(), Vec::new(), 0);
    for group in items(&data["groups"]) {
        let names = there.entry(text(&group["name"])).or_default();
        for rule in items(&group["rules"]) {
            let name = text(&rule["name"]);
            match rule["health"].as_str() {
                Some("ok") => {}
                Some("err") => sick.push(format!("{name}: {}", text(&rule["lastError"]))),
                _ => unknown += 1,
            }
            names.insert(name);
        }
    }
    let mut missing = Vec::new();
    for (group, names) in &shipped.groups {
        match there.get(group) {
            None => missing.push(format!("group {group}")),
            Some(loaded) => missing.extend(names.difference(loaded).map(|name| format!("{name} in {group}"))),
        }
    }
    if !missing.is_empty() {
        return Found::Failed(Problem::new(
            ASKED,
            &format!("not loaded: {}", some(&missing)),
            "rules of this clone are not in Prometheus: these alerts cannot fire",
            "is alerts/ what it reads (`rule_files`), and was it reloaded (`docker compose -p devops-mcp kill -s HUP \
             prometheus`)? An installation of another version has other rules. docs/runbooks/troubleshooting/AlertDidNotFire.md",
        ));
    }
    if !sick.is_empty() {
        return Found::Failed(Problem::new(
            ASKED,
            &some(&sick),
            "rules fail: these alerts cannot fire",
            "docs/runbooks/RuleEvaluationFailing.md",
        ));
    }
    let all: usize = there.values().map(BTreeSet::len).sum();
    let names = format!("all {} groups loaded, {all} names", shipped.groups.len());
    if unknown > 0 {
        return Found::Note(format!("{names}; {unknown} rules not evaluated yet"));
    }
    Found::Ok(format!("{names}, all evaluate"))
}

fn alertmanagers(doctor: &Doctor<'_>, report: &mut Report) {
    let ask = Ask::of(&doctor.places.of(Part::Prometheus).url, "/api/v1/alertmanagers");
    let found = match api(doctor, &ask) {
        Ok(data) => discovered(&data),
        Err(failed) => Found::Failed(broken(&failed)),
    };
    report.add("Alertmanager known", found);
}

fn discovered(data: &Value) -> Found {
    let all = items(&data["activeAlertmanagers"]).map(|one| text(&one["url"]));
    let all: Vec<String> = all.collect();
    if !all.is_empty() {
        return Found::Ok(some(&all));
    }
    Found::Failed(Problem::new(
        "Prometheus, /api/v1/alertmanagers",
        "none",
        "Prometheus knows no Alertmanager: alerts fire, and nobody is told",
        "`alerting:` in deploy/prometheus/prometheus.yml; docs/runbooks/AlertmanagerMissing.md",
    ))
}

/// Whether the services' essential metrics have arrived.
fn data(doctor: &Doctor<'_>, report: &mut Report, up: &[&str]) {
    let mut names: Vec<&str> = DATA.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    names.push(EXECUTIONS);
    let promql = format!("count by (__name__, job) ({{__name__=~\"{}\"}})", names.join("|"));
    // What our own requests brought about comes with the next scrape.
    let last = wait(PATIENCE, || match query(doctor, &promql) {
        Ok(samples) => match complete(&samples, up) {
            Found::Failed(problem) => Err(Found::Failed(problem)),
            found => Ok(found),
        },
        Err(failed) => Ok(Found::Failed(broken(&failed))),
    });
    let found = if up.is_empty() {
        Found::NotChecked("no service is scraped".to_owned())
    } else {
        last.unwrap_or_else(|last| last)
    };
    report.add("data", found);
}

/// Judges which metrics there are of the jobs that are scraped.
fn complete(samples: &[(Value, f64)], up: &[&str]) -> Found {
    let has = |name: &str, job: Option<&str>| {
        let mut all = samples.iter();
        all.any(|(labels, _)| labels["__name__"] == name && job.is_none_or(|job| labels["job"] == job))
    };
    let (mut count, mut missing) = (0, Vec::new());
    for (job, names) in DATA.iter().filter(|(job, _)| up.contains(job)) {
        count += names.len();
        let lacking = names.iter().filter(|name| !has(name, Some(job)));
        missing.extend(lacking.map(|name| format!("{name} of {job}")));
    }
    if !missing.is_empty() {
        return Found::Failed(Problem::new(
            "Prometheus, count by (__name__, job) of the essential metrics",
            &format!("none of {}", some(&missing)),
            "essential metrics are not in Prometheus, though it scrapes: panels and alerts that need them are empty",
            &format!(
                "compare with the service's own /metrics; does `metric_relabel_configs` drop them? {MISSING}"
            ),
        ));
    }
    if has(EXECUTIONS, None) {
        Found::Ok(format!("{count} essential metrics, and tool executions"))
    } else {
        Found::Note(format!(
            "{count} essential metrics; no {EXECUTIONS}: no tool has run yet"
        ))
    }
}

/// An array's items; none of anything else.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A string, empty for anything else.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The first of them, and how many more there are.
pub(super) fn some(all: &[String]) -> String {
    let first = all.iter().take(SOME).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SOME) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
