//! Traces of Jaeger or Tempo: looked for, read into one model, and kept from those they are not for.

pub(crate) mod compare;
mod jaeger;
pub(crate) mod model;
pub(crate) mod shown;
mod tempo;
pub(crate) mod tree;

use super::answer;
use crate::{
    outcome::{Code, Failure},
    sources::{
        Access, Kind, Matcher,
        time::{self, Range},
    },
    tools::built_in::Desk,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::Trace;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How many of Tempo's traces are read at once, where a caller may see only what is his.
const READ_AT_ONCE: usize = 4;
/// The fewest traces that are asked for when more make too large an answer.
const FEWEST: usize = 5;

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Search<'a> {
    /// A service that takes part.
    pub(crate) service: &'a str,
    /// One of its operations.
    pub(crate) operation: Option<&'a str>,
    /// How long that operation took at least.
    pub(crate) min_duration: Option<Duration>,
    /// And at most.
    pub(crate) max_duration: Option<Duration>,
    /// Only traces in which a span failed.
    pub(crate) errors_only: bool,
    /// Attributes that a span has.
    pub(crate) tags: &'a BTreeMap<String, String>,
    /// When.
    pub(crate) range: Range,
    /// How many at most.
    pub(crate) limit: usize,
}

/// A trace in a list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    /// The service and the operation that it began with.
    pub(crate) root: String,
    /// Microseconds since 1970.
    pub(crate) start: i64,
    /// Microseconds.
    pub(crate) duration: i64,
    /// How many spans; 0 where it was not told.
    pub(crate) spans: usize,
    pub(crate) errors: usize,
    pub(crate) services: BTreeMap<String, usize>,
    /// What its first failed span says.
    pub(crate) said: Option<String>,
}

impl From<&Trace> for Listed {
    fn from(trace: &Trace) -> Self {
        let failed = trace.spans.iter().filter(|span| span.error.is_some());
        let first = failed.min_by_key(|span| std::cmp::Reverse(span.start));
        let said = |span: &model::Span| {
            let error = span.error.as_deref().filter(|error| !error.is_empty());
            error.map_or_else(|| span.name(), |error| format!("{}: {error}", span.name()))
        };
        Self {
            id: trace.id.clone(),
            root: trace.root().map(model::Span::name).unwrap_or_default(),
            start: trace.start(),
            duration: trace.duration(),
            spans: trace.spans.len(),
            errors: trace.errors(),
            services: trace
                .services()
                .into_iter()
                .map(|(name, n)| (name.to_owned(), n))
                .collect(),
            said: first.map(said),
        }
    }
}

impl Listed {
    /// As an answer shows it.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = json!({
            "trace_id": self.id,
            "root": answer::cut(&self.root, 120),
            "start": at(self.start),
            "duration_ms": ms(self.duration),
            "errors": self.errors,
        });
        if self.spans > 0 {
            shown["spans"] = self.spans.into();
            shown["services"] = json!(self.services);
        }
        if let Some(said) = &self.said {
            shown["error"] = answer::cut(said, 200).into();
        }
        shown
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Newest first.
    pub(crate) traces: Vec<Listed>,
    /// There may be more: as many as were asked for came.
    pub(crate) more: bool,
    /// What an agent must know of it.
    pub(crate) notes: Vec<String>,
}

/// The source of traces that a caller means, whatever keeps them.
///
/// # Errors
/// [`Code::UnknownSource`]
pub(crate) fn pick(desk: &Desk<'_>, name: Option<&str>) -> Result<Access, Failure> {
    let tempos = desk.sources.names(Kind::Tempo, &desk.who);
    let jaegers = desk.sources.names(Kind::Jaeger, &desk.who);
    let is_tempo = match name {
        Some(name) => tempos.iter().any(|tempo| tempo == name),
        None => jaegers.is_empty() && !tempos.is_empty(),
    };
    if is_tempo {
        return desk.sources.pick(Kind::Tempo, name, &desk.who);
    }
    desk.sources
        .pick(Kind::Jaeger, name, &desk.who)
        .map_err(|failure| {
            if failure.code != Code::UnknownSource || tempos.is_empty() {
                return failure;
            }
            let names = [jaegers, tempos].concat().join(", ");
            Failure::new(
                Code::UnknownSource,
                format!("no such source of traces; you have: {names}"),
            )
        })
}

/// An identifier as sources know it: 32 hexadecimal digits.
///
/// # Errors
/// [`Code::InvalidArguments`]
pub(crate) fn id(text: &str) -> Result<String, Failure> {
    let digits = text.trim().to_ascii_lowercase();
    let is_one = matches!(digits.len(), 16..=32) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_one {
        let shown = answer::cut(&digits, 40);
        let message =
            format!("`{shown}` is no trace id: it has 32 hexadecimal digits (or 16, where it is an old one)");
        return Err(Failure::new(Code::InvalidArguments, message));
    }
    Ok(format!("{digits:0>32}"))
}

/// The trace of this identifier, if the caller may see it.
///
/// # Errors
/// [`Code::InvalidArguments`] when there is none, or none for this caller.
pub(crate) async fn fetch(access: &Access, id: &str) -> Result<Trace, Failure> {
    let found = match access.kind() {
        Kind::Tempo => from_tempo(access, id).await?,
        _ => {
            // Unlike `/api/traces/{id}` this tells a trace that is not there from a path that is not.
            let answer = access.get("/api/traces", &[("traceID", id.to_owned())]).await?;
            let found = answer.read(jaeger::read).map_err(|error| unreadable(&error))?;
            found
                .into_iter()
                .find(|trace| trace.id == id && !trace.spans.is_empty())
        }
    };
    let seen = found.filter(|trace| trace.is_open_to(access.matchers()));
    seen.ok_or_else(|| {
        let message = format!(
            "the source `{}` has no trace {id}: not sampled, not kept any more, or not yet there",
            access.name()
        );
        Failure::new(Code::InvalidArguments, message)
    })
}

async fn from_tempo(access: &Access, id: &str) -> Result<Option<Trace>, Failure> {
    match access.get(&format!("/api/traces/{id}"), &[]).await {
        Ok(answer) => answer
            .read(|answer| tempo::read_trace(id, answer))
            .map_err(|error| unreadable(&error)),
        Err(failure) if is_not_found(&failure) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Looks for traces.
///
/// # Errors
/// [`Failure`]
pub(crate) async fn search(access: &Access, search: &Search<'_>) -> Result<Found, Failure> {
    let contradicts = |matcher: &&Matcher| {
        let asked = search.tags.get(&matcher.name);
        asked.is_some_and(|value| *value != matcher.value)
    };
    if let Some(matcher) = access.matchers().iter().find(contradicts) {
        let message = format!("your grant sets the attribute {}; leave it out", matcher.name);
        return Err(Failure::new(Code::InvalidArguments, message));
    }
    let mut found = match access.kind() {
        Kind::Tempo => search_tempo(access, search).await?,
        _ => search_jaeger(access, search).await?,
    };
    found.traces.sort_by_key(|trace| std::cmp::Reverse(trace.start));
    found.traces.truncate(search.limit);
    Ok(found)
}

async fn search_jaeger(access: &Access, search: &Search<'_>) -> Result<Found, Failure> {
    let (mut traces, mut asked, mut notes) =
        ask_jaeger(access, search, search.errors_only, search.limit).await?;
    if search.errors_only && traces.is_empty() {
        // Some of its stores do not find spans by this attribute.
        let limit = (search.limit * 5).min(200);
        (traces, asked, notes) = ask_jaeger(access, search, false, limit).await?;
        let of_service = |trace: &Trace| {
            let failed = |span: &model::Span| span.error.is_some() && *span.service == *search.service;
            trace.spans.iter().any(failed)
        };
        let before = traces.len();
        traces.retain(of_service);
        if before >= asked && traces.len() < search.limit {
            notes.push(format!(
                "failed ones were looked for among the newest {before} only; narrow the range"
            ));
        }
    }
    let more = traces.len() >= asked.min(search.limit);
    traces.retain(|trace| !trace.spans.is_empty() && trace.is_open_to(access.matchers()));
    Ok(Found {
        traces: traces.iter().map(Listed::from).collect(),
        more,
        notes,
    })
}

/// Asks for whole traces, which is all that Jaeger has: fewer where so many make too large an answer. Tells for how many
/// it asked in the end.
async fn ask_jaeger(
    access: &Access,
    search: &Search<'_>,
    failed: bool,
    limit: usize,
) -> Result<(Vec<Trace>, usize, Vec<String>), Failure> {
    let mut asked = limit;
    loop {
        match access
            .get("/api/traces", &jaeger_query(access, search, failed, asked))
            .await
        {
            Err(failure) if failure.code == Code::ResponseTooLarge && asked > FEWEST => {
                asked = (asked / 4).max(FEWEST);
            }
            answer => {
                let traces = answer?.read(jaeger::read).map_err(|error| unreadable(&error))?;
                let less =
                    format!("the traces are so large that only {asked} were asked for; narrow the range");
                return Ok((traces, asked, Vec::from_iter((asked < limit).then_some(less))));
            }
        }
    }
}

fn jaeger_query(
    access: &Access,
    search: &Search<'_>,
    failed: bool,
    limit: usize,
) -> Vec<(&'static str, String)> {
    let mut tags = search.tags.clone();
    if failed {
        tags.insert("error".to_owned(), "true".to_owned());
    }
    tags.extend(
        access
            .matchers()
            .iter()
            .map(|m| (m.name.clone(), m.value.clone())),
    );
    let mut query = vec![
        ("service", search.service.to_owned()),
        ("start", time::micros(search.range.start)),
        ("end", time::micros(search.range.end)),
        ("limit", limit.to_string()),
    ];
    query.extend(
        search
            .operation
            .map(|operation| ("operation", operation.to_owned())),
    );
    query.extend(
        search
            .min_duration
            .map(|least| ("minDuration", format!("{}us", least.as_micros()))),
    );
    query.extend(
        search
            .max_duration
            .map(|most| ("maxDuration", format!("{}us", most.as_micros()))),
    );
    if !tags.is_empty() {
        query.push(("tags", json!(tags).to_string()));
    }
    query
}

async fn search_tempo(access: &Access, search: &Search<'_>) -> Result<Found, Failure> {
    let query = [
        ("q", trace_ql(access.matchers(), search)?),
        ("start", search.range.start.timestamp().to_string()),
        ("end", (search.range.end.timestamp() + 1).to_string()),
        ("limit", search.limit.to_string()),
    ];
    let answer = access.get("/api/search", &query).await?;
    let mut traces = answer
        .read(tempo::read_search)
        .map_err(|error| unreadable(&error))?;
    let more = traces.len() >= search.limit;
    if !access.matchers().is_empty() {
        // The list says nothing of a trace's other spans, and one of them may be somebody else's.
        let seen = |listed: Listed| async move {
            let whole = from_tempo(access, &listed.id).await?;
            let whole = whole.filter(|trace| trace.is_open_to(access.matchers()));
            Ok::<_, Failure>(whole.as_ref().map(Listed::from))
        };
        let read = stream::iter(traces).map(seen).buffered(READ_AT_ONCE);
        let read: Vec<Option<Listed>> = read.try_collect().await?;
        traces = read.into_iter().flatten().collect();
    }
    Ok(Found {
        traces,
        more,
        notes: Vec::new(),
    })
}

/// What is looked for in Tempo's language. Values are quoted, names must be such that need no quotes.
fn trace_ql(matchers: &[Matcher], search: &Search<'_>) -> Result<String, Failure> {
    let quoted = |text: &str| json!(text).to_string();
    let mut conditions = vec![format!("resource.service.name = {}", quoted(search.service))];
    conditions.extend(
        search
            .operation
            .map(|operation| format!("name = {}", quoted(operation))),
    );
    conditions.extend(
        search
            .min_duration
            .map(|least| format!("duration >= {}us", least.as_micros())),
    );
    conditions.extend(
        search
            .max_duration
            .map(|most| format!("duration <= {}us", most.as_micros())),
    );
    conditions.extend(search.errors_only.then(|| "status = error".to_owned()));
    let enforced = matchers.iter().map(|matcher| (&matcher.name, &matcher.value));
    for (name, value) in enforced.chain(search.tags) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
        if name.is_empty() || !name.bytes().all(is_plain) {
            let message = format!("`{}` is no name of an attribute", answer::cut(name, 40));
            return Err(Failure::new(Code::InvalidArguments, message));
        }
        // A number or a boolean is no text to Tempo; what is enforced is.
        let literal =
            value.parse::<f64>().is_ok_and(f64::is_finite) || matches!(value.as_str(), "true" | "false");
        let is_enforced = matchers.iter().any(|matcher| matcher.name == *name);
        conditions.push(match literal && !is_enforced {
            true => format!("(.{name} = {} || .{name} = {value})", quoted(value)),
            false => format!(".{name} = {}", quoted(value)),
        });
    }
    Ok(format!("{{ {} }}", conditions.join(" && ")))
}

fn is_not_found(failure: &Failure) -> bool {
    failure
        .result
        .as_ref()
        .is_some_and(|answer| answer["status"] == 404)
}

fn unreadable(error: &serde_json::Error) -> Failure {
    // Its text may hold a part of the answer, but no more than a word of it.
    let error = answer::cut(&error.to_string(), 200);
    Failure::new(
        Code::SourceError,
        format!("the source's answer cannot be read: {error}"),
    )
}

/// What an exception's type and message say together.
fn exception(kind: Option<String>, message: Option<String>) -> Option<String> {
    match (kind, message) {
        (Some(kind), Some(message)) => Some(format!("{kind}: {message}")),
        (kind, message) => kind.or(message),
    }
}

/// Microseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
pub(crate) fn ms(micros: i64) -> Value {
    answer::number(micros as f64 / 1e3)
}

/// Microseconds since 1970 as a time.
pub(crate) fn at(micros: i64) -> Value {
    let time = chrono::DateTime::from_timestamp_micros(micros);
    time.map_or(Value::Null, |time| answer::time(time).into())
}

#[cfg(test)]
pub(super) mod tests;
