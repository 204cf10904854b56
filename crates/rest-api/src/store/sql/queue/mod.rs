//! The queue. Whoever ends an attempt shows its fencing token: one that was taken over has another.

mod attempts;
mod create;
mod decide;
mod lease;
mod reap;
mod state;

use super::SqlStore;
use crate::clock::now;
use crate::store::{
    End, HeldLease, LeaseAsk, Leased, Made, NewExecution, QueueState, QueueStore, Reaped, Renewed, Result,
    Signal,
    rows::{ExecutionRow, Row as _},
    signals::Reach,
};
use domain::{
    ApiKeyId, ExecutionId, TenantId, Time,
    execution::{Attempt, Execution},
};
use sqlx::FromRow;
use tokio::sync::broadcast;

/// A status that the index of open executions knows: SQLite uses a partial index only for who repeats its condition.
macro_rules! open {
    () => {
        "status IN ('queued', 'awaiting_approval', 'running', 'dead')"
    };
}
use open;

/// An execution after a change, and whether others than who changed it may wait for it.
#[derive(FromRow)]
struct ChangedRow {
    #[sqlx(flatten)]
    execution: ExecutionRow,
    watched: bool,
}

impl SqlStore {
    /// Reads an execution that was just changed, and tells of the change.
    fn changed(&self, row: ChangedRow) -> Result<Execution> {
        let reach = if row.watched {
            Reach::Everywhere
        } else {
            Reach::Here
        };
        let execution = row.execution.read()?;
        self.signals.tell(Signal::Changed(execution.id), reach);
        // A retry that waits is told of by nobody: who looks for work looks again in a moment.
        if execution.run_at.is_some_and(|at| at <= now()) {
            self.signals.tell(Signal::Queued, Reach::Everywhere);
        }
        Ok(execution)
    }
}

#[async_trait::async_trait]
impl QueueStore for SqlStore {
    async fn create_execution(&self, tenant: TenantId, new: &NewExecution) -> Result<Made<Execution>> {
        create::create(self, tenant, new).await
    }

    async fn lease_executions(&self, ask: &LeaseAsk<'_>) -> Result<Vec<Leased>> {
        lease::lease(self, ask).await
    }

    async fn leased_execution(&self, id: ExecutionId, token: i64) -> Result<Leased> {
        lease::held(self, id, token).await
    }

    async fn watch_execution(&self, tenant: TenantId, id: ExecutionId) -> Result<()> {
        create::watch(self, tenant, id).await
    }

    async fn renew_leases(&self, held: &[HeldLease], expires_at: Time) -> Result<Vec<Renewed>> {
        self.retrying(|| attempts::renew(self, held, expires_at)).await
    }

    async fn end_attempt(&self, id: ExecutionId, token: i64, end: End<'_>) -> Result<Execution> {
        attempts::end(self, id, token, end).await
    }

    async fn cancel_execution(&self, tenant: TenantId, id: ExecutionId) -> Result<Execution> {
        decide::cancel(self, tenant, id).await
    }

    async fn replay_execution(
        &self,
        tenant: TenantId,
        id: ExecutionId,
        by: ApiKeyId,
        more_attempts: i32,
        idempotent: bool,
        digest: &str,
    ) -> Result<Execution> {
        let replay = decide::Replay {
            by,
            more_attempts,
            idempotent,
            digest,
        };
        decide::replay(self, tenant, id, replay).await
    }

    async fn approve_execution(
        &self,
        tenant: TenantId,
        id: ExecutionId,
        by: ApiKeyId,
        digest: &str,
    ) -> Result<Execution> {
        decide::approve(self, tenant, id, by, digest).await
    }

    async fn list_attempts(&self, tenant: TenantId, id: ExecutionId) -> Result<Vec<Attempt>> {
        attempts::list(self, tenant, id).await
    }

    async fn reap_executions(&self, now: Time, limit: u32) -> Result<Vec<Reaped>> {
        reap::reap(self, now, limit).await
    }

    async fn queue_state(&self, now: Time) -> Result<QueueState> {
        state::state(self, now).await
    }

    fn signals(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }
}
