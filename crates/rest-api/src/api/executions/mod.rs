//! Executions: asked for, run, followed, changed. The executions table is the queue; see `queue`.

mod admit;
mod attempt;
mod change;
mod enqueue;
mod flight;
mod follow;
mod run;
mod seen;
mod shown;

pub(super) use admit::check_priority;
pub use attempt::{HandedBatch, HandedRun};
pub use follow::ResultPart;
pub use run::{RunEvent, Waiting};
pub use shown::View;

use super::Api;
use crate::{
    error::{Found, Result},
    store::ExecutionFilter,
};
use domain::{
    ExecutionId, JsonObject, Principal, ScheduleId, Time,
    execution::{Attempt, Execution, ExecutionError, ExecutionStatus, Outcome},
    page::{Page, PageRequest},
};

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The tool's name.
    pub tool: String,
    /// What it is called with.
    pub arguments: JsonObject,
    /// A person confirmed this very call, and a service of ours vouches for it.
    pub confirmed: bool,
    /// The same key with the same tool and arguments again: the same execution.
    pub idempotency_key: Option<String>,
    /// Those with a higher one run first, within their tenant; -100 to 100.
    pub priority: i32,
    /// When it ends if it has not begun by then.
    pub deadline: Option<Time>,
    /// The schedule that asks.
    pub schedule_id: Option<ScheduleId>,
    /// An incident asks.
    pub of_incident: bool,
}

impl Api {
    /// One execution, of a call that the caller's rules allow. Needs `tools:read` or `tools:execute`, as the listing; for
    /// those of the product's own tools see [`seen`].
    pub async fn get_execution(&self, caller: &Principal, id: ExecutionId) -> Result<Execution> {
        seen::require_some(caller)?;
        let found = self.0.store.get_execution(caller.tenant_id, id).await;
        let execution = found.or_missing("execution")?;
        self.require_seen(caller, &execution).await?;
        Ok(execution)
    }

    /// Executions of calls that the caller's rules allow, newest first. A page may hold less than was asked for.
    pub async fn list_executions(
        &self,
        caller: &Principal,
        filter: &ExecutionFilter,
        page: &PageRequest,
    ) -> Result<Page<Execution>> {
        seen::require_some(caller)?;
        let mut listed = self
            .0
            .store
            .list_executions(caller.tenant_id, filter, page)
            .await?;
        listed.items = self.retain_own(caller, listed.items).await?;
        Ok(listed)
    }

    /// The attempts of an execution that are over, in order.
    pub async fn list_attempts(&self, caller: &Principal, id: ExecutionId) -> Result<Vec<Attempt>> {
        self.get_execution(caller, id).await?;
        let attempts = self.0.store.list_attempts(caller.tenant_id, id).await;
        attempts.or_missing("execution")
    }
}

/// An end without a result.
fn ended(status: ExecutionStatus, code: &str, message: &str) -> Outcome {
    let error = ExecutionError {
        code: code.to_owned(),
        message: message.to_owned(),
    };
    Outcome {
        status,
        result: None,
        error: Some(error),
    }
}
