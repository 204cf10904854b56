//! Jaeger's answers: the JSON of `/api/traces`, which Jaeger 1 and 2 share.

use super::model::{Attributes, Span, Trace};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    data: Option<Vec<Kept>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(default)]
    spans: Vec<KeptSpan>,
    #[serde(default)]
    processes: HashMap<String, Process>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptSpan {
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(default)]
    operation_name: String,
    #[serde(default)]
    references: Vec<Reference>,
    start_time: i64,
    duration: i64,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    logs: Vec<Log>,
    #[serde(rename = "processID", default)]
    process_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: String,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    fields: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    #[serde(default)]
    service_name: String,
    #[serde(default)]
    tags: Vec<Tag>,
}

/// The traces in an answer.
///
/// # Errors
/// When it has another form.
pub(super) fn read(answer: Value) -> serde_json::Result<Vec<Trace>> {
    let found: Found = serde_json::from_value(answer)?;
    Ok(found.data.unwrap_or_default().into_iter().map(trace).collect())
}

fn trace(kept: Kept) -> Trace {
    let processes: HashMap<String, (Arc<str>, Arc<Attributes>)> = kept
        .processes
        .into_iter()
        .map(|(id, process)| {
            (
                id,
                (process.service_name.into(), Arc::new(attributes(process.tags))),
            )
        })
        .collect();
    let id = format!("{:0>32}", kept.trace_id);
    let span = |one: KeptSpan| span(one, &kept.trace_id, &processes);
    Trace {
        spans: kept.spans.into_iter().map(span).collect(),
        id,
    }
}

fn span(kept: KeptSpan, trace: &str, processes: &HashMap<String, (Arc<str>, Arc<Attributes>)>) -> Span {
    let (service, resource) = processes.get(&kept.process_id).cloned().unwrap_or_default();
    let mut attributes = attributes(kept.tags);
    let mut take = |name: &str| {
        let at = attributes.iter().position(|(known, _)| known == name)?;
        Some(attributes.remove(at).1)
    };
    let kind = take("span.kind").unwrap_or_default();
    let failed = take("error").is_some_and(|error| error != "false");
    let failed = take("otel.status_code").map_or(failed, |code| code == "ERROR" || failed);
    let said = take("otel.status_description").unwrap_or_default();
    let error = failed.then(|| {
        if said.is_empty() {
            exception(&kept.logs)
        } else {
            said
        }
    });
    Span {
        id: kept.span_id,
        parent: parent(&kept.references, trace),
        service,
        operation: kept.operation_name,
        kind,
        start: kept.start_time,
        duration: kept.duration.max(0),
        error,
        attributes,
        resource,
    }
}

/// A reference to another trace is a link. What it follows from is a parent where nothing else is.
fn parent(references: &[Reference], trace: &str) -> Option<String> {
    let same = || references.iter().filter(|reference| reference.trace_id == trace);
    let child = same().find(|reference| reference.ref_type == "CHILD_OF");
    let parent = child.or_else(|| same().next())?;
    Some(parent.span_id.clone())
}

/// What the last exception among a span's events says.
fn exception(logs: &[Log]) -> String {
    let field = |log: &Log, name: &str| {
        let tag = log.fields.iter().find(|tag| tag.key == name)?;
        Some(text(&tag.value))
    };
    let said = |log: &Log| super::exception(field(log, "exception.type"), field(log, "exception.message"));
    logs.iter().rev().find_map(said).unwrap_or_default()
}

fn attributes(tags: Vec<Tag>) -> Attributes {
    tags.into_iter().map(|tag| (tag.key, text(&tag.value))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
