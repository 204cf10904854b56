use super::super::{
    testing::{Fake, call, call_for, sources},
    traces::tests::{FAST, MIXED, SLOW, bears_its_source, jaeger, keeping, large},
};
use super::*;
use serde_json::json;

fn ids(answer: &Value) -> Vec<&str> {
    let traces = answer["traces"].as_array().unwrap().iter();
    traces.map(|trace| trace["trace_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn finds_traces_newest_first() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let arguments = json!({
        "service": "mcp-server", "operation": "POST /mcp", "min_duration": "10ms", "max_duration": "2s",
        "tags": { "tool": "weather" }, "start": "-2h", "end": "-1h", "limit": 3,
    });
    let answer = call::<Tool>(&sources, arguments).await.unwrap();
    assert_eq!(ids(&answer), [MIXED, FAST, SLOW]);
    let slow = &answer["traces"][2];
    assert_eq!(slow["root"], "mcp-server POST /mcp");
    assert_eq!(
        (&slow["duration_ms"], &slow["spans"], &slow["errors"]),
        (&json!(120), &json!(6), &json!(1))
    );
    assert_eq!(slow["error"], "worker ToolRunner/Run: upstream timed out");
    assert_eq!(
        slow["services"],
        json!({ "mcp-server": 2, "rest-api": 3, "worker": 1 })
    );
    assert!(
        answer["notes"][0].as_str().unwrap().contains("there may be more"),
        "{answer}"
    );

    let asked = fake.last();
    let params = [
        "service",
        "operation",
        "minDuration",
        "maxDuration",
        "tags",
        "limit",
        "start",
        "end",
    ];
    assert_eq!(
        params.map(|name| asked.param(name)),
        [
            "mcp-server",
            "POST /mcp",
            "10000us",
            "2000000us",
            r#"{"tool":"weather"}"#,
            "3",
            "1793613600000000",
            "1793617200000000"
        ]
    );
}

#[tokio::test]
async fn a_tenant_finds_his_own_only() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let search = async |arguments| call_for::<Tool>(&sources, "acme", arguments).await;
    let answer = search(json!({ "service": "mcp-server" })).await.unwrap();
    // One that somebody else has a part in is not his, though the source found it by his attribute.
    assert_eq!(ids(&answer), [FAST, SLOW]);
    assert_eq!(fake.last().param("tags"), r#"{"tenant_id":"acme"}"#);

    let others = search(json!({ "service": "mcp-server", "tags": { "tenant_id": "globex" } })).await;
    assert_eq!(others.unwrap_err().code, Code::InvalidArguments);
    let nobody = call_for::<Tool>(&sources, "globex", json!({ "service": "mcp-server" })).await;
    assert_eq!(nobody.unwrap_err().code, Code::UnknownSource);
}

#[tokio::test]
async fn failed_ones_are_found_where_the_store_does_not_know_them() {
    let fake = Fake::start().await;
    fake.on_fn("/api/traces", |asked| {
        match asked.param("tags").contains("error") {
            true => json!({ "data": [], "errors": null }),
            false => jaeger(),
        }
    });
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let answer = call::<Tool>(&sources, json!({ "service": "worker", "errors_only": true }))
        .await
        .unwrap();
    assert_eq!(ids(&answer), [SLOW]);
    assert_eq!(fake.asked()[0].param("tags"), r#"{"error":"true"}"#);
}

#[tokio::test]
async fn fewer_are_asked_for_where_they_are_large_and_the_answer_stays_small() {
    let fake = Fake::start().await;
    fake.on_fn("/api/traces", |asked| {
        match asked.param("limit").parse().unwrap_or(0) {
            limit if limit > 5 => json!({ "data": ["x".repeat(2 << 20)] }),
            _ => large(300),
        }
    });
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let answer = call::<Tool>(&sources, json!({ "service": "shop", "limit": 100 }))
        .await
        .unwrap();
    assert_eq!(ids(&answer).len(), 2);
    assert!(
        answer["notes"].to_string().contains("only 5 were asked for"),
        "{answer}"
    );
    let limits: Vec<_> = fake
        .asked()
        .iter()
        .map(|asked| asked.param("limit").to_owned())
        .collect();
    assert_eq!(limits, ["100", "25", "6", "5"]);
    assert!(answer.to_string().len() < 4096);
}

#[tokio::test]
async fn wrong_input_is_told_before_anything_is_asked() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    for wrong in [
        json!({}),
        json!({ "service": " " }),
        json!({ "service": "x", "min_duration": "fast" }),
        json!({ "service": "x", "min_duration": "2s", "max_duration": "1s" }),
        json!({ "service": "x", "limit": 0 }),
        json!({ "service": "x", "limit": 101 }),
        json!({ "service": "x", "start": "yesterday" }),
        json!({ "service": "x", "start": "-90d" }),
        json!({ "service": "x", "tags": { "a": 1 } }),
    ] {
        let failure = call::<Tool>(&sources, wrong.clone()).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArguments, "{wrong}");
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn bears_whatever_happens_to_its_source() {
    bears_its_source::<Tool>(json!({ "service": "mcp-server" })).await;
}

#[tokio::test]
async fn nothing_found_is_said() {
    let fake = keeping(json!({ "data": [], "errors": null })).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let answer = call_for::<Tool>(&sources, "acme", json!({ "service": "nope" }))
        .await
        .unwrap();
    assert_eq!(answer["traces"], json!([]));
    assert!(
        answer["notes"][0]
            .as_str()
            .unwrap()
            .contains("those of your grant too")
    );
}
