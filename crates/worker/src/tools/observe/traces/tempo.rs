//! Tempo's answers: what its search lists, and traces in OTLP's JSON, with identifiers in Base64 as Tempo writes them
//! or in hexadecimal digits as OTLP has them.

use super::{
    Listed,
    model::{Attributes, Span, Trace},
};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Search {
    traces: Vec<Summary>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Summary {
    #[serde(rename = "traceID")]
    trace_id: String,
    root_service_name: String,
    root_trace_name: String,
    start_time_unix_nano: Value,
    duration_ms: f64,
    service_stats: BTreeMap<String, Stats>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    span_count: usize,
    error_count: usize,
}

/// What a search lists.
///
/// # Errors
/// When the answer has another form.
pub(super) fn read_search(answer: Value) -> serde_json::Result<Vec<Listed>> {
    let found: Search = serde_json::from_value(answer)?;
    let listed = |one: Summary| Listed {
        id: format!("{:0>32}", one.trace_id),
        root: format!("{} {}", one.root_service_name, one.root_trace_name)
            .trim()
            .to_owned(),
        start: nanos(&one.start_time_unix_nano) / 1_000,
        #[expect(
            clippy::cast_possible_truncation,
            reason = "saturates, and no trace is that long"
        )]
        duration: (one.duration_ms * 1e3) as i64,
        spans: one.service_stats.values().map(|stats| stats.span_count).sum(),
        errors: one.service_stats.values().map(|stats| stats.error_count).sum(),
        services: one
            .service_stats
            .into_iter()
            .map(|(name, stats)| (name, stats.span_count))
            .collect(),
        said: None,
    };
    Ok(found.traces.into_iter().map(listed).collect())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kept {
    /// As `/api/v2/traces` has it.
    trace: Option<Box<Kept>>,
    resource_spans: Vec<ResourceSpans>,
    /// As `/api/traces` has it.
    batches: Vec<ResourceSpans>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ScopeSpans {
    spans: Vec<KeptSpan>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KeptSpan {
    span_id: String,
    parent_span_id: String,
    name: String,
    kind: Value,
    start_time_unix_nano: Value,
    end_time_unix_nano: Value,
    attributes: Vec<Attribute>,
    events: Vec<Event>,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: Value,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    key: String,
    #[serde(default)]
    value: Value,
}

/// The trace in an answer; `None` where it has no spans.
///
/// # Errors
/// When it has another form.
pub(super) fn read_trace(id: &str, answer: Value) -> serde_json::Result<Option<Trace>> {
    let mut kept: Kept = serde_json::from_value(answer)?;
    if let Some(trace) = kept.trace.take() {
        kept = *trace;
    }
    let mut spans = Vec::new();
    for of_resource in kept.resource_spans.into_iter().chain(kept.batches) {
        let resource = Arc::new(attributes(of_resource.resource.attributes));
        let named = resource.iter().find(|(name, _)| name == "service.name");
        let service: Arc<str> = named.map_or("", |(_, name)| name.as_str()).into();
        let of_scopes = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(of_scopes.map(|one| span(one, &service, &resource)));
    }
    let id = format!("{id:0>32}");
    Ok((!spans.is_empty()).then_some(Trace { id, spans }))
}

fn span(kept: KeptSpan, service: &Arc<str>, resource: &Arc<Attributes>) -> Span {
    let failed = kept.status.code == "STATUS_CODE_ERROR" || kept.status.code == 2;
    let said = kept.status.message;
    let error = failed.then(|| {
        if said.is_empty() {
            exception(&kept.events)
        } else {
            said
        }
    });
    let (start, end) = (nanos(&kept.start_time_unix_nano), nanos(&kept.end_time_unix_nano));
    Span {
        id: hex(&kept.span_id),
        parent: Some(hex(&kept.parent_span_id)).filter(|id| id.contains(|digit| digit != '0')),
        service: Arc::clone(service),
        operation: kept.name,
        kind: kind(&kept.kind),
        start: start / 1_000,
        duration: end.saturating_sub(start).max(0) / 1_000,
        error,
        attributes: attributes(kept.attributes),
        resource: Arc::clone(resource),
    }
}

fn kind(kind: &Value) -> String {
    const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];
    let number = kind
        .as_u64()
        .and_then(|number| KINDS.get(usize::try_from(number).ok()?));
    let word = kind.as_str().and_then(|word| word.strip_prefix("SPAN_KIND_"));
    number.map_or_else(
        || word.unwrap_or_default().to_lowercase(),
        |kind| (*kind).to_owned(),
    )
}

fn exception(events: &[Event]) -> String {
    let field = |event: &Event, name: &str| {
        let found = event.attributes.iter().find(|attribute| attribute.key == name)?;
        Some(text(&found.value))
    };
    let said =
        |event: &Event| super::exception(field(event, "exception.type"), field(event, "exception.message"));
    events.iter().rev().find_map(said).unwrap_or_default()
}

fn attributes(attributes: Vec<Attribute>) -> Attributes {
    attributes
        .into_iter()
        .map(|one| (one.key, text(&one.value)))
        .collect()
}

/// `{"stringValue": "x"}`
fn text(value: &Value) -> String {
    let inner = value.as_object().and_then(|object| object.values().next());
    match inner {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// 64-bit numbers are text in this JSON.
fn nanos(value: &Value) -> i64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.or_else(|| value.as_i64()).unwrap_or_default()
}

fn hex(id: &str) -> String {
    let is_hex = matches!(id.len(), 16 | 32) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match base64::engine::general_purpose::STANDARD.decode(id) {
        Ok(bytes) if !is_hex => bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
        _ => id.to_ascii_lowercase(),
    }
}
