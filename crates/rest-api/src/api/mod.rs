//! The use cases: what both doors, HTTP and gRPC, offer. Scopes, limits and business metrics stand here and nowhere
//! else; the doors only translate.

mod audit;
mod built_ins;
mod contexts;
mod executions;
mod import;
mod incidents;
mod keys;
mod maintenance;
mod schedules;
mod tools;
mod upstreams;

pub use contexts::{ItemsPage, Search};
pub use executions::{Ask, HandedBatch, HandedRun, ResultPart, RunEvent, View, Waiting};
pub use import::{
    Action, Given, ImportAsk, Imported, ImportedTool, Imports, OnConflict, Permit, Source, Wanted,
};
pub(crate) use incidents::look as look_into_incidents;
pub use incidents::{Drafts, Heard, Received};
pub use keys::{IssuedKey, NewKey};
pub use tools::{NewTool, ToolChange};
pub use upstreams::{NewUpstream, UpstreamChange};

use crate::{
    auth::Verifier,
    catalogue::Catalogue,
    queue::{Backlog, Hub},
    runner::Runner,
    settings::{Limits, Queue, Retention, Upstreams},
    store::SharedStore,
    vault::Vault,
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The use cases over what they need. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

/// What the use cases need.
pub struct Parts {
    /// The database.
    pub store: SharedStore,
    /// Knows keys.
    pub verifier: Verifier,
    /// Seals tools' credentials.
    pub vault: Vault,
    /// Tells the watchers of changed tools.
    pub catalogue: Catalogue,
    /// Tells the watchers of changed contexts.
    pub changes: crate::changes::Changes,
    /// Wakes who looks into incidents when one was opened here.
    pub looks: tokio::sync::Notify,
    /// Tells who waits for executions.
    pub hub: Hub,
    /// Bounds what waits.
    pub backlog: Backlog,
    /// How executions are queued.
    pub queue: Queue,
    /// Reaches the workers.
    pub runner: Runner,
    /// Compiled input schemas.
    pub schemas: crate::schema::Schemas,
    /// How many imports run at once.
    pub imports: Imports,
    /// How many postmortems are drafted at once.
    pub drafts: Drafts,
    /// Compiled selections of results.
    pub selections: crate::selection::Selections,
    /// What a caller may send.
    pub limits: Limits,
    /// How long things are kept.
    pub retention: Retention,
    /// How other MCP servers are asked for their tools.
    pub upstreams: Upstreams,
    /// A fault that a test planted: listing contexts runs a slow statement, too.
    pub slow_listing: bool,
    /// Runs what must outlive its request.
    pub tasks: chassis::Tasks,
    /// The service stops: what waits for long ends.
    pub shutdown: CancellationToken,
    /// This replica's name, in leases.
    pub replica: String,
}

impl Api {
    /// The use cases over `parts`.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Knows keys; the doors authenticate with it.
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    /// Tells of changed tools.
    pub fn catalogue(&self) -> &Catalogue {
        &self.0.catalogue
    }

    /// Tells who waits for executions.
    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Where what must outlive its request runs.
    pub(crate) fn tasks(&self) -> &chassis::Tasks {
        &self.0.tasks
    }

    /// The service stops.
    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// What a caller may send.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// How long things are kept.
    pub fn retention(&self) -> &Retention {
        &self.0.retention
    }
}
