use super::*;
use crate::tools::observe::{
    endures::endures,
    testing::{self, Asked, Fake},
};

const EXPR: &str = "sum by (service) (rate(http_requests_total{status=~\"5..\"}[5m])) > 0.05";

fn samples(samples: &[(Value, &str)]) -> Value {
    let result = samples
        .iter()
        .map(|(labels, value)| json!({ "metric": labels, "value": [1_793_620_800.0, value] }));
    json!({ "status": "success", "data": { "resultType": "vector", "result": result.collect::<Vec<_>>() } })
}

/// As Prometheus tells of its rules. `tenants`: whose instances there are.
fn rules(tenants: &[&str]) -> Value {
    let alerts = tenants.iter().map(|tenant| {
        json!({
            "labels": { "alertname": "HighErrorRate", "service": "rest-api", "severity": "critical", "tenant_id": tenant },
            "annotations": { "description": format!("20% fail ({tenant})"), "runbook_url": "https://x/HighErrorRate.md" },
            "state": "firing", "activeAt": "2026-11-02T11:46:00.123456789Z", "value": "2e-01",
        })
    });
    let rule = |name: &str| {
        json!({
            "state": "firing", "name": name, "query": EXPR, "duration": 300, "keepFiringFor": 0,
            "labels": { "severity": "critical" }, "annotations": { "description": "{{ $value }} fail" },
            "alerts": alerts.clone().collect::<Vec<_>>(), "health": "ok", "lastEvaluation": "2026-11-02T12:00:00Z",
            "evaluationTime": 0.0004, "type": "alerting",
        })
    };
    let group =
        json!({ "name": "g", "file": "f", "interval": 30, "rules": [rule("Other"), rule("HighErrorRate")] });
    json!({ "status": "success", "data": { "groups": [group] } })
}

fn measured(asked: &Asked) -> Value {
    let query = asked.param("query");
    if query.starts_with("topk(11,") {
        let of = |service: &str| json!({ "service": service });
        return samples(&[(of("mcp-server"), "0"), (of("rest-api"), "0.2")]);
    }
    if query.contains("count by (__name__)") {
        return samples(&[(
            json!({ "figure": "service", "__name__": "http_requests_total" }),
            "4",
        )]);
    }
    if query.contains("http failed") {
        let of = json!({ "figure": "http failed", "method": "POST", "path": "/api/v1/contexts" });
        return samples(&[(of, "1.5")]);
    }
    samples(&[])
}

struct Stack {
    metrics: Fake,
    logs: Fake,
    traces: Fake,
    alertmanager: Fake,
}

impl Stack {
    async fn start(tenants: &[&str]) -> Self {
        let (metrics, logs, traces, alertmanager) =
            tokio::join!(Fake::start(), Fake::start(), Fake::start(), Fake::start());
        metrics
            .on("/api/v1/rules", rules(tenants))
            .on_fn("/api/v1/query", measured);
        let line =
            |second: i64, text: &str| json!([format!("{}", (1_793_620_000 + second) * 1_000_000_000), text]);
        let values = [
            line(1, "request 17 failed"),
            line(2, "request 18 failed"),
            line(3, "pool is full"),
        ];
        let stream = json!({ "stream": { "service": "rest-api", "level": "error" }, "values": values });
        logs.on(
            "/loki/api/v1/query_range",
            json!({ "status": "success", "data": { "resultType": "streams", "result": [stream] } }),
        );
        traces.on(
            "/api/traces",
            json!({ "data": [trace()], "total": 0, "limit": 0, "offset": 0, "errors": null }),
        );
        alertmanager.on("/api/v2/alerts", json!([]));
        Self {
            metrics,
            logs,
            traces,
            alertmanager,
        }
    }

    fn sources(&self) -> crate::sources::Sources {
        testing::sources([
            ("alerts", Kind::Alertmanager, &self.alertmanager.url),
            ("logs", Kind::Loki, &self.logs.url),
            ("metrics", Kind::Prometheus, &self.metrics.url),
            ("traces", Kind::Jaeger, &self.traces.url),
        ])
    }
}

fn trace() -> Value {
    json!({
        "traceID": "5b8aa5a2d2c872e8321cf37308d69df2",
        "spans": [{
            "traceID": "5b8aa5a2d2c872e8321cf37308d69df2", "spanID": "5fb397be34d26b51",
            "operationName": "POST /api/v1/contexts", "references": [], "startTime": 1_793_620_000_000_000_i64,
            "duration": 250_000, "logs": [], "processID": "p1", "warnings": null,
            "tags": [
                { "key": "error", "type": "bool", "value": true },
                { "key": "otel.status_code", "type": "string", "value": "ERROR" },
                { "key": "tenant_id", "type": "string", "value": "acme" },
            ],
        }],
        "processes": { "p1": { "serviceName": "rest-api", "tags": [] } },
        "warnings": null,
    })
}

#[tokio::test]
async fn all_about_an_alert_in_one_answer() {
    let stack = Stack::start(&["acme"]).await;
    let answer = testing::call::<Tool>(&stack.sources(), json!({ "alert": "HighErrorRate" }))
        .await
        .unwrap();
    assert_eq!(
        answer["summary"],
        "**HighErrorRate** (critical) fires for `rest-api` since 2026-11-02T11:46:00Z (14 min). 20% fail (acme). Its \
         expression now gives 0.2 (it fires at `> 0.05`). Failing most now: `POST /api/v1/contexts` (HTTP requests, \
         1.5/s). Around its beginning the service logged 3 warnings or errors, most often (2×): `request 17 failed`. \
         Example trace `5b8aa5a2d2c872e8321cf37308d69df2` of rest-api POST /api/v1/contexts took 250 ms, a span \
         failed."
    );
    assert_eq!(answer["state"], "firing");
    assert_eq!(answer["rules"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["rules"][0]["for"], "5m");
    assert_eq!(answer["instances"][0]["value"], 0.2);
    assert_eq!(answer["values"]["bound"], "> 0.05");
    assert_eq!(
        answer["values"]["series"][0],
        json!({ "service": "rest-api", "value": 0.2 })
    );
    assert!(answer["runbook"].as_str().unwrap().starts_with("More than 5%"));
    assert_eq!(answer["log_lines"][0]["count"], 2);
    assert_eq!(
        answer["traces"][0]["trace_id"],
        "5b8aa5a2d2c872e8321cf37308d69df2"
    );
    assert!(
        answer["links"]["trace"]
            .as_str()
            .unwrap()
            .ends_with("/trace/5b8aa5a2d2c872e8321cf37308d69df2")
    );
    assert_eq!(answer["links"]["runbook"], "https://x/HighErrorRate.md");
    assert!(answer.to_string().len() < 8192, "{}", answer.to_string().len());
    // Around its beginning.
    assert_eq!(stack.logs.last().param("start"), "1793619360123456789");
    assert_eq!(stack.traces.asked()[0].param("service"), "rest-api");
}

#[tokio::test]
async fn each_source_that_is_away_is_a_note() {
    let stack = Stack::start(&["acme"]).await;
    stack.logs.hang("/loki/api/v1/query_range");
    stack.traces.on_status("/api/traces", 500, "broken");
    stack.alertmanager.on_status("/api/v2/alerts", 503, "away");
    stack.metrics.on_status(
        "/api/v1/query",
        422,
        r#"{"status":"error","errorType":"execution","error":"too many samples"}"#,
    );
    let answer = testing::call::<Tool>(&stack.sources(), json!({ "alert": "HighErrorRate" }))
        .await
        .unwrap();
    assert_eq!(answer["instances"].as_array().map(Vec::len), Some(1));
    let notes = answer["notes"].to_string();
    for part in [
        "Alertmanager",
        "values",
        "routes",
        "log lines: not known (timeout",
        "traces",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    // Nothing but its runbook is left.
    stack.metrics.on_status("/api/v1/rules", 503, "away");
    let answer = testing::call::<Tool>(&stack.sources(), json!({ "alert": "HighErrorRate" }))
        .await
        .unwrap();
    assert_eq!(answer["state"], "inactive");
    assert!(
        answer["summary"]
            .as_str()
            .unwrap()
            .contains("is not known to be active"),
        "{answer}"
    );
    assert!(answer["runbook"].is_string());
}

#[tokio::test]
async fn a_tenant_sees_a_rule_only_where_the_alert_is_its_own() {
    let stack = Stack::start(&["globex"]).await;
    let ask = async || {
        let answer =
            testing::call_for::<Tool>(&stack.sources(), "acme", json!({ "alert": "HighErrorRate" })).await;
        answer.unwrap()
    };
    // Alertmanager knows none of this tenant: the platform's rule is none of its business, nor are its instances.
    let answer = ask().await;
    assert_eq!(answer["rules"], json!([]));
    assert!(!answer.to_string().contains("globex"), "{answer}");
    assert!(
        answer["values"].is_null() && answer["links"]["values"].is_null(),
        "{answer}"
    );

    let own = json!({
        "labels": { "alertname": "HighErrorRate", "service": "rest-api", "severity": "critical", "tenant_id": "acme" },
        "annotations": {}, "startsAt": "2026-11-02T11:51:00.000Z", "fingerprint": "a",
        "status": { "state": "suppressed", "silencedBy": ["s"], "inhibitedBy": [], "mutedBy": [] },
    });
    stack.alertmanager.on("/api/v2/alerts", json!([own]));
    stack.metrics.on("/api/v1/rules", rules(&["globex", "acme"]));
    let answer = ask().await;
    assert_eq!(answer["rules"][0]["expr"], EXPR);
    assert_eq!(answer["state"], "silenced");
    assert_eq!(answer["instances"].as_array().map(Vec::len), Some(1));
    assert!(!answer.to_string().contains("globex"), "{answer}");
    for asked in stack
        .metrics
        .asked()
        .iter()
        .filter(|asked| asked.path == "/api/v1/query")
    {
        assert!(
            asked.param("query").contains(r#"tenant_id="acme""#),
            "{}",
            asked.param("query")
        );
    }
    assert!(stack.logs.last().param("query").contains(r#"tenant_id="acme""#));
    assert!(stack.traces.last().param("tags").contains("acme"));
}

#[tokio::test]
async fn much_is_cut_and_labels_narrow_it() {
    let tenants: Vec<String> = (0..500).map(|n| format!("t{n}")).collect();
    let tenants: Vec<&str> = tenants.iter().map(String::as_str).collect();
    let stack = Stack::start(&tenants).await;
    let ask = async |arguments| testing::call::<Tool>(&stack.sources(), arguments).await.unwrap();
    let answer = ask(json!({ "alert": "HighErrorRate" })).await;
    assert_eq!(answer["truncated"], json!({ "shown": 10, "of": 500 }));
    assert!(answer.to_string().len() <= answer::MAX_BYTES);
    let answer = ask(json!({ "alert": "HighErrorRate", "labels": { "tenant_id": "t7" } })).await;
    assert_eq!(answer["instances"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn nonsense_is_refused_and_trouble_is_endured() {
    let stack = Stack::start(&[]).await;
    for arguments in [
        json!({}),
        json!({ "alert": "" }),
        json!({ "alert": "NoSuchAlert" }),
        json!({ "alert": "a", "labels": ["b"] }),
        json!({ "alert": "a", "name": "b" }),
    ] {
        let refused = testing::call::<Tool>(&stack.sources(), arguments.clone()).await;
        assert_eq!(refused.unwrap_err().code, Code::InvalidArguments, "{arguments}");
    }
    endures::<Tool>(
        Kind::Prometheus,
        "/api/v1/rules",
        json!({ "alert": "NoSuchAlert" }),
    )
    .await;
}
