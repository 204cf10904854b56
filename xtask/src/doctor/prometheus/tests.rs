use super::*;
use serde_json::json;
use std::path::PathBuf;

fn root() -> PathBuf {
    crate::workspace::Workspace::find()
        .expect("tests run in the workspace")
        .root
}

fn problem(found: Found) -> Problem {
    match found {
        Found::Failed(problem) | Found::Warning(problem) => problem,
        other => panic!("nothing is wrong: {other:?}"),
    }
}

fn targets_of(health: [(&str, &str, &str); 3]) -> Value {
    let targets = health.map(|(job, health, error)| {
        json!({ "labels": { "job": job }, "health": health, "lastError": error, "scrapeUrl": format!("http://{job}/metrics") })
    });
    json!({ "activeTargets": targets })
}

#[test]
fn a_target_that_is_down_or_missing_is_told_with_its_last_error() {
    let data = targets_of([
        ("rest-api", "up", ""),
        ("worker", "down", "connection refused"),
        ("loki", "down", "no such host"),
    ]);
    assert_eq!(target("rest-api", &data), Found::Ok("up".to_owned()));
    let down = problem(target("worker", &data));
    assert_eq!(down.came, "http://worker/metrics is down: connection refused");
    assert!(
        problem(target("mcp-server", &data))
            .means
            .contains("does not know of mcp-server")
    );
    assert!(matches!(others(&data), Some(Found::Warning(problem)) if problem.came.contains("loki")));
    assert!(!is_scraped(&data));
    let new = targets_of([
        ("rest-api", "up", ""),
        ("worker", "up", ""),
        ("mcp-server", "unknown", ""),
    ]);
    assert!(!is_scraped(&new));
}

/// What Prometheus would answer when it had loaded what is shipped.
fn loaded(shipped: &Shipped, health: &str) -> Value {
    let groups = shipped.groups.iter().map(|(group, names)| {
        let rules = names
            .iter()
            .map(|name| json!({ "name": name, "health": health, "lastError": "many-to-many" }));
        json!({ "name": group, "rules": rules.collect::<Vec<_>>() })
    });
    json!({ "groups": groups.collect::<Vec<_>>() })
}

#[test]
fn each_rule_of_the_clone_must_be_loaded_and_evaluate() -> anyhow::Result<()> {
    let shipped = shipped(&root().join("alerts"))?;
    assert!(
        shipped
            .alerts
            .contains(&("Watchdog".to_owned(), "none".to_owned()))
    );
    let mut data = loaded(&shipped, "ok");
    assert!(matches!(evaluated(&shipped, &data), Found::Ok(_)));
    let group = data["groups"].as_array_mut().and_then(Vec::pop);
    let name = text(&group.unwrap_or_default()["name"]);
    assert!(
        problem(evaluated(&shipped, &data))
            .came
            .contains(&format!("group {name}"))
    );
    let rule = data["groups"][0]["rules"].as_array_mut().and_then(Vec::pop);
    let name = text(&rule.unwrap_or_default()["name"]);
    assert!(problem(evaluated(&shipped, &data)).came.contains(&name));
    assert!(
        problem(evaluated(&shipped, &loaded(&shipped, "err")))
            .came
            .contains("many-to-many")
    );
    assert!(matches!(
        evaluated(&shipped, &loaded(&shipped, "unknown")),
        Found::Note(_)
    ));
    Ok(())
}

#[test]
fn data_must_be_there_of_what_is_scraped_and_be_fresh() {
    let sample = |name: &str, job: &str| (json!({ "__name__": name, "job": job }), 1.0);
    let (_, names) = DATA[2];
    let mut samples: Vec<_> = names.iter().map(|name| sample(name, "worker")).collect();
    assert!(matches!(complete(&samples, &["worker"]), Found::Note(_)));
    samples.push(sample(EXECUTIONS, "rest-api"));
    assert!(matches!(complete(&samples, &["worker"]), Found::Ok(_)));
    assert!(
        problem(complete(&samples, &["worker", "rest-api"]))
            .came
            .contains("build_info of rest-api")
    );
    assert!(matches!(age("", &[(json!({}), 3.0)]), Found::Ok(_)));
    assert_eq!(
        problem(age("", &[(json!({}), 3.0), (json!({}), 200.0)])).came,
        "200 s"
    );
    assert_eq!(problem(age("", &[])).came, "no data");
}

#[test]
fn prometheus_without_an_alertmanager_tells_nobody() {
    let one = json!({ "activeAlertmanagers": [{ "url": "http://alertmanager:9093/api/v2/alerts" }] });
    assert!(matches!(discovered(&one), Found::Ok(_)));
    assert!(
        problem(discovered(&json!({ "activeAlertmanagers": [] })))
            .remedy
            .contains("AlertmanagerMissing")
    );
}

#[test]
fn the_metrics_looked_for_are_ours() -> anyhow::Result<()> {
    let page = fs::read_to_string(root().join("docs/METRICS.md"))?;
    for name in DATA
        .iter()
        .flat_map(|(_, names)| names.iter())
        .chain([&EXECUTIONS])
    {
        let declared = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(page.contains(&format!("| `{declared}` |")), "{name}");
    }
    Ok(())
}
