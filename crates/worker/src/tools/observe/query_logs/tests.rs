use super::*;
use crate::tools::observe::{
    endures::endures,
    testing::{Fake, call, call_for, sources},
};
use serde_json::json;

const PATH: &str = "/loki/api/v1/query_range";

/// One stream for each line, as Loki 3.7 answers where each has structured metadata of its own.
fn streams(lines: impl Iterator<Item = (u64, String)>) -> Value {
    let stream = |(second, line): (u64, String)| {
        json!({
            "stream": {
                "detected_level": "error", "environment": "local", "level": "error", "service": "rest-api",
                "request_id": format!("req-{second}"), "trace_id": format!("{second:032x}"),
            },
            "values": [[format!("{}000000000", 1_793_620_000 + second), line]],
        })
    };
    let result: Vec<Value> = lines.map(stream).collect();
    json!({ "status": "success", "data": { "resultType": "streams", "result": result, "stats": {} } })
}

fn failed(count: u64) -> Value {
    let line = |n| {
        json!({ "level": "ERROR", "message": format!("took {n} ms"), "target": "store", "trace_id": "x" })
            .to_string()
    };
    streams((0..count).map(|n| (n, line(n))))
}

#[tokio::test]
async fn lines_that_say_the_same_come_once() {
    let fake = Fake::start().await;
    fake.on(PATH, failed(3));
    let sources = sources([("logs", Kind::Loki, &fake.url)]);
    let arguments =
        json!({ "service": "rest-api", "level": "warn", "text": "took", "trace_id": "ab", "start": "-15m" });
    let answer = call::<Tool>(&sources, arguments).await.unwrap();
    let query = r#"{service="rest-api", level=~"warn|error"} |~ "(?i)took" | trace_id="ab""#;
    assert_eq!(
        answer,
        json!({
            "source": "logs",
            "query": query,
            "start": "2026-11-02T11:45:00Z",
            "end": "2026-11-02T12:00:00Z",
            "lines_read": 3,
            "lines": [{
                "count": 3, "first": "2026-11-02T11:46:40Z", "last": "2026-11-02T11:46:42Z", "service": "rest-api",
                "level": "error", "line": "store: took 2 ms", "trace_id": format!("{:032x}", 2), "request_id": "req-2",
            }],
        })
    );
    let asked = fake.last();
    assert_eq!(asked.param("query"), query);
    assert_eq!(asked.param("start"), "1793619900000000000");
    assert_eq!(
        (asked.param("limit"), asked.param("direction")),
        ("1000", "backward")
    );
}

#[tokio::test]
async fn what_is_left_out_is_told() {
    let fake = Fake::start().await;
    let sources = sources([("logs", Kind::Loki, &fake.url)]);
    let line = |n: u64| (n, "ab".repeat(usize::try_from(n).unwrap() + 1));
    fake.on(PATH, streams((0..30).map(line)));
    let answer = call::<Tool>(&sources, json!({ "limit": 4, "direction": "forward" }))
        .await
        .unwrap();
    assert_eq!(answer["truncated"], json!({ "shown": 4, "of": 30 }));
    assert_eq!(answer["lines"][0]["line"], "ab");
    assert_eq!(answer["notes"].as_array().unwrap().len(), 1);

    fake.on(PATH, failed(1000));
    let answer = call::<Tool>(&sources, json!({ "query": r#"{service="x"}"# }))
        .await
        .unwrap();
    assert_eq!(answer["lines"][0]["count"], 1000);
    assert!(answer["notes"][0].as_str().unwrap().contains("newest 1000 lines"));

    fake.on(PATH, streams(std::iter::empty()));
    let answer = call::<Tool>(&sources, json!({})).await.unwrap();
    assert!(answer["notes"][0].as_str().unwrap().contains("log_labels"));
}

#[tokio::test]
async fn long_lines_are_read_in_smaller_numbers_and_cut() {
    let fake = Fake::start().await;
    fake.on_fn(PATH, |asked| {
        let limit: u64 = asked.param("limit").parse().unwrap();
        let words = |n: u64| "word ".repeat(usize::try_from(n).unwrap() + 1);
        streams((0..limit).map(|n| (n, words(n) + &"y".repeat(8_000))))
    });
    let sources = sources([("logs", Kind::Loki, &fake.url)]);
    let answer = call::<Tool>(&sources, json!({ "limit": 200 })).await.unwrap();
    assert_eq!(answer["lines_read"], 50);
    assert!(answer["notes"][0].as_str().unwrap().contains("newest 50 lines"));
    assert!(answer.to_string().len() <= crate::tools::observe::answer::MAX_BYTES);
}

#[tokio::test]
async fn a_tenant_asks_for_its_own_streams_only() {
    let fake = Fake::start().await;
    fake.on(PATH, failed(1));
    let sources = sources([("logs", Kind::Loki, &fake.url)]);
    for (arguments, sent) in [
        (json!({}), r#"{tenant_id="acme", service=~".+"}"#),
        (
            json!({ "query": r#"sum(rate({a="b"}[1m])) / sum(rate({tenant_id="globex"}[1m]))"# }),
            r#"sum(rate({tenant_id="acme", a="b"}[1m])) / sum(rate({tenant_id="acme", tenant_id="globex"}[1m]))"#,
        ),
        (
            json!({ "text": "\"} or {tenant_id=\"globex\"} #" }),
            r#"{tenant_id="acme", service=~".+"} |~ "(?i)\"\\} or \\{tenant_id=\"globex\"\\} #""#,
        ),
        (
            json!({ "service": "a\", tenant_id=~\".*" }),
            r#"{tenant_id="acme", service="a\", tenant_id=~\".*"}"#,
        ),
        (
            json!({ "request_id": "a\" or b=\"" }),
            r#"{tenant_id="acme", service=~".+"} | request_id="a\" or b=\"""#,
        ),
    ] {
        call_for::<Tool>(&sources, "acme", arguments).await.unwrap();
        assert_eq!(fake.last().param("query"), sent);
    }
    let long = json!({ "query": format!("{{a=\"{}\"}}", "b".repeat(2000)) });
    call_for::<Tool>(&sources, "acme", long).await.unwrap();
    let asked = fake.last();
    let enforced = asked.param("query").starts_with(r#"{tenant_id="acme", a="#);
    assert!(enforced && asked.method == "POST", "{asked:?}");
    let count = fake.asked().len();
    let hidden = json!({ "query": r#"{a="b"} /* " */ or {tenant_id="globex"} /* " */"# });
    let failure = call_for::<Tool>(&sources, "acme", hidden).await.unwrap_err();
    assert_eq!(failure.code, Code::InvalidArguments);
    let failure = call_for::<Tool>(&sources, "globex", json!({})).await.unwrap_err();
    assert_eq!(failure.code, Code::UnknownSource);
    assert_eq!(fake.asked().len(), count);
}

#[tokio::test]
async fn wrong_input_is_refused_before_anything_is_asked() {
    let fake = Fake::start().await;
    let sources = sources([("logs", Kind::Loki, &fake.url)]);
    for arguments in [
        json!({ "query": "{a=\"b\"}", "level": "error" }),
        json!({ "query": format!("{{a=\"{}\"}}", "b".repeat(5001)) }),
        json!({ "level": "fatal" }),
        json!({ "limit": 0 }),
        json!({ "limit": 201 }),
        json!({ "direction": "up" }),
        json!({ "start": "-1h", "end": "-2h" }),
        json!({ "sevice": "x" }),
    ] {
        let failure = call::<Tool>(&sources, arguments.clone()).await.unwrap_err();
        assert_eq!(failure.code, Code::InvalidArguments, "{arguments}");
    }
    assert!(fake.asked().is_empty());
    // What only Loki knows to be wrong is the caller's mistake, too.
    fake.on_status(
        PATH,
        400,
        "parse error at line 1, col 20: syntax error: unexpected $end, expecting } or ,",
    );
    let failure = call::<Tool>(&sources, json!({ "query": "{service=\"rest-api\"" }))
        .await
        .unwrap_err();
    assert_eq!(failure.code, Code::InvalidArguments);
    assert!(failure.message.contains("line 1, col 20"), "{}", failure.message);
}

#[tokio::test]
async fn what_loki_does_to_it() {
    endures::<Tool>(Kind::Loki, PATH, json!({ "service": "rest-api" })).await;
}

#[tokio::test]
async fn a_metric_of_lines_is_summarised() {
    let fake = Fake::start().await;
    let values: Vec<Value> = (0..120u32)
        .map(|n| json!([1_793_617_200 + n * 30, if n == 60 { "500" } else { "1" }]))
        .collect();
    let result = json!([{ "metric": { "level": "error", "service": "rest-api" }, "values": values }]);
    fake.on(
        PATH,
        json!({ "status": "success", "data": { "resultType": "matrix", "result": result } }),
    );
    let sources = sources([("logs", Kind::Loki, &fake.url)]);
    let query = r#"sum by (service, level) (count_over_time({level="error"}[1m]))"#;
    let answer = call::<Tool>(&sources, json!({ "query": query })).await.unwrap();
    assert_eq!(
        (&answer["type"], &answer["step"]),
        (&json!("range"), &json!("30s"))
    );
    let series = &answer["series"][0];
    assert_eq!(
        series["labels"],
        json!({ "level": "error", "service": "rest-api" })
    );
    assert_eq!(
        (&series["min"], &series["max"], &series["last"]),
        (&json!(1), &json!(500), &json!(1))
    );
    assert!(series["points"].as_array().unwrap().len() <= POINTS);
    assert_eq!(fake.last().param("step"), "30");
}
