use super::super::{
    testing::{call, call_for, sources},
    traces::tests::{FAST, MIXED, SLOW, bears_its_source, jaeger, keeping, large},
};
use super::*;

#[tokio::test]
async fn says_where_the_time_went() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let answer = call::<Tool>(&sources, json!({ "slow": SLOW, "fast": FAST }))
        .await
        .unwrap();
    assert_eq!(
        (&answer["slow"]["duration_ms"], &answer["fast"]["duration_ms"]),
        (&json!(120), &json!(30))
    );
    assert_eq!(answer["difference_ms"], 90);
    let first = &answer["where"][0];
    assert_eq!(
        first["path"],
        "mcp-server POST /mcp > mcp-server tools/call weather > rest-api Executions/Run > worker ToolRunner/Run"
    );
    assert_eq!(
        (&first["difference_ms"], &first["fast"], &first["slow"]["errors"]),
        (&json!(80), &Value::Null, &json!(1))
    );
    let all: f64 = answer["where"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|at| at["difference_ms"].as_f64())
        .sum();
    assert!((all - 90.0).abs() < 1e-6, "{answer}");

    let turned = call::<Tool>(&sources, json!({ "slow": FAST, "fast": SLOW }))
        .await
        .unwrap();
    assert!(turned["notes"].to_string().contains("is the faster one"));
}

#[tokio::test]
async fn many_places_are_cut_and_summed() {
    let mut many = large(1500);
    many["data"][0]["spans"].as_array_mut().unwrap().truncate(1);
    let fake = keeping(many).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    let answer = call::<Tool>(&sources, json!({ "slow": FAST, "fast": SLOW }))
        .await
        .unwrap();
    assert_eq!(answer["where"].as_array().unwrap().len(), MOST);
    assert_eq!(answer["truncated"]["shown"], MOST);
    assert!(
        answer["notes"][0].as_str().unwrap().contains("not shown make"),
        "{answer}"
    );
    assert!(answer.to_string().len() <= answer::MAX_BYTES);
}

#[tokio::test]
async fn both_must_be_the_callers() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    for pair in [
        json!({ "slow": SLOW, "fast": MIXED }),
        json!({ "slow": MIXED, "fast": SLOW }),
    ] {
        let failure = call_for::<Tool>(&sources, "acme", pair).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArguments);
        assert!(failure.message.contains(MIXED), "{}", failure.message);
    }
}

#[tokio::test]
async fn wrong_input_is_told_before_anything_is_asked() {
    let fake = keeping(jaeger()).await;
    let sources = sources([("traces", Kind::Jaeger, &fake.url)]);
    for wrong in [
        json!({ "slow": SLOW }),
        json!({ "slow": SLOW, "fast": SLOW }),
        json!({ "slow": "x", "fast": SLOW }),
    ] {
        let failure = call::<Tool>(&sources, wrong.clone()).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArguments, "{wrong}");
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn bears_whatever_happens_to_its_source() {
    bears_its_source::<Tool>(json!({ "slow": SLOW, "fast": FAST })).await;
}
