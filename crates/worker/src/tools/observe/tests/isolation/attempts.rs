//! What an honest and a curious tenant ask of each tool.

use super::fakes::{ALSO_OF_ACME, OF_ACME, OF_RIVAL};
use serde_json::{Value, json};

/// All attempts with a tool.
pub(in super::super) fn of(tool: &str) -> Vec<Value> {
    match tool {
        "query_metrics" => metrics(),
        "list_metrics" => vec![
            json!({}),
            json!({ "search": "secret" }),
            json!({ "label": "tenant_id=rival" }),
            json!({ "label": "job=\"} or {tenant_id=\"rival" }),
            json!({ "label": "job=x\",tenant_id=\"rival" }),
            json!({ "search": "of" }),
        ],
        "list_targets" => vec![
            json!({}),
            json!({ "state": "down" }),
            json!({ "job": "rival-job" }),
        ],
        "query_logs" => logs(),
        "log_labels" => vec![
            json!({}),
            json!({ "label": "service" }),
            json!({ "label": "../query_range" }),
            json!({ "label": "service/values?query={tenant_id=\"rival\"}&x=" }),
            json!({ "query": "{tenant_id=\"rival\"}" }),
            json!({ "query": "{service=~\".+\"} or {tenant_id=\"rival\"}" }),
        ],
        "search_traces" => vec![
            json!({ "service": "api" }),
            json!({ "service": "api", "errors_only": true }),
            json!({ "service": "api", "tags": { "tenant_id": "rival" } }),
            json!({ "service": "api\" || .tenant_id = \"rival" }),
            json!({ "service": "api", "operation": "x\" } || { .tenant_id = \"rival" }),
            json!({ "service": "api", "tags": { "a\" || .tenant_id": "rival" } }),
        ],
        "get_trace" => vec![
            json!({ "trace_id": OF_ACME }),
            json!({ "trace_id": OF_RIVAL }),
            json!({ "trace_id": format!("{OF_ACME}/../{OF_RIVAL}") }),
        ],
        "compare_traces" => vec![
            json!({ "slow": OF_ACME, "fast": ALSO_OF_ACME }),
            json!({ "slow": OF_RIVAL, "fast": OF_ACME }),
            json!({ "slow": OF_ACME, "fast": OF_RIVAL }),
        ],
        "service_health" => vec![
            json!({ "service": "api" }),
            json!({ "service": "api\",tenant_id=\"rival" }),
            json!({ "service": "api\"} or secret{job=\"" }),
            json!({ "service": "api", "label": "job=\"a\"} or secret{x" }),
        ],
        "slo_status" => vec![json!({}), json!({ "slo": "x\"} or secret{a=\"" })],
        "explain_alert" => vec![
            json!({ "alert": "HighErrorRate" }),
            json!({ "alert": "HighErrorRate", "labels": { "tenant_id": "rival" } }),
            json!({ "alert": "HighErrorRate", "labels": { "service": "api\"} or secret{a=\"" } }),
            json!({ "alert": "x\"} or secret{a=\"" }),
        ],
        _ => alerts_and_databases(tool),
    }
}

fn alerts_and_databases(tool: &str) -> Vec<Value> {
    match tool {
        "list_alerts" => vec![
            json!({}),
            json!({ "service": "api" }),
            json!({ "name": "x\",tenant_id=\"rival" }),
            json!({ "state": "silenced" }),
        ],
        "list_silences" => vec![json!({}), json!({ "state": "expired" })],
        "create_silence" => vec![
            json!({ "matchers": { "alertname": "HighErrorRate" }, "comment": "known" }),
            json!({ "matchers": { "tenant_id": "rival" }, "comment": "not mine" }),
            json!({ "matchers": { "alertname": "x", "tenant_id": ".*" }, "comment": "all" }),
        ],
        "expire_silence" => vec![
            json!({ "id": uuid(OF_ACME) }),
            json!({ "id": uuid(OF_RIVAL) }),
            json!({ "id": format!("{}/../{}", uuid(OF_ACME), uuid(OF_RIVAL)) }),
        ],
        "slow_queries" | "redis_status" => vec![json!({})],
        tool => panic!(
            "{tool} is new: write here how it is asked, and how it could be made to show another's data"
        ),
    }
}

/// The silence's identifier that goes with a trace's.
pub(super) fn uuid(id: &str) -> String {
    uuid::Uuid::parse_str(id).unwrap().to_string()
}

fn metrics() -> Vec<Value> {
    let queries = [
        "up",
        "up or secret",
        "up{tenant_id=\"rival\"}",
        "{__name__=~\".+\"}",
        "up{tenant_id=~\".*\"} or secret{tenant_id!=\"acme\"}",
        "up # \n or secret # {tenant_id=\"acme\"}",
        "up{job=\"} or secret{\"}",
        "up{job=`\"} or secret{x=\"`}",
        "up{a=\"b\" or tenant_id=\"rival\"}",
        "sum by (\"a) (up) or secret or sum by (b\") (up)",
        "info(up)",
        "max_over_time(secret[1h:5m] @ end() offset 5m)",
        "label_replace(secret, \"tenant_id\", \"acme\", \"\", \"\")",
        "topk(scalar(secret), up) + on () group_left secret",
        "absent(secret)",
        "{\"secret\"}",
        "up\u{2028}or secret",
    ];
    let instant = queries.iter().map(|query| json!({ "query": query }));
    let range = queries
        .iter()
        .map(|query| json!({ "query": query, "start": "-1h" }));
    let long = format!("up{{job=\"{}\"}} or secret", "x".repeat(3000));
    let more = [
        json!({ "query": long }),
        json!({ "query": "up", "source": "logs" }),
    ];
    instant.chain(range).chain(more).collect()
}

fn logs() -> Vec<Value> {
    let queries = [
        "{service=\"api\"}",
        "{tenant_id=\"rival\"}",
        "{service=~\".+\", tenant_id!=\"acme\"}",
        "{service=\"api\"} |= \"} or {tenant_id=\\\"rival\\\"}\"",
        "{service=`\"`} # {tenant_id=\"acme\"}\n or {tenant_id=\"rival\"}",
        "{service=\"api\"} # `\n or {tenant_id=\"rival\"} # `",
        "sum(count_over_time({service=\"api\"}[5m])) / sum(count_over_time({tenant_id=\"rival\"}[5m]))",
        "{service=\"api\"} | line_format \"{{.tenant_id}}\"",
        "{service=\"api\" or tenant_id=\"rival\"}",
        "{}",
        "{",
    ];
    let plain = [
        json!({}),
        json!({ "service": "api" }),
        json!({ "service": "api\"} or {tenant_id=\"rival" }),
        json!({ "service": "api", "level": "error", "text": "` or {tenant_id=\"rival\"} |= `" }),
        json!({ "text": "\" or {tenant_id=\"rival\"} |= \"" }),
        json!({ "trace_id": OF_RIVAL }),
        json!({ "trace_id": "x\" or {tenant_id=\"rival\"}" }),
        json!({ "request_id": "x\" or {tenant_id=\"rival\"} |= \"" }),
    ];
    queries
        .iter()
        .map(|query| json!({ "query": query }))
        .chain(plain)
        .collect()
}
