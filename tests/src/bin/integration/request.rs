//! One request is found in traces, logs and metrics.

use crate::stack::Stack;
use anyhow::{Context, ensure};
use e2e::{
    Json, Target, mcp,
    raw::{self, Raw},
    rest::Answer,
    stack::{MCP_SERVER, REST_API, WORKER},
    trace::Trace,
    wait_for,
};
use serde_json::json;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The services that a tool call passes through.
const SERVICES: [&str; 3] = [MCP_SERVER, REST_API, WORKER];
/// How far back is looked.
const LOOK_BACK: Duration = Duration::from_mins(15);

/// A tool of this run's own, and what it calls.
pub(crate) struct Tool<'a> {
    stack: &'a Stack,
    /// Its name, of no other run.
    pub(crate) name: String,
    target: Target,
}

impl<'a> Tool<'a> {
    /// Registers one that answers what it was asked, and waits until it can be called.
    pub(crate) async fn register(stack: &'a Stack) -> anyhow::Result<Self> {
        Self::register_at(stack, "/echo").await
    }

    /// Registers one for a path of its endpoint (see [`Target`]), and waits until it can be called.
    pub(crate) async fn register_at(stack: &'a Stack, path: &str) -> anyhow::Result<Self> {
        let target = Target::start_as(Some(stack.at.target_host.clone())).await?;
        let name = format!("integration_{}", &Trace::start().span_id);
        let definition = json!({
            "name": name, "description": "Calls this program", "method": "POST", "url": target.url(path),
        });
        stack.rest.post("/api/v1/tools", &definition).await?.expect(201)?;
        let client = mcp::connect(&stack.at.mcp_url, &stack.at.api_key, mcp::Era::Modern).await?;
        client.wait_for_tool(&name).await?;
        client.close().await;
        Ok(Self { stack, name, target })
    }

    /// Calls it over MCP with a request id, as part of a trace; with whatever it logs when debugged, if so wanted.
    ///
    /// # Errors
    /// When the call does not succeed.
    pub(crate) async fn call(
        &self,
        raw: &Raw,
        trace: &Trace,
        id: &str,
        debug: bool,
    ) -> anyhow::Result<Answer> {
        let answer = self.send(raw, trace, id, debug).await?;
        let result = &raw::response(&answer)?["result"];
        ensure!(
            result["isError"] == json!(false),
            "the call failed: {}",
            answer.text
        );
        Ok(answer)
    }

    /// The same, however the call ends.
    pub(crate) async fn send(
        &self,
        raw: &Raw,
        trace: &Trace,
        id: &str,
        debug: bool,
    ) -> anyhow::Result<Answer> {
        let parent = trace.traceparent();
        let params = json!({ "name": self.name, "arguments": {}, "_meta": { "traceparent": parent } });
        let mut request = raw
            .modern("tools/call", params)
            .header("traceparent", parent)
            .header("x-request-id", id);
        if debug {
            request = request.header("x-debug-trace", "true");
        }
        Answer::read(request.send().await?).await
    }

    /// Removes it.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        let path = format!("/api/v1/tools/{}", self.name);
        let status = self.stack.rest.delete(&path).await?.status;
        ensure!(status.is_success(), "removing the tool: {status}");
        Ok(())
    }
}

/// Sends it through all three services, and looks for it everywhere.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let tool = Tool::register(stack).await?;
    let result = follow(stack, &tool).await;
    tool.remove().await?;
    result
}

async fn follow(stack: &Stack, tool: &Tool<'_>) -> anyhow::Result<()> {
    let trace = Trace::start();
    let id = format!("integration-{}", trace.span_id);
    let raw = Raw::new(&stack.at.mcp_url, Some(&stack.at.api_key));
    let answer = tool.call(&raw, &trace, &id, true).await?;
    ensure!(
        (answer.header("x-request-id"), answer.header("x-trace-id")) == (&id, &trace.trace_id),
        "the answer names another request: {:?}",
        answer.headers
    );
    ensure!(
        tool.target.seen().len() == 1,
        "the tool's endpoint was called once"
    );
    println!(
        "   sent     tools/call {}: request {id}, trace {}",
        tool.name, trace.trace_id
    );
    in_jaeger(stack, &trace).await?;
    by_request_id(stack, &trace, &id).await?;
    in_loki(stack, &trace, &id).await?;
    in_prometheus(stack, tool, &trace).await
}

/// A span, as Jaeger's API tells it.
struct Span {
    id: String,
    parent: Option<String>,
    service: String,
    name: String,
    tags: HashMap<String, Json>,
}

fn spans(answer: &Json) -> Vec<Span> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let trace = &answer["data"][0];
    let read = |span: &Json| {
        let references = span["references"].as_array().into_iter().flatten();
        let mut parents =
            references.filter(|to| to["refType"] == "CHILD_OF" && to["traceID"] == span["traceID"]);
        let tags = span["tags"].as_array().into_iter().flatten();
        Span {
            id: text(&span["spanID"]),
            parent: parents.next().map(|to| text(&to["spanID"])),
            service: text(&trace["processes"][span["processID"].as_str().unwrap_or_default()]["serviceName"]),
            name: text(&span["operationName"]),
            tags: tags
                .map(|tag| (text(&tag["key"]), tag["value"].clone()))
                .collect(),
        }
    };
    trace["spans"]
        .as_array()
        .into_iter()
        .flatten()
        .map(read)
        .collect()
}

/// The trace's spans, nothing where Jaeger knows none.
async fn spans_of(stack: &Stack, trace_id: &str) -> Vec<Span> {
    let url = format!("{}/api/traces/{trace_id}", stack.at.jaeger_url);
    stack
        .get(&url, &[])
        .await
        .map_or_else(|_| Vec::new(), |answer| spans(&answer))
}

/// Whether Jaeger knows the trace.
pub(crate) async fn is_traced(stack: &Stack, trace_id: &str) -> bool {
    !spans_of(stack, trace_id).await.is_empty()
}

/// The services from this span up to the trace's first, nearest first, without repeats; `None` where a parent is missing.
fn ancestry<'a>(all: &'a [Span], from: &'a Span, client: &str) -> Option<Vec<&'a str>> {
    let (mut at, mut path) = (from, vec![from.service.as_str()]);
    while at.parent.as_deref() != Some(client) {
        at = all.iter().find(|span| Some(&span.id) == at.parent.as_ref())?;
        path.push(&at.service);
    }
    path.dedup();
    Some(path)
}

/// The worker's own request to the tool's endpoint: the end of the chain.
fn last(all: &[Span]) -> Option<&Span> {
    let is_call = |span: &&Span| {
        span.service == WORKER
            && span.tags.get("span.kind") == Some(&json!("client"))
            && span.tags.contains_key("url.full")
    };
    all.iter().find(is_call)
}

async fn in_jaeger(stack: &Stack, trace: &Trace) -> anyhow::Result<()> {
    let is_whole = |all: &[Span]| {
        last(all).is_some()
            && all
                .iter()
                .all(|span| ancestry(all, span, &trace.span_id).is_some())
    };
    let seen = RefCell::new(Vec::new());
    let found = wait_for("the whole trace in Jaeger", async || {
        seen.replace(spans_of(stack, &trace.trace_id).await);
        is_whole(&seen.borrow()).then_some(())
    })
    .await;
    let seen = seen.into_inner();
    if found.is_err() {
        let tell = |span: &Span| {
            let above = ancestry(&seen, span, &trace.span_id);
            format!(
                "\n      {} {}, below {above:?}, {:?}",
                span.service,
                span.name,
                span.tags.keys()
            )
        };
        found.with_context(|| format!("Jaeger has {}", seen.iter().map(tell).collect::<String>()))?;
    }
    let end = last(&seen).context("waited for")?;
    let path = ancestry(&seen, end, &trace.span_id).context("waited for")?;
    ensure!(
        path == [WORKER, REST_API, MCP_SERVER],
        "the way of the call: {path:?}"
    );
    println!(
        "   jaeger   by its trace id: {} spans, unbroken, {}",
        seen.len(),
        path.join(" ← ")
    );
    let debugged = seen
        .iter()
        .filter(|span| span.tags.get("devops_mcp.debug") == Some(&json!(true)));
    let debugged: BTreeSet<_> = debugged.map(|span| span.service.as_str()).collect();
    ensure!(
        !debugged.is_empty(),
        "no span says devops_mcp.debug = true: tail sampling would not keep it"
    );
    println!("   jaeger   devops_mcp.debug is on spans of {debugged:?}");
    Ok(())
}

async fn by_request_id(stack: &Stack, trace: &Trace, id: &str) -> anyhow::Result<()> {
    let url = format!("{}/api/traces", stack.at.jaeger_url);
    let tags = json!({ "request.id": id }).to_string();
    let (from, to) = (
        micros(seconds_ago(LOOK_BACK)),
        micros(seconds_ago(Duration::ZERO) + 60.0),
    );
    for service in SERVICES {
        let query = [
            ("service", service),
            ("tags", &tags),
            ("start", &from),
            ("end", &to),
            ("limit", "20"),
        ];
        wait_for(
            &format!("{service}'s spans in Jaeger by request.id {id}"),
            async || {
                let answer = stack.get(&url, &query).await.ok()?;
                let traces = answer["data"].as_array()?;
                traces
                    .iter()
                    .any(|found| found["traceID"] == json!(trace.trace_id))
                    .then_some(())
            },
        )
        .await?;
    }
    println!("   jaeger   by the tag request.id, asked of each service");
    Ok(())
}

/// A line in Loki: its labels together with its structured metadata, and the line itself.
pub(crate) type Line = (BTreeMap<String, String>, String);

/// The lines that a query finds.
pub(crate) async fn lines(stack: &Stack, query: &str) -> anyhow::Result<Vec<Line>> {
    let url = format!("{}/loki/api/v1/query_range", stack.at.loki_url);
    let since = format!("{}s", LOOK_BACK.as_secs());
    let answer = stack
        .get(&url, &[("query", query), ("since", &since), ("limit", "1000")])
        .await?;
    let mut found = Vec::new();
    for stream in answer["data"]["result"]
        .as_array()
        .context("Loki answered no streams")?
    {
        let labels: BTreeMap<String, String> = serde_json::from_value(stream["stream"].clone())?;
        for value in stream["values"].as_array().into_iter().flatten() {
            found.push((labels.clone(), value[1].as_str().unwrap_or_default().to_owned()));
        }
    }
    Ok(found)
}

async fn in_loki(stack: &Stack, trace: &Trace, id: &str) -> anyhow::Result<()> {
    let query = format!(
        "{{service=~\"{}\"}} | trace_id=\"{}\"",
        SERVICES.join("|"),
        trace.trace_id
    );
    let by_service = RefCell::new(BTreeMap::<String, usize>::new());
    let found = wait_for(
        "lines of all three services in Loki by the trace id",
        async || {
            let found = lines(stack, &query).await.ok()?;
            let mut counts = BTreeMap::new();
            for (labels, _) in &found {
                *counts.entry(labels["service"].clone()).or_default() += 1;
            }
            let is_all = counts.len() == SERVICES.len();
            by_service.replace(counts);
            is_all.then_some(found)
        },
    )
    .await;
    let by_service = by_service.into_inner();
    let found = found.with_context(|| format!("Loki has, by service: {by_service:?}"))?;
    for (labels, line) in &found {
        let object: Json = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let level = object["level"].as_str().unwrap_or_default().to_lowercase();
        for (label, said) in [
            ("service", object["service"].as_str().unwrap_or_default()),
            ("environment", object["environment"].as_str().unwrap_or_default()),
            ("level", &level),
            ("span_id", object["span_id"].as_str().unwrap_or_default()),
            ("request_id", id),
        ] {
            let labelled = labels.get(label).map(String::as_str);
            ensure!(
                labelled == Some(said),
                "{label} is {labelled:?} in Loki, {said:?} in the line {line}"
            );
        }
    }
    println!("   loki     by the trace id, with the line's own labels and request_id: {by_service:?}");
    Ok(())
}

async fn in_prometheus(stack: &Stack, tool: &Tool<'_>, trace: &Trace) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/query_exemplars", stack.at.prometheus_url);
    // Of the tool's own series, which nobody else's request overwrites before it is scraped.
    let query = format!("{{__name__=~\"(mcp|worker)_.+_bucket\", tool=\"{}\"}}", tool.name);
    let seen = RefCell::new(Vec::new());
    let found = wait_for("the trace as an exemplar in Prometheus", async || {
        let (start, end) = (
            seconds_ago(LOOK_BACK).to_string(),
            seconds_ago(Duration::ZERO).to_string(),
        );
        let range = [("query", query.as_str()), ("start", &start), ("end", &end)];
        let answer = stack.get(&url, &range).await.ok()?;
        let all = answer["data"].as_array()?;
        seen.replace(all.clone());
        let is_ours = |series: &&Json| {
            let mut exemplars = series["exemplars"].as_array().into_iter().flatten();
            exemplars.any(|exemplar| exemplar["labels"]["trace_id"] == json!(trace.trace_id))
        };
        all.iter()
            .find(is_ours)
            .map(|series| series["seriesLabels"].clone())
    })
    .await;
    let labels = found.with_context(|| format!("Prometheus has of {query}: {:?}", seen.into_inner()))?;
    println!(
        "   metrics  as an exemplar of {}{{service={}, tool={}, le={}}}",
        labels["__name__"], labels["service"], labels["tool"], labels["le"]
    );
    Ok(())
}

/// The time, in seconds since the epoch.
fn seconds_ago(ago: Duration) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(ago).as_secs_f64()
}

fn micros(seconds: f64) -> String {
    format!("{:.0}", seconds * 1e6)
}
