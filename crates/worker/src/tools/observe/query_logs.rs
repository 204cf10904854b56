//! `query_logs`: lines of logs, those that say the same told once.

use super::{
    answer::Answer,
    logs::{self, Filters, Found, Level, MAX_LINES, Question, RANGE, group, line::Line},
    series,
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

/// How many different lines are shown if nothing is said, and at most.
const LIMIT: (usize, usize) = (50, 200);
/// How many points of a metric of lines are asked for, and how many are shown, as [`super::query_metrics`] does.
const RESOLUTION: u32 = 121;
const POINTS: usize = 20;

/// See [`BuiltIn::DESCRIPTION`].
pub(crate) struct Tool;

// Its documentation would be listed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// LogQL; instead of filters
    query: Option<String>,
    service: Option<String>,
    /// Or worse
    level: Option<Level>,
    text: Option<String>,
    trace_id: Option<String>,
    request_id: Option<String>,
    /// Default -1h
    start: Option<String>,
    end: Option<String>,
    /// Default 50
    limit: Option<usize>,
    direction: Option<Direction>,
    source: Option<String>,
}

/// Which lines come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Backward,
    Forward,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "query_logs";
    const TITLE: &'static str = "Query logs";
    const DESCRIPTION: &'static str = "Finds log lines by LogQL or filters, newest first; lines that differ only in \
        numbers and ids come once, with a count. Metric LogQL gives series.";
    const NEEDS: &'static [Kind] = &[Kind::Loki];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let query = arguments.query()?;
        let limit = arguments.limit()?;
        let access = desk
            .sources
            .pick(Kind::Loki, arguments.source.as_deref(), &desk.who)?;
        let (start, end) = (arguments.start.as_deref(), arguments.end.as_deref());
        let range = Range::parse(start, end, RANGE.0, RANGE.1, desk.now)?;
        let question = Question {
            query: &query,
            range,
            forward: arguments.direction == Some(Direction::Forward),
            lines: MAX_LINES,
            step: time::step(&range, RESOLUTION),
        };
        let found = logs::ask(&access, &question).await?;
        let mut answer = Answer::from(&access);
        answer.set("query", query.as_str());
        answer.set("start", time::rfc3339(range.start));
        answer.set("end", time::rfc3339(range.end));
        Ok(match found {
            Found::Lines { lines, full } => shown(answer, &question, lines, full, limit),
            Found::Series(read) => {
                answer.set("type", "range");
                answer.set("step", time::short(question.step));
                if read.is_empty() {
                    answer.note("no line that is counted matches in this time");
                }
                series::tell(&mut answer, read, Some(POINTS));
                answer.finish("series")
            }
        })
    }
}

impl Arguments {
    /// The LogQL that is meant.
    fn query(&self) -> Result<String, Failure> {
        let filters = Filters {
            service: given(self.service.as_deref()),
            level: self.level,
            text: given(self.text.as_deref()),
            trace_id: given(self.trace_id.as_deref()),
            request_id: given(self.request_id.as_deref()),
        };
        match given(self.query.as_deref()) {
            None => Ok(filters.query()),
            Some(query) if filters.is_empty() => Ok(query.to_owned()),
            Some(_) => Err(Failure::new(
                Code::InvalidArguments,
                "give either `query` or filters: what is in `query` needs no filters beside it",
            )),
        }
    }

    fn limit(&self) -> Result<usize, Failure> {
        let limit = self.limit.unwrap_or(LIMIT.0);
        if (1..=LIMIT.1).contains(&limit) {
            return Ok(limit);
        }
        let message = format!("`limit` is from 1 to {}", LIMIT.1);
        Err(Failure::new(Code::InvalidArguments, message))
    }
}

fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn shown(mut answer: Answer, question: &Question<'_>, lines: Vec<Line>, full: bool, limit: usize) -> Value {
    let read = lines.len();
    answer.set("lines_read", read);
    if read == 0 {
        answer.note("no line matches in this time; log_labels tells what there is");
    }
    if full {
        let (which, others) = match question.forward {
            true => ("oldest", "later"),
            false => ("newest", "earlier"),
        };
        answer.note(format!(
            "only the {which} {read} lines were read, {others} ones are neither shown nor counted: narrow the time or \
             the query, or count with sum(count_over_time(… [5m]))"
        ));
    }
    let groups = group::grouped(lines);
    let all: Vec<Value> = groups.iter().take(limit).map(group::Group::value).collect();
    if all.len() < groups.len() {
        answer.truncated(all.len(), groups.len());
        answer.note("there are more different lines: raise `limit` (to 200) or narrow the query");
    }
    answer.set("lines", all);
    answer.finish("lines")
}

#[cfg(test)]
mod tests;
