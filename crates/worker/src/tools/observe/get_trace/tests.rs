use super::super::{
    testing::{call, call_for, sources},
    traces::tests::{MIXED, SLOW, bears_its_source, jaeger, keeping, large},
};
use super::*;

#[tokio::test]
async fn reads_a_trace() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let answer = call::<Tool>(&sources, json!({ "trace_id": SLOW.to_uppercase() }))
        .await
        .unwrap();
    assert_eq!(answer["errors"][0]["span"], "worker ToolRunner/Run");
    assert_eq!(answer["errors"][0]["error"], "upstream timed out");
    assert_eq!(answer["errors"][0]["attributes"]["retry"], "true");
    assert_eq!(answer["errors"][0]["called_by"], "rest-api Executions/Run");
    let first = &answer["critical_path"][0];
    assert_eq!(
        *first,
        json!({ "span": "worker ToolRunner/Run", "ms": 80, "percent": 66, "spans": 1 })
    );
    let spans = answer["spans"].as_array().unwrap();
    let shown: Vec<_> = spans
        .iter()
        .map(|span| (&span["depth"], &span["operation"], &span["self_ms"]))
        .collect();
    let expected = [
        (0, "POST /mcp", 10),
        (1, "tools/call weather", 10),
        (2, "Executions/Run", 9),
        (3, "INSERT executions", 6),
        (3, "ToolRunner/Run", 80),
        (3, "UPDATE executions", 5),
    ]
    .map(|(depth, operation, own)| (json!(depth), json!(operation), json!(own)));
    assert_eq!(
        shown,
        expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>()
    );
    assert_eq!(answer["url"], format!("{}/trace/{SLOW}", fake.url));
    assert!(
        answer.get("truncated").is_none() && answer.get("notes").is_none(),
        "{answer}"
    );
    assert!(answer.to_string().len() < 4096, "{}", answer.to_string().len());
}

#[tokio::test]
async fn what_is_not_a_tenants_does_not_exist_for_him() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let read = async |id: &str| call_for::<Tool>(&sources, "acme", json!({ "trace_id": id })).await;
    assert_eq!(read(SLOW).await.unwrap()["trace_id"], SLOW);
    let mixed = read(MIXED).await.unwrap_err();
    let none = "ffffffffffffffffffffffffffffffff";
    let missing = read(none).await.unwrap_err();
    assert_eq!(mixed.code, missing.code);
    assert_eq!(
        mixed.message.replace(MIXED, ""),
        missing.message.replace(none, "")
    );
}

#[tokio::test]
async fn a_huge_trace_keeps_what_failed() {
    let fake = keeping(large(1500)).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    for (most, fewest) in [(30, 30), (500, 100)] {
        let arguments = json!({ "trace_id": SLOW, "max_spans": most });
        let answer = call::<Tool>(&sources, arguments).await.unwrap();
        assert!(answer.to_string().len() <= MAX_BYTES);
        let spans = answer["spans"].as_array().unwrap();
        assert!((fewest..=most).contains(&spans.len()), "{}", spans.len());
        assert!(spans.iter().any(|span| span["error"] == true));
        let left_out: u64 = spans.iter().filter_map(|span| span["left_out"].as_u64()).sum();
        assert_eq!(left_out, 1500 - spans.len() as u64);
        assert_eq!(answer["truncated"], json!({ "shown": spans.len(), "of": 1500 }));
        assert!(answer["notes"][0].as_str().unwrap().contains("max_spans"));
    }
}

#[tokio::test]
async fn wrong_input_is_told_before_anything_is_asked() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    for wrong in [
        json!({}),
        json!({ "trace_id": "debug-123" }),
        json!({ "trace_id": "abc" }),
        json!({ "trace_id": "../services" }),
        json!({ "trace_id": SLOW, "max_spans": 0 }),
        json!({ "trace_id": SLOW, "max_spans": 501 }),
    ] {
        let failure = call::<Tool>(&sources, wrong.clone()).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArguments, "{wrong}");
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn bears_whatever_happens_to_its_source() {
    bears_its_source::<Tool>(json!({ "trace_id": SLOW })).await;
}
