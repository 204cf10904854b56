//! A call that does not wait.

use super::{Ask, admit::Admitted};
use crate::{
    api::Api,
    clock::now,
    error::{Found, Result},
    metrics,
    store::{Made, Start},
};
use domain::{Principal, execution::Execution};

impl Api {
    /// Queues a run, or puts it before a person who approves. Needs what [`run_tool`](Self::run_tool) needs.
    pub async fn enqueue(&self, caller: &Principal, ask: Ask) -> Result<Execution> {
        Ok(self.enqueue_once(caller, ask).await?.into_inner())
    }

    /// As [`enqueue`](Self::enqueue), and says whether an earlier call with the same idempotency key had done it.
    pub async fn enqueue_once(&self, caller: &Principal, ask: Ask) -> Result<Made<Execution>> {
        let admitted = self.admit(caller, &ask).await?;
        let start = if admitted.to_approve {
            Start::AwaitingApproval
        } else {
            Start::Queued { run_at: now() }
        };
        self.put(caller, &ask, &admitted, start).await
    }

    /// Puts a call into the table, to be run later.
    pub(super) async fn put(
        &self,
        caller: &Principal,
        ask: &Ask,
        admitted: &Admitted,
        start: Start,
    ) -> Result<Made<Execution>> {
        self.0.backlog.admit(&caller.tenant).await?;
        let awaits = matches!(start, Start::AwaitingApproval);
        let new = self.new_execution(caller, ask, admitted, start);
        let made = self.0.store.create_execution(caller.tenant_id, &new).await;
        let made = made.or_missing("tool")?;
        if let Made::New(execution) = &made {
            metrics::announce(&execution.tool);
            metrics::EXECUTIONS_ENQUEUED.inc([&execution.tool]);
            if awaits {
                tracing::info!(execution_id = %execution.id, tool = execution.tool, "execution awaits approval");
            }
        }
        if let Made::Before(execution) = &made {
            self.require_own(caller, execution).await?;
        }
        Ok(made)
    }
}
