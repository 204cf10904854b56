//! What speaks for the cause of an alert: values, routes and tools, log lines, traces. Asked for at the same time.

use super::{PART, Subject};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Kind, promql, time},
    tools::{
        built_in::Desk,
        observe::{
            answer::{self, Answer},
            health::{
                figures::{self, Sample},
                measured::Measured,
                parts::{Parts, within},
                requests::{self, Routes},
                slos,
            },
            logs::{self, Filters, Level, Question, group},
            traces::{self, Listed, Search},
        },
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Series of the expression that are told of.
const SERIES: usize = 10;
/// Groups of log lines that are.
const GROUPS: usize = 8;
/// Lines that are read to be grouped.
const LINES: usize = 300;
/// Traces that are told of.
const TRACES: usize = 3;
/// Traces that are looked at.
const SEARCHED: usize = 20;

/// What was found.
#[derive(Default)]
pub(super) struct Evidence {
    /// What the rule measures.
    pub(super) measured: Option<Measured>,
    /// Its values now, the most interesting first.
    pub(super) values: Vec<Sample>,
    /// The routes or tools of the service that stand out.
    pub(super) routes: Routes,
    /// What burns the objective, each with its share.
    pub(super) burning: Vec<Value>,
    /// Lines of warnings and errors, those that come most often first.
    pub(super) lines: Lines,
    /// Failed or slow traces; the worst first.
    pub(super) traces: Vec<Listed>,
    /// Traces that the metrics name, where there is no source of traces.
    exemplars: Vec<Value>,
}

/// Log lines, grouped.
#[derive(Default)]
pub(super) struct Lines {
    /// `{"count": …, "line": …}` and so on.
    pub(super) groups: Vec<Value>,
    /// How many lines were read.
    pub(super) read: usize,
    /// There were more.
    pub(super) more: bool,
}

/// How often a group's line came.
pub(super) fn count(group: &Value) -> u64 {
    group["count"].as_u64().unwrap_or(1)
}

impl Evidence {
    /// Asks for all of it. What there is no source for is noted.
    pub(super) async fn gather(
        desk: &Desk<'_>,
        metrics: &Access,
        subject: &Subject,
        parts: &mut Parts,
    ) -> Self {
        let logs = desk.sources.find(Kind::Loki, &desk.who);
        let tracing = traces::pick(desk, None).ok();
        let measured = subject.rules.first().map(|rule| Measured::of(&rule.expr));
        let (values, routes, burning, lines, traces, exemplars) = tokio::join!(
            within(PART, values(metrics, measured.as_ref(), subject)),
            routes(metrics, subject),
            within(PART, burning(metrics, subject)),
            within(PART, lines(logs.as_ref(), subject)),
            within(PART, traces_of(tracing.as_ref(), subject)),
            within(PART, exemplars(metrics, tracing.is_none(), subject)),
        );
        let evidence = Self {
            values: parts.take("values", values),
            routes: parts.take("routes", routes),
            burning: parts.take("what burns the budget", burning),
            lines: parts.take("log lines", lines),
            traces: parts.take("traces", traces),
            exemplars: parts.take("exemplars", exemplars),
            measured,
        };
        let missing = [("logs", logs.is_none()), ("traces", tracing.is_none())];
        for (what, _) in missing.iter().filter(|(_, missing)| *missing) {
            parts.notes.push(format!("you have no source of {what}"));
        }
        if subject.service().is_none() {
            parts.notes.push(
                "the alert names no service: no routes, log lines and traces were looked for".to_owned(),
            );
        }
        evidence
    }

    /// Puts it into the answer.
    pub(super) fn tell(&self, answer: &mut Answer) {
        if let Some(measured) = &self.measured {
            let series = self.values.iter().map(|sample| {
                let mut told = sample.told(&["__name__"]);
                told["value"] = answer::number(sample.value);
                told
            });
            let bound = Some(&measured.bound).filter(|bound| !bound.is_empty());
            let values = json!({
                "query": answer::cut(&measured.query, 1000),
                "bound": bound,
                "series": series.take(SERIES).collect::<Vec<_>>(),
            });
            answer.set("values", values);
            if self.values.len() > SERIES {
                answer.note(format!("more than {SERIES} series: query_metrics shows others"));
            }
        }
        let routes = self.routes.told();
        answer.set_some("routes", Some(routes).filter(|routes| *routes != json!({})));
        answer.set_some(
            "burning",
            Some(json!(self.burning)).filter(|_| !self.burning.is_empty()),
        );
        if !self.lines.groups.is_empty() {
            answer.set("log_lines", self.lines.groups.clone());
        }
        if self.lines.more {
            answer.note(format!(
                "only the first {LINES} warnings and errors were read: query_logs shows more"
            ));
        }
        if !self.traces.is_empty() {
            answer.set(
                "traces",
                self.traces.iter().map(Listed::shown).collect::<Vec<_>>(),
            );
        }
        answer.set_some(
            "exemplars",
            Some(json!(self.exemplars)).filter(|_| !self.exemplars.is_empty()),
        );
    }
}

async fn values(
    metrics: &Access,
    measured: Option<&Measured>,
    subject: &Subject,
) -> Result<Vec<Sample>, Failure> {
    let Some(measured) = measured else {
        return Ok(Vec::new());
    };
    let mut samples = figures::vector(metrics, &measured.most(SERIES + 1), subject.now).await?;
    samples.sort_by(|a, b| b.value.total_cmp(&a.value));
    if measured.small {
        samples.reverse();
    }
    Ok(samples)
}

/// Two questions, one after the other: whether the service counts requests, and which of them stand out.
async fn routes(metrics: &Access, subject: &Subject) -> Result<Routes, Failure> {
    let Some(service) = subject.service() else {
        return Ok(Routes::default());
    };
    let found = within(PART, requests::find(metrics, service, None, subject.now)).await?;
    match found {
        Some(found) => within(PART, requests::routes(metrics, &found, subject.now, false)).await,
        None => Ok(Routes::default()),
    }
}

async fn burning(metrics: &Access, subject: &Subject) -> Result<Vec<Value>, Failure> {
    match subject.labels.get("slo") {
        Some(slo) => slos::burning(metrics, slo, subject.service(), subject.now).await,
        None => Ok(Vec::new()),
    }
}

async fn lines(logs: Option<&Access>, subject: &Subject) -> Result<Lines, Failure> {
    let (Some(logs), Some(service)) = (logs, subject.service()) else {
        return Ok(Lines::default());
    };
    let filters = Filters {
        service: Some(service),
        level: Some(Level::Warn),
        ..Filters::default()
    };
    let question = Question {
        query: &filters.query(),
        range: subject.window,
        forward: true,
        lines: LINES,
        step: Duration::from_secs(60),
    };
    let logs::Found::Lines { lines, full } = logs::ask(logs, &question).await? else {
        return Err(Failure::new(
            Code::SourceError,
            "the source answered with no lines",
        ));
    };
    let read = lines.len();
    let grouped = group::grouped(lines);
    let mut groups: Vec<Value> = grouped.iter().map(group::Group::value).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(count(group)));
    groups.truncate(GROUPS);
    Ok(Lines {
        groups,
        read,
        more: full,
    })
}

/// Slow ones for an alert about time, otherwise failed ones; any, where there are none such.
async fn traces_of(tracing: Option<&Access>, subject: &Subject) -> Result<Vec<Listed>, Failure> {
    let (Some(tracing), Some(service)) = (tracing, subject.service()) else {
        return Ok(Vec::new());
    };
    let tags = BTreeMap::new();
    let slow = subject.is_about_time();
    let search = |least: Option<Duration>, errors_only| Search {
        service,
        operation: None,
        min_duration: least,
        max_duration: None,
        errors_only,
        tags: &tags,
        range: subject.window,
        limit: SEARCHED,
    };
    let first = search(slow.then_some(Duration::from_secs(1)), !slow);
    let mut found = traces::search(tracing, &first).await?.traces;
    if found.is_empty() {
        found = traces::search(tracing, &search(None, false)).await?.traces;
    }
    let errors = |trace: &Listed| if slow { 0 } else { trace.errors.min(1) };
    found.sort_by_key(|trace| std::cmp::Reverse((errors(trace), trace.duration)));
    found.truncate(TRACES);
    Ok(found)
}

/// Traces that the series of the expression name.
async fn exemplars(metrics: &Access, wanted: bool, subject: &Subject) -> Result<Vec<Value>, Failure> {
    let Some(rule) = subject.rules.first().filter(|_| wanted) else {
        return Ok(Vec::new());
    };
    let query = [
        ("query", promql::enforce(&rule.expr, metrics.matchers())?),
        ("start", time::unix(subject.window.start)),
        ("end", time::unix(subject.window.end)),
    ];
    let answer = metrics.get("/api/v1/query_exemplars", &query).await?;
    let series = answer["data"].as_array().into_iter().flatten();
    let exemplars = series.flat_map(|series| series["exemplars"].as_array().into_iter().flatten());
    let mut found: Vec<(f64, &str)> = exemplars
        .filter_map(|exemplar| {
            let value = exemplar["value"].as_str()?.parse().ok()?;
            Some((value, exemplar["labels"]["trace_id"].as_str()?))
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let worst = found.into_iter().take(TRACES);
    Ok(worst
        .map(|(value, trace)| json!({ "trace_id": trace, "value": answer::number(value) }))
        .collect())
}

/// Where a person sees the same.
pub(super) fn links(desk: &Desk<'_>, metrics: &Access, subject: &Subject, evidence: &Evidence) -> Value {
    let encoded = |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let mut links = serde_json::Map::new();
    let mut add = |name: &str, url: String| links.insert(name.to_owned(), url.into());
    if let Some(measured) = &evidence.measured {
        let query = encoded(&measured.query);
        add(
            "values",
            format!("{}/graph?g0.expr={query}&g0.tab=0", metrics.public_url()),
        );
    }
    if let Some(alertmanager) = desk.sources.find(Kind::Alertmanager, &desk.who) {
        let filter = encoded(&format!("{{alertname={}}}", figures::quoted(&subject.name)));
        add(
            "alerts",
            format!("{}/#/alerts?filter={filter}", alertmanager.public_url()),
        );
    }
    let tracing = traces::pick(desk, None).ok();
    if let (Some(tracing), Some(trace)) = (
        tracing.filter(|it| it.kind() == Kind::Jaeger),
        evidence.traces.first(),
    ) {
        add("trace", format!("{}/trace/{}", tracing.public_url(), trace.id));
    }
    if let Some(runbook) = subject.annotation("runbook_url") {
        add("runbook", runbook.to_owned());
    }
    if let Some(dashboard) = subject.annotation("dashboard") {
        add("dashboard", format!("dashboard://{dashboard}"));
    }
    links.into()
}
