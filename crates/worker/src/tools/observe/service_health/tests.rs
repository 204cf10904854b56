use super::*;
use crate::tools::observe::{
    endures::endures,
    testing::{self, Asked, Fake},
};

/// Samples as Prometheus answers an instant query with.
fn samples(samples: &[(Value, &str)]) -> Value {
    let result = samples
        .iter()
        .map(|(labels, value)| json!({ "metric": labels, "value": [1_793_620_800.0, value] }));
    json!({ "status": "success", "data": { "resultType": "vector", "result": result.collect::<Vec<_>>() } })
}

/// A service whose runs of one tool have become slow within the hour.
fn slow_tool(asked: &Asked) -> Value {
    let query = asked.param("query");
    let is_now = asked.param("time") == "1793620800.000";
    let name = |name: &str| json!({ "figure": "service", "__name__": name });
    if query.contains("count by (__name__)") {
        return samples(&[
            (name("up"), "2"),
            (name("worker_tool_runs_total"), "4"),
            (json!({ "figure": "job", "__name__": "up" }), "2"),
        ]);
    }
    if query.contains("tool_runs rate") {
        let figure = |figure: &str| json!({ "figure": format!("tool_runs {figure}") });
        let p95 = if is_now { "4.8" } else { "0.21" };
        return samples(&[
            (figure("rate"), "2"),
            (figure("failed"), "0.01"),
            (figure("p95"), p95),
        ]);
    }
    if query.contains("tool_runs slow") {
        let of = |tool: &str| json!({ "figure": "tool_runs slow", "tool": tool });
        let weather = if is_now { "4.9" } else { "0.2" };
        return samples(&[(of("billing"), "0.1"), (of("weather"), weather)]);
    }
    if query.contains("runtime_busy") {
        let figure = |figure: &str| json!({ "figure": figure });
        return samples(&[
            (figure("runtime_busy"), "0.2"),
            (figure("slots"), "0.99"),
            (figure("replicas"), "2"),
            (figure("replicas_up"), "2"),
        ]);
    }
    samples(&[])
}

#[tokio::test]
async fn a_slow_tool_is_found() {
    let (metrics, alertmanager) = (Fake::start().await, Fake::start().await);
    metrics.on_fn("/api/v1/query", slow_tool);
    let alert = json!({
        "labels": { "alertname": "WorkerOverloaded", "service": "worker", "severity": "warning" },
        "annotations": { "summary": "The worker is full" },
        "startsAt": "2026-11-02T11:50:00.000Z", "endsAt": "2026-11-02T12:05:00.000Z",
        "updatedAt": "2026-11-02T12:00:00.000Z", "fingerprint": "c1f0a3", "generatorURL": "http://p/graph",
        "receivers": [{ "name": "slack" }],
        "status": { "state": "active", "silencedBy": [], "inhibitedBy": [], "mutedBy": [] },
    });
    alertmanager.on("/api/v2/alerts", json!([alert]));
    let sources = testing::sources([
        ("metrics", Kind::Prometheus, &metrics.url),
        ("alerts", Kind::Alertmanager, &alertmanager.url),
    ]);
    let answer = testing::call::<Tool>(&sources, json!({ "service": "worker" }))
        .await
        .unwrap();
    assert_eq!(answer["verdict"], "degraded");
    assert_eq!(
        answer["reasons"],
        json!([
            "tool runs are slow: p95 4.8 s (210 ms an hour before, 210 ms a week before), slowest weather",
            "99% of the worker's slots are taken",
            "WorkerOverloaded fires (warning)",
        ])
    );
    let runs = &answer["requests"][0];
    assert_eq!(runs["now"], json!({ "rate": 2, "errors": 0.005, "p95": 4.8 }));
    assert_eq!(
        runs["slowest"][0],
        json!({ "tool": "weather", "p95": 4.9, "hour_before": 0.2 })
    );
    assert_eq!(answer["alerts"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["replicas"], json!({ "up": 2, "of": 2 }));
    assert!(answer.to_string().len() < 4096);
    let times: std::collections::BTreeSet<String> = metrics
        .asked()
        .iter()
        .map(|asked| asked.param("time").to_owned())
        .collect();
    assert_eq!(
        Vec::from_iter(times),
        ["1793016000.000", "1793617200.000", "1793620800.000"]
    );
}

#[tokio::test]
async fn a_part_that_fails_is_a_note() {
    let (metrics, alertmanager) = (Fake::start().await, Fake::start().await);
    metrics.on_fn("/api/v1/query", slow_tool);
    alertmanager.on_status("/api/v2/alerts", 503, "away");
    let sources = testing::sources([
        ("metrics", Kind::Prometheus, &metrics.url),
        ("alerts", Kind::Alertmanager, &alertmanager.url),
    ]);
    let ask = async || {
        testing::call::<Tool>(&sources, json!({ "service": "worker" }))
            .await
            .unwrap()
    };
    let answer = ask().await;
    assert_eq!(answer["verdict"], "degraded");
    assert!(
        answer["notes"].to_string().contains("alerts: not known"),
        "{answer}"
    );

    metrics.on_status("/api/v1/query", 503, "away");
    alertmanager.on("/api/v2/alerts", json!([]));
    let answer = ask().await;
    assert_eq!(answer["verdict"], "unknown");
    assert!(
        answer["notes"].to_string().contains("metrics: not known"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_was_not_measured_is_neither_health_nor_silence() {
    let metrics = Fake::start().await;
    let failing = async |part: &'static str| {
        metrics.on_fn("/api/v1/query", move |asked| {
            let query = asked.param("query");
            let is_now = asked.param("time") == "1793620800.000";
            if is_now && query.contains(part) {
                return json!({ "status": "error", "errorType": "timeout", "error": "too slow" });
            }
            if query.contains("runtime_busy") {
                let figure = |figure: &str| json!({ "figure": figure });
                return samples(&[(figure("replicas"), "2"), (figure("replicas_up"), "2")]);
            }
            slow_tool(asked)
        });
        let sources = testing::sources([("metrics", Kind::Prometheus, &metrics.url)]);
        testing::call::<Tool>(&sources, json!({ "service": "worker" }))
            .await
            .unwrap()
    };
    for (part, note) in [
        ("tool_runs rate", "requests now: not known"),
        ("count by (__name__)", "metrics: not known"),
        ("ALERTS", "alerts: not known"),
    ] {
        let answer = failing(part).await;
        let notes = answer["notes"].to_string();
        assert!(notes.contains(note), "{part}: {answer}");
        assert!(!notes.contains("no metrics of"), "{part}: {answer}");
        let reasons = answer["reasons"].to_string();
        assert!(!reasons.contains("come in"), "{part}: {answer}");
        assert_ne!(answer["verdict"], "healthy", "{part}: {answer}");
        if answer["verdict"] == "unknown" {
            assert!(
                answer["summary"]
                    .to_string()
                    .contains("not everything could be asked"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_tenant_asks_for_its_own_alone() {
    let (metrics, alertmanager) = (Fake::start().await, Fake::start().await);
    metrics.on_fn("/api/v1/query", slow_tool);
    alertmanager.on("/api/v2/alerts", json!([]));
    let sources = testing::sources([
        ("metrics", Kind::Prometheus, &metrics.url),
        ("alerts", Kind::Alertmanager, &alertmanager.url),
    ]);
    testing::call_for::<Tool>(&sources, "acme", json!({ "service": "worker" }))
        .await
        .unwrap();
    for asked in metrics.asked() {
        let query = promql_parser::parser::parse(asked.param("query"))
            .unwrap()
            .to_string();
        let selectors = query.matches('{').count();
        assert!(selectors > 0);
        assert_eq!(query.matches(r#"tenant_id="acme""#).count(), selectors, "{query}");
    }
    for asked in alertmanager.asked() {
        assert!(asked.all("filter").contains(&r#"tenant_id="acme""#));
    }
    let other = testing::call_for::<Tool>(&sources, "globex", json!({ "service": "worker" })).await;
    assert_eq!(other.unwrap_err().code, Code::UnknownSource);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_answered_with_those_that_are() {
    let metrics = Fake::start().await;
    metrics.on_fn("/api/v1/query", |asked| {
        if asked.param("query").contains("count by (service, job)") {
            samples(&[(json!({ "service": "rest-api", "job": "api" }), "3")])
        } else {
            samples(&[])
        }
    });
    let sources = testing::sources([("metrics", Kind::Prometheus, &metrics.url)]);
    let answer = testing::call::<Tool>(&sources, json!({ "service": "rest" }))
        .await
        .unwrap();
    assert_eq!(answer["verdict"], "unknown");
    assert!(
        answer["notes"].to_string().contains("there are: api, rest-api"),
        "{answer}"
    );
    assert_eq!(answer["summary"], "Nothing is known of rest.");
}

#[tokio::test]
async fn nonsense_is_refused_and_trouble_is_endured() {
    let sources = testing::sources([("metrics", Kind::Prometheus, "http://127.0.0.1:1")]);
    for arguments in [
        json!({}),
        json!({ "service": "" }),
        json!({ "service": "x".repeat(201) }),
        json!({ "service": "a", "label": "1b" }),
        json!({ "service": "a", "label": "a\"}" }),
        json!({ "service": "a", "hours": 3 }),
    ] {
        let refused = testing::call::<Tool>(&sources, arguments.clone()).await;
        assert_eq!(refused.unwrap_err().code, Code::InvalidArguments, "{arguments}");
    }
    endures::<Tool>(
        Kind::Prometheus,
        "/api/v1/query",
        json!({ "service": "rest-api" }),
    )
    .await;
}
