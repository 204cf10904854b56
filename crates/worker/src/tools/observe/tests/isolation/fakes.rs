//! Sources that hold what is another tenant's, and show it wherever a request does not keep them from it.

use super::{
    super::testing::{Asked, Fake},
    attempts::uuid,
    scope,
};
use crate::sources::Kind;
use serde_json::{Value, json};

/// Stands in everything that is another's.
pub(in super::super) const SECRET: &str = "rivals-secret";
/// A trace, and as a UUID a silence, of acme's.
pub(super) const OF_ACME: &str = "1af7651916cd43dd8448eb211c80319c";
/// Another one.
pub(super) const ALSO_OF_ACME: &str = "4af7651916cd43dd8448eb211c80319c";
/// And of another's.
pub(super) const OF_RIVAL: &str = "2af7651916cd43dd8448eb211c80319c";

/// When everything happened, in seconds: an hour's half before the tests' now.
const THEN: i64 = 1_793_619_000;

pub(super) async fn start(kind: Kind) -> Fake {
    let fake = Fake::start().await;
    match kind {
        Kind::Prometheus => metrics(&fake),
        Kind::Loki => logs(&fake),
        Kind::Jaeger => jaeger(&fake),
        Kind::Tempo => tempo(&fake),
        _ => alerts(&fake),
    }
    fake
}

/// What is acme's, and what is another's unless the request is kept from it.
fn seen(kept: bool, of: impl Fn(&str, &str) -> Value) -> Vec<Value> {
    let mut seen = vec![of("acme", "ours")];
    if !kept {
        seen.push(of("rival", SECRET));
    }
    seen
}

fn success(data: &Value) -> Value {
    json!({ "status": "success", "data": data })
}

fn names(asked: &Asked) -> Value {
    let kept = !asked.all("match[]").is_empty() && asked.all("match[]").into_iter().all(scope::promql);
    success(
        &seen(kept, |_, word| {
            format!("name_of_{}", word.replace('-', "_")).into()
        })
        .into(),
    )
}

fn metrics(fake: &Fake) {
    let labels = |tenant: &str, word: &str| json!({ "job": "api", "service": "api", "tenant_id": tenant, "secret": word });
    fake.on_fn("/api/v1/query", move |asked| {
        let one = |tenant: &str, word: &str| json!({ "metric": labels(tenant, word), "value": [THEN, "1"] });
        let result = seen(scope::promql(asked.param("query")), one);
        success(&json!({ "resultType": "vector", "result": result }))
    });
    fake.on_fn("/api/v1/query_range", move |asked| {
        let one = |tenant: &str, word: &str| json!({ "metric": labels(tenant, word), "values": [[THEN, "1"], [THEN + 60, "2"]] });
        let result = seen(scope::promql(asked.param("query")), one);
        success(&json!({ "resultType": "matrix", "result": result }))
    });
    fake.on_fn("/api/v1/query_exemplars", move |asked| {
        let exemplar = |word: &str| json!({ "labels": { "trace_id": OF_ACME, "word": word }, "value": "1", "timestamp": THEN });
        let one = |tenant: &str, word: &str| json!({ "seriesLabels": labels(tenant, word), "exemplars": [exemplar(word)] });
        success(&seen(scope::promql(asked.param("query")), one).into())
    });
    fake.on_fn("/api/v1/label/*", names)
        .on_fn("/api/v1/labels", names);
    let target = |tenant: &str, word: &str| json!({ "labels": labels(tenant, word), "discoveredLabels": {}, "scrapePool": word, "lastError": word, "health": "down" });
    fake.on(
        "/api/v1/targets",
        success(&json!({ "activeTargets": seen(false, target), "droppedTargets": [] })),
    );
    let help = json!({ "name_of_ours": [{ "type": "gauge", "help": SECRET, "unit": "" }] });
    fake.on("/api/v1/metadata", success(&help));
    let rule = |tenant: &str, word: &str| {
        let alert = |tenant: &str, word: &str| {
            json!({
                "labels": { "alertname": "HighErrorRate", "tenant_id": tenant, "service": "api" },
                "annotations": { "summary": word },
                "state": "firing",
                "activeAt": "2026-11-02T11:30:00Z",
                "value": "1e+00",
            })
        };
        json!({
            "name": "HighErrorRate",
            "type": "alerting",
            "query": format!("errors{{word=\"{word}\"}} > 0"),
            "duration": 60,
            "labels": { "tenant_id": tenant, "severity": "critical" },
            "annotations": { "summary": word },
            "alerts": seen(false, alert),
            "health": "ok",
        })
    };
    // One of the operator's, for all, which failed on what is another's.
    let mut shared = rule("acme", "ours");
    shared["labels"] = json!({ "severity": "critical" });
    shared["lastError"] = format!("duplicate series {{secret=\"{SECRET}\"}}").into();
    let mut rules = seen(false, rule);
    rules.push(shared);
    fake.on(
        "/api/v1/rules",
        success(&json!({ "groups": [{ "name": "g", "file": "f", "rules": rules }] })),
    );
}

fn logs(fake: &Fake) {
    let kept = |asked: &Asked| {
        let queries = asked.all("query");
        !queries.is_empty() && queries.into_iter().all(scope::logql)
    };
    let stream = |tenant: &str, word: &str| {
        let line = json!({ "level": "ERROR", "message": word, "service": "api" }).to_string();
        json!({ "stream": { "service": "api", "tenant_id": tenant }, "values": [[format!("{THEN}000000000"), line]] })
    };
    fake.on_fn("/loki/api/v1/query_range", move |asked| {
        let result = seen(kept(asked), stream);
        success(&json!({ "resultType": "streams", "result": result, "stats": {} }))
    });
    let words = move |asked: &Asked| success(&seen(kept(asked), |_, word| word.into()).into());
    fake.on_fn("/loki/api/v1/labels", words);
    fake.on_fn("/loki/api/v1/label/*", words);
    fake.on_fn("/loki/api/v1/series", words);
    fake.on_fn("/loki/api/v1/detected_fields", move |asked| {
        let field = |_: &str, word: &str| json!({ "label": word, "type": "string", "cardinality": 1, "parsers": ["json"] });
        json!({ "fields": seen(kept(asked), field), "limit": 1000 })
    });
}

/// Jaeger finds traces that have any span with the tags, and shows them whole.
fn jaeger(fake: &Fake) {
    let trace = |id: &str, tenant: &str, word: &str| {
        let tags = json!([
            { "key": "tenant_id", "type": "string", "value": tenant },
            { "key": "error", "type": "bool", "value": true },
            { "key": "word", "type": "string", "value": word },
        ]);
        let span = json!({
            "traceID": id,
            "spanID": "b000000000000001",
            "operationName": format!("GET /{word}"),
            "references": [],
            "startTime": THEN * 1_000_000,
            "duration": 30_000,
            "tags": tags,
            "logs": [],
            "processID": "p1",
            "warnings": null,
        });
        json!({ "traceID": id, "spans": [span], "processes": { "p1": { "serviceName": "api", "tags": [] } }, "warnings": null })
    };
    // A mixed one, too: a span of another's within what is acme's.
    let mut mixed = trace(OF_ACME, "acme", "ours");
    mixed["traceID"] = "3af7651916cd43dd8448eb211c80319c".into();
    let mut foreign = trace(OF_RIVAL, "rival", SECRET)["spans"][0].clone();
    foreign["spanID"] = "b000000000000002".into();
    mixed["spans"].as_array_mut().unwrap().push(foreign);
    for span in mixed["spans"].as_array_mut().unwrap() {
        span["traceID"] = "3af7651916cd43dd8448eb211c80319c".into();
    }
    fake.on_fn("/api/traces", move |asked| {
        let ours = [OF_ACME, ALSO_OF_ACME].map(|id| trace(id, "acme", "ours"));
        let all = ours
            .into_iter()
            .chain([trace(OF_RIVAL, "rival", SECRET), mixed.clone()]);
        let wanted = asked.param("traceID");
        let found: Vec<Value> = all
            .filter(|trace| wanted.is_empty() || trace["traceID"] == wanted)
            .collect();
        json!({ "data": found, "total": 0, "limit": 0, "offset": 0, "errors": null })
    });
    fake.on("/api/services", json!({ "data": ["api", SECRET], "total": 2 }));
}

fn tempo(fake: &Fake) {
    let trace = |id: &str, tenant: &str, word: &str| {
        let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let span = json!({
            "traceId": id,
            "spanId": "b000000000000001",
            "name": format!("GET /{word}"),
            "kind": "SPAN_KIND_SERVER",
            "startTimeUnixNano": format!("{THEN}000000000"),
            "endTimeUnixNano": format!("{THEN}030000000"),
            "attributes": [attribute("tenant_id", tenant), attribute("word", word)],
            "status": {},
        });
        let resource = json!({ "attributes": [attribute("service.name", "api")] });
        json!({ "batches": [{ "resource": resource, "scopeSpans": [{ "scope": { "name": "t" }, "spans": [span] }] }] })
    };
    for id in [OF_ACME, ALSO_OF_ACME] {
        fake.on(&format!("/api/traces/{id}"), trace(id, "acme", "ours"));
    }
    fake.on(
        &format!("/api/traces/{OF_RIVAL}"),
        trace(OF_RIVAL, "rival", SECRET),
    );
    fake.on_fn("/api/search", |asked| {
        let one = |tenant: &str, word: &str| {
            json!({
                "traceID": if tenant == "acme" { OF_ACME } else { OF_RIVAL },
                "rootServiceName": "api",
                "rootTraceName": word,
                "startTimeUnixNano": format!("{THEN}000000000"),
                "durationMs": 30,
            })
        };
        json!({ "traces": seen(scope::holds(Kind::Tempo, asked), one) })
    });
}

fn alerts(fake: &Fake) {
    let alert = |tenant: &str, word: &str| {
        json!({
            "labels": { "alertname": "HighErrorRate", "tenant_id": tenant, "service": "api", "severity": "critical" },
            "annotations": { "summary": word },
            "startsAt": "2026-11-02T11:30:00.000Z",
            "endsAt": "2026-11-02T12:30:00.000Z",
            "updatedAt": "2026-11-02T11:31:00.000Z",
            "fingerprint": "e1a2b3c4d5e6f708",
            "generatorURL": format!("http://prometheus/{word}"),
            "receivers": [{ "name": "agents" }],
            "status": { "state": "active", "inhibitedBy": [], "silencedBy": [] },
        })
    };
    let silence = |tenant: &str, word: &str| {
        json!({
            "id": uuid(if tenant == "acme" { OF_ACME } else { OF_RIVAL }),
            "matchers": [
                { "name": "tenant_id", "value": tenant, "isRegex": false, "isEqual": true },
                { "name": "alertname", "value": "HighErrorRate", "isRegex": false, "isEqual": true },
            ],
            "startsAt": "2026-11-02T11:30:00.000Z",
            "endsAt": "2026-11-02T12:30:00.000Z",
            "updatedAt": "2026-11-02T11:30:00.000Z",
            "createdBy": "somebody",
            "comment": word,
            "status": { "state": "active" },
        })
    };
    // A silence for whoever it may be is not the tenant's own, and a proxy may have dropped the filter.
    let mut everybodys = silence("acme", SECRET);
    everybodys["id"] = uuid("3af7651916cd43dd8448eb211c80319c").into();
    everybodys["matchers"][0] =
        json!({ "name": "tenant_id", "value": ".+", "isRegex": true, "isEqual": true });
    let mut silences = seen(false, silence);
    silences.push(everybodys);
    fake.on("/api/v2/alerts", seen(false, alert).into());
    fake.on_fn("/api/v2/silences", move |asked| match asked.method.as_str() {
        "POST" => json!({ "silenceID": uuid(OF_ACME) }),
        _ => silences.clone().into(),
    });
    for (id, tenant, word) in [(OF_ACME, "acme", "ours"), (OF_RIVAL, "rival", SECRET)] {
        fake.on(&format!("/api/v2/silence/{}", uuid(id)), silence(tenant, word));
    }
}
