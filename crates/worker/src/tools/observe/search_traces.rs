//! `search_traces`

use super::{
    answer::{self, Answer},
    traces,
};
use crate::{
    outcome::{Code, Failure},
    sources::{
        Kind,
        time::{self, Range},
    },
    tools::built_in::{BuiltIn, Desk},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);
const MOST: usize = 100;

/// Finds traces.
pub(super) struct Tool;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    service: String,
    operation: Option<String>,
    /// Such as 250ms
    min_duration: Option<String>,
    max_duration: Option<String>,
    #[serde(default)]
    errors_only: bool,
    /// Span attributes
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// RFC 3339 or relative; default -1h
    start: Option<String>,
    end: Option<String>,
    /// 1-100, default 20
    limit: Option<usize>,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "search_traces";
    const TITLE: &'static str = "Search traces";
    const DESCRIPTION: &'static str = "Finds traces of a service, newest first, each with its id, root, duration, \
        services and first error. Read one with get_trace.";
    const NEEDS: &'static [Kind] = &[Kind::Jaeger];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = traces::pick(desk, arguments.source.as_deref())?;
        let search = read(&arguments, desk)?;
        let found = traces::search(&access, &search).await?;
        let mut answer = Answer::from(&access);
        answer.set("start", time::rfc3339(search.range.start));
        answer.set("end", time::rfc3339(search.range.end));
        let shown: Vec<Value> = found.traces.iter().map(traces::Listed::shown).collect();
        if shown.is_empty() {
            answer.note(nothing(&search, !access.matchers().is_empty()));
        } else if found.more {
            let most = search.limit;
            answer.note(format!(
                "only the newest {most} were asked for: there may be more; narrow it or raise limit"
            ));
        }
        found.notes.into_iter().for_each(|note| {
            answer.note(note);
        });
        answer.set("traces", shown);
        Ok(answer.finish("traces"))
    }
}

fn read<'a>(arguments: &'a Arguments, desk: &Desk<'_>) -> Result<traces::Search<'a>, Failure> {
    let invalid = |message: &str| Err(Failure::new(Code::InvalidArguments, message));
    let Arguments { service, tags, .. } = arguments;
    if service.trim().is_empty() {
        return invalid("service is empty");
    }
    let duration = |text: &Option<String>| text.as_deref().map(time::duration).transpose();
    let (min_duration, max_duration) = (
        duration(&arguments.min_duration)?,
        duration(&arguments.max_duration)?,
    );
    if min_duration.zip(max_duration).is_some_and(|(min, max)| min > max) {
        return invalid("min_duration is longer than max_duration");
    }
    let limit = arguments.limit.unwrap_or(20);
    if !(1..=MOST).contains(&limit) {
        return invalid("limit is 1 to 100");
    }
    let (start, end) = (arguments.start.as_deref(), arguments.end.as_deref());
    Ok(traces::Search {
        service: service.trim(),
        operation: arguments.operation.as_deref(),
        min_duration,
        max_duration,
        errors_only: arguments.errors_only,
        tags,
        range: Range::parse(start, end, HOUR, LONGEST, desk.now)?,
        limit,
    })
}

fn nothing(search: &traces::Search<'_>, restricted: bool) -> String {
    let mut note = format!("nothing of `{}` was found", answer::cut(search.service, 60));
    if !search.tags.is_empty() || restricted {
        note += "; all attributes, those of your grant too, must stand on one span of this service";
    }
    note + "; widen the range or leave out a condition"
}

#[cfg(test)]
mod tests;
