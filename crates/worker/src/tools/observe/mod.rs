//! The product's own tools over telemetry, one file each, and where each is found by its name.

mod alerts;
pub(crate) mod answer;
mod compare_traces;
mod create_silence;
mod expire_silence;
mod explain_alert;
mod get_trace;
mod health;
mod list_alerts;
mod list_metrics;
mod list_silences;
mod list_targets;
mod log_labels;
mod logs;
mod query_logs;
mod query_metrics;
mod redis_status;
mod search_traces;
mod series;
mod service_health;
mod slo_status;
mod slow_queries;
#[cfg(test)]
mod tests;
pub(crate) mod traces;

use super::{
    Call, ToolKind,
    built_in::{Desk, Entries, Entry},
};
use crate::{
    outcome::{Code, Failure},
    progress::Reporter,
    sources::{Sources, Who},
};
use async_trait::async_trait;
use domain::Time;
use proto::v1;
use serde_json::Value;
use std::time::SystemTime;
#[cfg(test)]
pub(crate) use tests::{databases, endures, testing};

/// Every one of them: `Entry::of::<tool::Tool>()`, a line each.
fn entries() -> Entries {
    Entries::from([
        Entry::of::<query_metrics::Tool>(),
        Entry::of::<list_metrics::Tool>(),
        Entry::of::<list_targets::Tool>(),
        Entry::of::<slow_queries::Tool>(),
        Entry::of::<redis_status::Tool>(),
        Entry::of::<search_traces::Tool>(),
        Entry::of::<get_trace::Tool>(),
        Entry::of::<compare_traces::Tool>(),
        Entry::of::<create_silence::Tool>(),
        Entry::of::<expire_silence::Tool>(),
        Entry::of::<list_alerts::Tool>(),
        Entry::of::<list_silences::Tool>(),
        Entry::of::<log_labels::Tool>(),
        Entry::of::<query_logs::Tool>(),
        Entry::of::<service_health::Tool>(),
        Entry::of::<slo_status::Tool>(),
        Entry::of::<explain_alert::Tool>(),
    ])
}

/// The product's own tools over the sources that this worker has.
pub struct Observe {
    entries: Entries,
    sources: Sources,
}

impl Observe {
    /// All of them.
    pub fn new(sources: Sources) -> Self {
        Self {
            entries: entries(),
            sources,
        }
    }

    /// Those that anybody may call here.
    pub fn manifest(&self) -> Vec<v1::BuiltInTool> {
        let listed = |entry: &Entry| entry.listed(&self.sources);
        self.entries.values().filter_map(listed).collect()
    }
}

#[async_trait]
impl ToolKind for Observe {
    async fn run(&self, call: &Call, progress: &Reporter) -> Result<Value, Failure> {
        // rest-api knows it from a worker of another version.
        let unknown = || Failure::new(Code::InvalidTool, "this worker does not know the tool");
        let entry = self.entries.get(call.tool.name.as_str()).ok_or_else(unknown)?;
        let desk = Desk {
            sources: &self.sources,
            who: Who {
                tenant: &call.tenant,
                key_name: &call.caller.key_name,
                scopes: &call.caller.scopes,
            },
            progress,
            now: Time::from(SystemTime::now()),
        };
        call.departed.raise();
        entry.run(&desk, call.arguments.clone()).await
    }
}
