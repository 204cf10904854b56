//! What the tools over traces are tested with, and how what sources answer is read.

use super::*;
use crate::tools::{
    built_in::BuiltIn,
    observe::testing::{Fake, call, sources},
};

/// What a Jaeger 2 with Badger answered: a slow call that failed in the worker, a quick one, and a request that a span of
/// another tenant belongs to.
pub(in crate::tools::observe) fn jaeger() -> Value {
    serde_json::from_str(include_str!("jaeger.json")).unwrap()
}

/// The slow one, the quick one and the mixed one.
pub(in crate::tools::observe) const SLOW: &str = "0af7651916cd43dd8448eb211c80319c";
pub(in crate::tools::observe) const FAST: &str = "1af7651916cd43dd8448eb211c80319c";
pub(in crate::tools::observe) const MIXED: &str = "2af7651916cd43dd8448eb211c80319c";

/// A fake Jaeger that keeps these traces, or whatever else it is given.
pub(in crate::tools::observe) async fn keeping(kept: Value) -> Fake {
    let fake = Fake::start().await;
    fake.on_fn("/api/traces", move |asked| {
        let mut answer = kept.clone();
        let ids = asked.all("traceID");
        if let (Some(data), false) = (answer["data"].as_array_mut(), ids.is_empty()) {
            data.retain(|trace| ids.iter().any(|id| trace["traceID"] == *id));
        }
        answer
    });
    fake
}

/// Two traces that make large answers: so many spans each, one of them failed, at the bottom.
pub(in crate::tools::observe) fn large(spans: usize) -> Value {
    let span = |trace: &str, n: usize| {
        let parent =
            json!([{ "refType": "CHILD_OF", "traceID": trace, "spanID": format!("{:016x}", n / 2) }]);
        let failed = json!([{ "key": "error", "type": "bool", "value": true }]);
        json!({
            "traceID": trace, "spanID": format!("{n:016x}"), "operationName": format!("operation {n} {}", "x".repeat(60)),
            "references": if n == 1 { json!([]) } else { parent }, "startTime": 1_795_422_947_000_000_u64 + n as u64,
            "duration": 1_000_000 - n * 10, "tags": if n == spans { failed } else { json!([]) }, "logs": [],
            "processID": "p1", "warnings": null,
        })
    };
    let trace = |id: &str| {
        json!({
            "traceID": id, "spans": (1..=spans).map(|n| span(id, n)).collect::<Vec<_>>(),
            "processes": { "p1": { "serviceName": "shop", "tags": [] } }, "warnings": null,
        })
    };
    json!({ "data": [trace(SLOW), trace(FAST)], "total": 0, "limit": 0, "offset": 0, "errors": null })
}

/// What must hold of each of these tools whatever happens to its source.
pub(in crate::tools::observe) async fn bears_its_source<B: BuiltIn>(arguments: Value) {
    let fake = Fake::start().await;
    let at = |url: &str| sources([("traces", Kind::Jaeger, url)]);
    let one = at(&fake.url);
    let refusal =
        r#"{"data":null,"total":0,"limit":0,"offset":0,"errors":[{"code":400,"msg":"cannot parse"}]}"#;
    let huge = format!(r#"{{"data":["{}"]}}"#, "x".repeat(2 << 20));
    for (status, body, code) in [
        (500, "{}", Code::SourceError),
        (503, "", Code::SourceUnavailable),
        (200, r#"{"data": 5}"#, Code::SourceError),
        (200, "<html>", Code::SourceError),
        (200, &huge, Code::ResponseTooLarge),
        (400, refusal, Code::InvalidArguments),
    ] {
        fake.on_status("/api/traces", status, body);
        let failure = call::<B>(&one, arguments.clone()).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert_eq!(
            failure.message.contains("cannot parse"),
            body == refusal,
            "{failure}"
        );
    }

    let away = at("http://127.0.0.1:1");
    for (member, value, code) in [
        ("source", "traces", Code::SourceUnavailable),
        ("source", "nowhere", Code::UnknownSource),
        ("surprise", "", Code::InvalidArguments),
    ] {
        let mut arguments = arguments.clone();
        arguments[member] = value.into();
        let failure = call::<B>(&away, arguments).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
    }
    waits_no_longer_than_it_may::<B>(arguments).await;
}

async fn waits_no_longer_than_it_may<B: BuiltIn>(arguments: Value) {
    let fake = Fake::start().await;
    fake.hang("/api/traces");
    let hanging = sources([("traces", Kind::Jaeger, &fake.url)]);
    let failure = call::<B>(&hanging, arguments.clone()).await.unwrap_err();
    assert_eq!(failure.code, Code::Timeout);

    let fake = Fake::start().await;
    fake.hang("/api/traces");
    let hanging = sources([("traces", Kind::Jaeger, &fake.url)]);
    tokio::select! {
        _ = call::<B>(&hanging, arguments) => panic!("nothing was answered"),
        () = fake.is_asked() => {} // the call is dropped here
    }
    fake.is_left().await;
}

#[test]
fn jaegers_answer_is_read() {
    let traces = jaeger::read(jaeger()).unwrap();
    let slow = traces.iter().find(|trace| trace.id == SLOW).unwrap();
    assert_eq!(slow.spans.len(), 6);
    let failed = slow.spans.iter().find(|span| span.error.is_some()).unwrap();
    assert_eq!(
        (&*failed.service, failed.operation.as_str()),
        ("worker", "ToolRunner/Run")
    );
    assert_eq!(failed.error.as_deref(), Some("upstream timed out"));
    assert_eq!((failed.kind.as_str(), failed.duration), ("server", 80_000));
    // Its second reference is a link to the other trace.
    assert_eq!(failed.parent.as_deref(), Some("a000000000000003"));
    assert!(failed.attributes.contains(&("retry".into(), "true".into())));
    assert_eq!(slow.root().unwrap().name(), "mcp-server POST /mcp");
    assert_eq!((slow.duration(), slow.services()["rest-api"]), (120_000, 3));
    assert_eq!(jaeger::read(json!({ "data": null, "errors": [] })).unwrap(), []);
}

/// A trace as Tempo answers it, from its documentation's form.
fn tempo_trace(tenant: &str) -> Value {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    json!({ "batches": [{
        "resource": { "attributes": [attribute("service.name", "worker")] },
        "scopeSpans": [{ "scope": { "name": "t" }, "spans": [
            {
                "traceId": "Cvdl2RbNQ92ESOshHIAxnA==", "spanId": "oAAAAAAAAAU=", "parentSpanId": "oAAAAAAAAAM=",
                "name": "ToolRunner/Run", "kind": "SPAN_KIND_CLIENT", "startTimeUnixNano": "1716235200250000000",
                "endTimeUnixNano": "1716235200400000000", "status": { "code": "STATUS_CODE_ERROR" },
                "attributes": [{ "key": "retry", "value": { "boolValue": true } }, attribute("tenant_id", tenant)],
                "events": [{ "name": "exception", "timeUnixNano": "1716235200300000000", "attributes": [
                    attribute("exception.type", "Timeout"), attribute("exception.message", "no answer"),
                ] }],
            },
            {
                "spanId": "a000000000000003", "name": "Executions/Run", "kind": 2,
                "startTimeUnixNano": "1716235200200000000", "endTimeUnixNano": "1716235200500000000",
            },
        ] }],
    }] })
}

#[test]
fn tempos_answer_is_read() {
    for answer in [
        tempo_trace("acme"),
        json!({ "trace": { "resourceSpans": tempo_trace("acme")["batches"] } }),
    ] {
        let trace = tempo::read_trace(&SLOW[1..], answer).unwrap().unwrap();
        assert_eq!(trace.id, SLOW);
        let [failed, parent] = trace.spans.as_slice() else {
            panic!()
        };
        assert_eq!(failed.parent.as_ref(), Some(&parent.id));
        assert_eq!(
            (parent.kind.as_str(), parent.duration, &parent.parent),
            ("server", 300_000, &None)
        );
        assert_eq!(failed.error.as_deref(), Some("Timeout: no answer"));
        assert_eq!((&*failed.service, failed.duration), ("worker", 150_000));
    }
    assert_eq!(tempo::read_trace(SLOW, json!({ "batches": [] })).unwrap(), None);
}

#[tokio::test]
async fn tempo_is_asked_in_its_language_and_a_tenant_sees_his_traces_only() {
    use crate::tools::observe::{
        get_trace::Tool as Get,
        search_traces::Tool as SearchTraces,
        testing::{call_for, sources},
    };
    let fake = Fake::start().await;
    let listed = |id: &str| {
        json!({
            "traceID": id, "rootServiceName": "mcp-server", "rootTraceName": "POST /mcp",
            "startTimeUnixNano": "1716235200250000000", "durationMs": 120,
            "serviceStats": { "worker": { "spanCount": 1, "errorCount": 1 }, "rest-api": { "spanCount": 3 } },
        })
    };
    // Tempo leaves leading zeros away.
    fake.on(
        "/api/search",
        json!({ "traces": [listed(&SLOW[1..]), listed(FAST)], "metrics": {} }),
    );
    fake.on(&format!("/api/traces/{SLOW}"), tempo_trace("acme"));
    fake.on(&format!("/api/traces/{FAST}"), tempo_trace("globex"));
    let sources = sources([("tempo", Kind::Tempo, &fake.url)]);

    let arguments = json!({
        "service": "work\"er", "errors_only": true, "min_duration": "250ms", "tags": { "http.status": "500" },
    });
    let found = call::<SearchTraces>(&sources, arguments.clone()).await.unwrap();
    assert_eq!(found["traces"].as_array().unwrap().len(), 2, "{found}");
    let first = &found["traces"][0];
    assert_eq!(
        (&first["errors"], &first["spans"], &first["duration_ms"]),
        (&json!(1), &json!(4), &json!(120))
    );
    assert_eq!(
        fake.last().param("q"),
        r#"{ resource.service.name = "work\"er" && duration >= 250000us && status = error && (.http.status = "500" || .http.status = 500) }"#
    );

    let found = call_for::<SearchTraces>(&sources, "acme", arguments)
        .await
        .unwrap();
    let ids: Vec<_> = found["traces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trace| &trace["trace_id"])
        .collect();
    assert_eq!(ids, [SLOW], "{found}");
    assert!(fake.asked()[1].param("q").contains(r#" && .tenant_id = "acme""#));

    let mine = call_for::<Get>(&sources, "acme", json!({ "trace_id": SLOW }))
        .await
        .unwrap();
    assert_eq!(mine["errors"][0]["error"], "Timeout: no answer");
    let others = call_for::<Get>(&sources, "acme", json!({ "trace_id": FAST }))
        .await
        .unwrap_err();
    let nobodys = call_for::<Get>(&sources, "acme", json!({ "trace_id": MIXED }))
        .await
        .unwrap_err();
    assert_eq!(others.code, nobodys.code);
    assert_eq!(
        others.message.replace(FAST, ""),
        nobodys.message.replace(MIXED, "")
    );
    let odd = json!({ "service": "worker", "tags": { "a = 1 } || { b": "" } });
    let failure = call::<SearchTraces>(&sources, odd).await.unwrap_err();
    assert_eq!(failure.code, Code::InvalidArguments);
}

/// A tenant's search reads every trace that Tempo lists; together they have more than may be held at once.
#[tokio::test]
async fn tempos_traces_are_let_go_one_after_another() {
    use crate::{
        sources::{Sources, Space},
        tools::observe::{
            search_traces::Tool as SearchTraces,
            testing::{call_for, settings},
        },
    };
    let fake = Fake::start().await;
    let ids: Vec<String> = (1..=12).map(|n| format!("{n:032x}")).collect();
    let listed = ids.iter().map(|id| json!({ "traceID": id }));
    fake.on("/api/search", json!({ "traces": listed.collect::<Vec<_>>() }));
    let mut large = tempo_trace("acme");
    large["unread"] = "x".repeat(100 << 10).into();
    fake.on("/api/traces/*", large);
    let space = Space::new(250 << 10);
    let settings = settings([("tempo", Kind::Tempo, &fake.url)]);
    let sources = Sources::within(&settings, "tests", &space).unwrap();
    let found = call_for::<SearchTraces>(&sources, "acme", json!({ "service": "worker" }))
        .await
        .unwrap();
    assert_eq!(found["traces"].as_array().unwrap().len(), ids.len(), "{found}");
}
