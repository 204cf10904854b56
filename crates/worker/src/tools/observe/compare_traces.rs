//! `compare_traces`

use super::{
    answer::{self, Answer},
    traces::{self, compare, model::Trace},
};
use crate::{
    outcome::{Code, Failure},
    sources::Kind,
    tools::built_in::{BuiltIn, Desk},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// How many places are shown where the traces differ.
const MOST: usize = 20;

/// Compares two traces.
pub(super) struct Tool;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Trace id
    slow: String,
    /// Trace id of a good one of the same operation
    fast: String,
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "compare_traces";
    const TITLE: &'static str = "Compare two traces";
    const DESCRIPTION: &'static str = "Says where a slow trace lost its time against a fast one of the same \
        operation: by path of operations, the difference on the critical path (these add up to the difference of \
        the durations) and the number of calls.";
    const NEEDS: &'static [Kind] = &[Kind::Jaeger];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let access = traces::pick(desk, arguments.source.as_deref())?;
        let (slow, fast) = (traces::id(&arguments.slow)?, traces::id(&arguments.fast)?);
        if slow == fast {
            return Err(Failure::new(
                Code::InvalidArguments,
                "slow and fast are the same trace",
            ));
        }
        let (slow, fast) = tokio::try_join!(traces::fetch(&access, &slow), traces::fetch(&access, &fast))?;
        let places = compare::places(&slow, &fast);
        let differ: Vec<_> = places.iter().filter(|place| place.slow != place.fast).collect();
        let mut answer = Answer::from(&access);
        answer.set("slow", summary(&slow)).set("fast", summary(&fast));
        let critical: i64 = places.iter().map(compare::Place::difference).sum();
        answer.set("difference_ms", traces::ms(critical));
        let shown: Vec<Value> = differ.iter().take(MOST).map(|place| place.shown()).collect();
        if shown.len() < differ.len() {
            answer.truncated(shown.len(), differ.len());
            let rest: i64 = differ[shown.len()..].iter().map(|place| place.difference()).sum();
            answer.note(format!(
                "the places not shown make {} ms of the difference",
                traces::ms(rest)
            ));
        }
        answer.set("where", shown);
        if name(&slow) != name(&fast) {
            answer.note("the traces begin with different operations: few of their paths can be compared");
        }
        if critical < 0 {
            answer.note("the one called slow is the faster one");
        }
        Ok(answer.finish("where"))
    }
}

fn name(trace: &Trace) -> String {
    trace.root().map(|root| root.name()).unwrap_or_default()
}

fn summary(trace: &Trace) -> Value {
    json!({
        "trace_id": trace.id,
        "root": answer::cut(&name(trace), 120),
        "start": traces::at(trace.start()),
        "duration_ms": traces::ms(trace.duration()),
        "spans": trace.spans.len(),
        "errors": trace.errors(),
    })
}

#[cfg(test)]
mod tests;
