use super::*;
use crate::tools::observe::{
    endures::endures,
    testing::{self, Fake},
};

fn samples(samples: &[(Value, &str)]) -> Value {
    let result = samples
        .iter()
        .map(|(labels, value)| json!({ "metric": labels, "value": [1_793_620_800.0, value] }));
    json!({ "status": "success", "data": { "resultType": "vector", "result": result.collect::<Vec<_>>() } })
}

async fn fake() -> Fake {
    let fake = Fake::start().await;
    fake.on_fn("/api/v1/query", |asked| {
        if !asked.param("query").contains("slo:sli_error") {
            let of = |tool: &str| json!({ "service": "mcp-server", "tool": tool });
            return samples(&[(of("weather"), "0.3"), (of("billing"), "0.1"), (of("idle"), "0")]);
        }
        let slo = |metric: &str, slo: &str| json!({ "__name__": metric, "slo": slo });
        let of = |metric: &str, slo: &str| json!({ "__name__": metric, "slo": slo, "service": "mcp-server" });
        samples(&[
            (slo("slo:error_budget:ratio", "McpToolLatency"), "0.05"),
            (slo("slo:objective:ratio", "McpToolLatency"), "0.95"),
            (slo("slo:time_period:days", "McpToolLatency"), "30"),
            (of("slo:sli_error:ratio_rate5m", "McpToolLatency"), "0.9"),
            (of("slo:sli_error:ratio_rate1h", "McpToolLatency"), "0.8"),
            (
                of("slo:period_error_budget_remaining:ratio", "McpToolLatency"),
                "0.4",
            ),
            (slo("slo:error_budget:ratio", "ApiAvailability"), "0.001"),
            (of("slo:sli_error:ratio_rate5m", "ApiAvailability"), "0"),
            (of("slo:sli_error:ratio_rate1h", "ApiAvailability"), "0"),
        ])
    });
    fake
}

#[tokio::test]
async fn the_budget_that_burns_comes_first_with_what_burns_it() {
    let fake = fake().await;
    let sources = testing::sources([("metrics", Kind::Prometheus, &fake.url)]);
    let answer = testing::call::<Tool>(&sources, json!({})).await.unwrap();
    assert_eq!(
        answer["summary"],
        "McpToolLatency of mcp-server burns 18 times too fast over 5m and 1h (page)."
    );
    let first = &answer["slos"][0];
    assert_eq!(
        (&first["slo"], &first["state"]),
        (&json!("McpToolLatency"), &json!("page"))
    );
    assert_eq!(first["objective_percent"], 95);
    assert_eq!(
        first["services"][0],
        json!({ "service": "mcp-server", "state": "page", "budget_left": 0.4, "burn": { "5m": 18, "1h": 16 } })
    );
    assert_eq!(
        first["burning"],
        json!([
            { "service": "mcp-server", "tool": "weather", "share": 0.75 },
            { "service": "mcp-server", "tool": "billing", "share": 0.25 },
        ])
    );
    assert_eq!(answer["slos"][1]["state"], "ok");
    // Nothing burns the other, so nothing was asked.
    assert_eq!(fake.asked().len(), 2);
}

#[tokio::test]
async fn one_objective_is_asked_for_by_its_name() {
    let fake = fake().await;
    let sources = testing::sources([("metrics", Kind::Prometheus, &fake.url)]);
    let answer = testing::call::<Tool>(&sources, json!({ "slo": "ApiAvailability" })).await;
    assert_eq!(answer.unwrap()["slos"].as_array().map(Vec::len), Some(1));
    let unknown = testing::call::<Tool>(&sources, json!({ "slo": "Nope" }))
        .await
        .unwrap_err();
    assert_eq!(unknown.code, Code::InvalidArguments);
    assert!(
        unknown.message.contains("ApiAvailability, McpToolLatency"),
        "{unknown}"
    );
    let refused = testing::call::<Tool>(&sources, json!({ "name": "x" }))
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::InvalidArguments);
}

#[tokio::test]
async fn a_tenant_asks_for_its_own_alone_and_many_are_cut() {
    let fake = Fake::start().await;
    fake.on_fn("/api/v1/query", |_| {
        let many = (0..300).map(|n| {
            let labels =
                json!({ "__name__": "slo:sli_error:ratio_rate1h", "slo": format!("s{n}"), "service": "x" });
            (labels, "0.1")
        });
        samples(&many.collect::<Vec<_>>())
    });
    let sources = testing::sources([("metrics", Kind::Prometheus, &fake.url)]);
    let answer = testing::call_for::<Tool>(&sources, "acme", json!({}))
        .await
        .unwrap();
    assert_eq!(answer["truncated"], json!({ "shown": 40, "of": 300 }));
    assert!(answer.to_string().len() <= answer::MAX_BYTES);
    assert!(
        fake.asked()
            .iter()
            .all(|asked| asked.param("query").contains(r#"tenant_id="acme""#))
    );
}

#[tokio::test]
async fn trouble_is_endured() {
    endures::<Tool>(Kind::Prometheus, "/api/v1/query", json!({})).await;
}
