//! Log lines as Loki has them: asking for them, and what stands in its answers.

pub(crate) mod group;
pub(crate) mod line;

use super::series::{self, Series};
use crate::{
    outcome::{Code, Failure},
    sources::{
        Access, logql, take,
        time::{self, Range},
    },
};
use line::Line;
use serde_json::Value;
use std::time::Duration;

/// How far back is looked where nothing is said, and how long a range may be: Loki's own limit is a bit longer.
pub(crate) const RANGE: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(30 * 86_400));
/// How many lines are read at most, so that there is something to group.
pub(crate) const MAX_LINES: usize = 1000;
/// How many are read where so many do not fit into the limit of an answer.
const FEW_LINES: usize = 50;
/// The longest LogQL that is taken, in bytes: what every version of Loki takes.
const MAX_QUERY: usize = 5000;
/// A longer query is posted, for not everything in between takes long addresses.
const MAX_IN_ADDRESS: usize = 1500;

/// What a query gave.
pub(crate) enum Found {
    /// Lines, in the order asked for.
    Lines {
        /// The lines.
        lines: Vec<Line>,
        /// There may be more: so many were asked for.
        full: bool,
    },
    /// Series of a metric.
    Series(Vec<Series>),
}

/// What is asked.
pub(crate) struct Question<'a> {
    /// LogQL, as its author wrote it.
    pub query: &'a str,
    /// From when to when.
    pub range: Range,
    /// The oldest first.
    pub forward: bool,
    /// At most so many lines.
    pub lines: usize,
    /// Between two points, where the query is one for a metric.
    pub step: Duration,
}

/// Asks for lines, or for a metric of them: Loki tells which it is. What the caller may not see is not asked for.
///
/// # Errors
/// [`Failure`]
pub(crate) async fn ask(access: &Access, question: &Question<'_>) -> Result<Found, Failure> {
    match ask_for(access, question, question.lines).await {
        // Long lines. Some are better than none.
        Err(failure) if failure.code == Code::ResponseTooLarge && question.lines > FEW_LINES => {
            ask_for(access, question, FEW_LINES).await
        }
        found => found,
    }
}

async fn ask_for(access: &Access, question: &Question<'_>, limit: usize) -> Result<Found, Failure> {
    if question.query.len() > MAX_QUERY {
        let message = format!("the query is longer than {MAX_QUERY} bytes");
        return Err(Failure::new(Code::InvalidArguments, message));
    }
    let direction = if question.forward { "forward" } else { "backward" };
    let query = logql::enforce(question.query, access.matchers())?;
    let long = query.len() > MAX_IN_ADDRESS;
    let parameters = [
        ("query", query),
        ("start", time::nanos(question.range.start)),
        ("end", time::nanos(question.range.end)),
        ("limit", limit.to_string()),
        ("direction", direction.to_owned()),
        ("step", question.step.as_secs().max(1).to_string()),
    ];
    let path = "/loki/api/v1/query_range";
    let answer = match long {
        true => access.post_form(path, &parameters).await?,
        false => access.get(path, &parameters).await?,
    };
    answer.read(|mut answer| {
        let result = take(&mut answer, "/data/result");
        match (answer["data"]["resultType"].as_str(), result) {
            (Some("streams"), Value::Array(streams)) => {
                let lines = line::of_streams(&streams, question.forward);
                let full = lines.len() >= limit;
                Ok(Found::Lines { lines, full })
            }
            (Some("matrix"), list @ Value::Array(_)) => series::read(access, list).map(Found::Series),
            _ => Err(not_of_loki()),
        }
    })
}

/// What is told of an answer that cannot be read.
pub(crate) fn not_of_loki() -> Failure {
    Failure::new(
        Code::SourceError,
        "the source answered with something that is not Loki's",
    )
}

/// How bad a line is, from the best. Its words have no descriptions, which each listing would pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// It and all that are worse, as a regular expression.
    fn or_worse(self) -> String {
        let all = [
            (Self::Trace, "trace"),
            (Self::Debug, "debug"),
            (Self::Info, "info"),
            (Self::Warn, "warn"),
            (Self::Error, "error"),
        ];
        let worse = all.iter().filter(|(level, _)| *level >= self);
        worse.map(|(_, word)| *word).collect::<Vec<_>>().join("|")
    }
}

/// Lines by what this product's logs are found by. `service` and `level` are labels of streams, the ids are structured
/// metadata of each line.
#[derive(Debug, Default)]
pub(crate) struct Filters<'a> {
    /// The service's name.
    pub service: Option<&'a str>,
    /// This level or worse.
    pub level: Option<Level>,
    /// A text in the line, in capital or small letters.
    pub text: Option<&'a str>,
    /// The trace's id.
    pub trace_id: Option<&'a str>,
    /// The request's id.
    pub request_id: Option<&'a str>,
}

impl Filters<'_> {
    /// Whether nothing is asked of a line.
    pub(crate) fn is_empty(&self) -> bool {
        let texts = [self.service, self.text, self.trace_id, self.request_id];
        self.level.is_none() && texts.iter().all(Option::is_none)
    }

    /// The LogQL for it.
    pub(crate) fn query(&self) -> String {
        let mut labels = Vec::new();
        match self.service {
            Some(service) => labels.push(format!("service={}", logql::quoted(service))),
            // Loki wants one matcher that excludes the empty value.
            None if self.level.is_none() => labels.push(r#"service=~".+""#.to_owned()),
            None => {}
        }
        labels.extend(self.level.map(|level| format!("level=~\"{}\"", level.or_worse())));
        let mut query = format!("{{{}}}", labels.join(", "));
        if let Some(text) = self.text {
            let expression = format!("(?i){}", logql::literal(text));
            query.push_str(&format!(" |~ {}", logql::quoted(&expression)));
        }
        for (name, id) in [("trace_id", self.trace_id), ("request_id", self.request_id)] {
            if let Some(id) = id {
                query.push_str(&format!(" | {name}={}", logql::quoted(id)));
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_logql() {
        let none = Filters::default();
        assert_eq!(none.query(), r#"{service=~".+"}"#);
        let some = Filters {
            level: Some(Level::Warn),
            request_id: Some("req\"1"),
            ..Filters::default()
        };
        assert_eq!(some.query(), r#"{level=~"warn|error"} | request_id="req\"1""#);
        let all = Filters {
            service: Some("rest-api"),
            level: Some(Level::Error),
            text: Some("took 1.5 s (\"x\")"),
            trace_id: Some("abc"),
            request_id: None,
        };
        assert_eq!(
            all.query(),
            r#"{service="rest-api", level=~"error"} |~ "(?i)took 1\\.5 s \\(\"x\"\\)" | trace_id="abc""#
        );
    }
}
