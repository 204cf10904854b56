//! `get_trace`

use super::{
    answer::{Answer, MAX_BYTES},
    traces::{self, model::Trace, shown, tree::Tree},
};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Kind},
    tools::built_in::{BuiltIn, Desk},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

const MOST: usize = 500;
/// Left free for what is said about what was left out, bytes.
const SPARE: usize = 1 << 10;

/// Shows a trace.
pub(super) struct Tool;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    trace_id: String,
    /// 1-500, default 100
    max_spans: Option<usize>,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "get_trace";
    const TITLE: &'static str = "Read a trace";
    const DESCRIPTION: &'static str = "Reads one trace: its errors (where they began first), its critical path and \
        the tree of spans with self times. Of a large trace errors, critical path and what is above them are kept; \
        left_out counts the rest.";
    const NEEDS: &'static [Kind] = &[Kind::Jaeger];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = traces::pick(desk, arguments.source.as_deref())?;
        let id = traces::id(&arguments.trace_id)?;
        let most = arguments.max_spans.unwrap_or(100);
        if !(1..=MOST).contains(&most) {
            return Err(Failure::new(Code::InvalidArguments, "max_spans is 1 to 500"));
        }
        let trace = traces::fetch(&access, &id).await?;
        Ok(fitting(&access, &trace, most))
    }
}

/// The trace with as many spans as an answer has room for, and `most`.
fn fitting(access: &Access, trace: &Trace, mut most: usize) -> Value {
    let tree = Tree::of(trace);
    loop {
        let answer = shown(access, trace, &tree, most).finish("spans");
        if most <= 1 || answer.to_string().len() <= MAX_BYTES - SPARE {
            return answer;
        }
        // Chosen anew, so that what matters stays and not what happens to come first.
        most = most.min(trace.spans.len()) * 3 / 4;
    }
}

fn shown(access: &Access, trace: &Trace, tree: &Tree, most: usize) -> Answer {
    let kept = shown::choose(trace, tree, most);
    let spans = shown::spans(trace, tree, &kept);
    let (errors, failed) = shown::errors(trace, tree);
    let mut answer = Answer::from(access);
    answer.set("trace_id", trace.id.as_str());
    answer.set_some("root", trace.root().map(|root| root.name()));
    answer
        .set("start", traces::at(trace.start()))
        .set("duration_ms", traces::ms(trace.duration()));
    answer.set("services", json!(trace.services()));
    if errors.len() < failed {
        answer.note(format!(
            "{} of {failed} failed spans are told in detail",
            errors.len()
        ));
    }
    answer.set("errors", errors);
    answer.set("critical_path", shown::critical_path(trace, tree));
    if spans.len() < trace.spans.len() {
        answer.note("left_out: so many spans below that one are not shown; raise max_spans for more of them");
    }
    answer.truncated(spans.len(), trace.spans.len());
    answer.set("spans", spans);
    if tree.orphans > 0 {
        answer.note(format!(
            "the parents of {} spans are not in the trace: not sampled, lost, or not yet there",
            tree.orphans
        ));
    }
    if tree.outside > 0 {
        answer.note(format!(
            "{} spans lie partly or wholly outside of their parents' times (asynchronous, or clocks differ); outside \
             of these they take nothing from self times and critical path",
            tree.outside
        ));
    }
    if access.kind() == Kind::Jaeger {
        answer.set("url", format!("{}/trace/{}", access.public_url(), trace.id));
    }
    answer
}

#[cfg(test)]
mod tests;
