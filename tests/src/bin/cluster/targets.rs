//! Prometheus has found every pod that has metrics, all of them answer, and every rule can be evaluated.

use e2e::{Json, http_client, wait_at_most};
use std::{cell::RefCell, collections::BTreeMap, time::Duration};

/// The jobs, as in compose.
const JOBS: [&str; 10] = [
    "rest-api",
    "mcp-server",
    "worker",
    "postgres",
    "redis",
    "prometheus",
    "alertmanager",
    "loki",
    "otel-collector",
    "jaeger",
];
/// Several scrapes and evaluations.
const PATIENCE: Duration = Duration::from_secs(180);

/// Waits for it.
pub(crate) async fn check(prometheus: &str) -> anyhow::Result<()> {
    let http = http_client();
    let get = async |path: &str| -> anyhow::Result<Json> {
        let answer = http.get(format!("{prometheus}{path}")).send().await?;
        Ok(serde_json::from_str(&answer.error_for_status()?.text().await?)?)
    };
    let findings = RefCell::new(Vec::new());
    let told = wait_at_most(PATIENCE, "all targets up, all rules healthy", async || {
        // Not in every turn of the loop: it asks for a lot.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let targets = get("/api/v1/targets?state=active").await;
        let rules = get("/api/v1/rules").await;
        let (mut found, told) = match (targets, rules) {
            (Ok(targets), Ok(rules)) => look(&targets["data"], &rules["data"]),
            (Err(error), _) | (_, Err(error)) => (vec![format!("{error:#}")], String::new()),
        };
        let good = found.is_empty();
        findings.borrow_mut().clear();
        findings.borrow_mut().append(&mut found);
        good.then_some(told)
    });
    match told.await {
        Ok(told) => {
            println!("{told}");
            Ok(())
        }
        Err(error) => Err(error.context(findings.into_inner().join("\n"))),
    }
}

/// What is wrong, and in how many words what is right.
fn look(targets: &Json, rules: &Json) -> (Vec<String>, String) {
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let mut findings = Vec::new();
    let mut jobs = BTreeMap::<String, usize>::new();
    for target in list(&targets["activeTargets"]) {
        let labels = &target["labels"];
        *jobs.entry(text(&labels["job"])).or_default() += 1;
        if target["health"] != "up" {
            let (job, instance) = (text(&labels["job"]), text(&labels["instance"]));
            let (health, why) = (text(&target["health"]), text(&target["lastError"]));
            findings.push(format!("{job} {instance} is {health}: {why}"));
        }
    }
    let missing = JOBS.iter().filter(|job| !jobs.contains_key(**job));
    findings.extend(missing.map(|job| format!("{job} has no target")));
    let groups = list(&rules["groups"]);
    let rules: Vec<Json> = groups.iter().flat_map(|group| list(&group["rules"])).collect();
    if rules.is_empty() {
        findings.push("there are no rules".to_owned());
    }
    for rule in rules.iter().filter(|rule| rule["health"] != "ok") {
        let (name, health, why) = (
            text(&rule["name"]),
            text(&rule["health"]),
            text(&rule["lastError"]),
        );
        findings.push(format!("rule {name} is {health}: {why}"));
    }
    let jobs: Vec<_> = jobs.iter().map(|(job, count)| format!("{job} {count}")).collect();
    (
        findings,
        format!("targets up: {}; {} rules healthy", jobs.join(", "), rules.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_down_or_broken_is_told() {
        let target =
            |job: &str, health: &str| json!({ "labels": { "job": job, "instance": "a" }, "health": health });
        let all: Vec<_> = JOBS.iter().map(|job| target(job, "up")).collect();
        let rules = json!({ "groups": [{ "rules": [{ "name": "r", "health": "ok" }] }] });
        assert!(look(&json!({ "activeTargets": all }), &rules).0.is_empty());
        let mut worse = all[1..].to_vec();
        worse.push(target("worker", "down"));
        let broken = json!({ "groups": [{ "rules": [{ "name": "r", "health": "err", "lastError": "x" }] }] });
        let (findings, _) = look(&json!({ "activeTargets": worse }), &broken);
        assert_eq!(
            findings,
            ["worker a is down: ", "rest-api has no target", "rule r is err: x"]
        );
    }
}
