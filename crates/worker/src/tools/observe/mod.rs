//! The product's own tools over telemetry, one file each, and where each is found by its name.

pub(crate) mod answer;
#[cfg(test)]
pub(crate) mod testing;

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

/// Every one of them: `Entry::of::<tool::Tool>()`, a line each.
fn entries() -> Entries {
    Entries::from([])
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
