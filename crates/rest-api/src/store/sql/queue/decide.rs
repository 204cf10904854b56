//! What people decide: cancel, replay, approve.

use super::super::{SqlStore, Statement, executions, executions::columns};
use super::ChangedRow;
use crate::clock::now;
use crate::store::{Result, Signal, StoreError, rows::micros, signals::Reach};
use domain::{
    ApiKeyId, ExecutionId, TenantId,
    execution::{Execution, ExecutionStatus},
};

const CANCEL: Statement = Statement::new(
    "executions.cancel",
    concat!(
        "UPDATE executions SET cancel_requested = TRUE,
         status = CASE WHEN status = 'running' THEN status ELSE 'cancelled' END,
         error_code = CASE WHEN status = 'running' THEN error_code ELSE 'cancelled' END,
         error_message = CASE WHEN status = 'running' THEN error_message ELSE 'it was cancelled while it waited' END,
         finished_at = CASE WHEN status = 'running' THEN finished_at ELSE $3 END, updated_at = $3
         WHERE id = $1 AND tenant_id = $2 AND status IN ('queued', 'awaiting_approval', 'running')
         RETURNING TRUE AS watched, ", columns!()
    ),
);
const REPLAY: Statement = Statement::new(
    "executions.replay",
    concat!(
        "UPDATE executions SET status = 'queued', run_at = $3, ready = TRUE, deadline = NULL,
         max_attempts = attempts + $4, lost_attempts = 0, idempotent = $5, digest = $6, key_id = $7,
         approved_by = NULL, cancel_requested = FALSE,
         result = NULL, error_code = NULL, error_message = NULL, finished_at = NULL, watched = TRUE, updated_at = $3
         WHERE id = $1 AND tenant_id = $2 AND status IN ('failed', 'cancelled', 'dead', 'outcome_unknown')
         RETURNING watched, ", columns!()
    ),
);
const APPROVE: Statement = Statement::new(
    "executions.approve",
    concat!(
        "UPDATE executions SET status = 'queued', run_at = $3, ready = TRUE, approved_by = $4, updated_at = $3
         WHERE id = $1 AND tenant_id = $2 AND status = 'awaiting_approval' AND digest = $5
         RETURNING watched, ", columns!()
    ),
);

/// How an execution runs once more.
pub(super) struct Replay<'a> {
    pub(super) by: ApiKeyId,
    pub(super) more_attempts: i32,
    pub(super) idempotent: bool,
    pub(super) digest: &'a str,
}

pub(super) async fn cancel(store: &SqlStore, tenant: TenantId, id: ExecutionId) -> Result<Execution> {
    let call = CANCEL.bind(id.0).bind(tenant.0).bind(micros(now()));
    let Some(row) = call.first::<ChangedRow>(&store.write).await? else {
        return current(store, tenant, id).await;
    };
    let execution = store.changed(row)?;
    if execution.status == ExecutionStatus::Running {
        store.signals.tell(Signal::Cancel(id), Reach::Everywhere);
    }
    Ok(execution)
}

pub(super) async fn replay(
    store: &SqlStore,
    tenant: TenantId,
    id: ExecutionId,
    replay: Replay<'_>,
) -> Result<Execution> {
    let call = REPLAY.bind(id.0).bind(tenant.0).bind(micros(now()));
    let call = call
        .bind(replay.more_attempts)
        .bind(replay.idempotent)
        .bind(replay.digest.to_owned())
        .bind(replay.by.0);
    let row = call.first::<ChangedRow>(&store.write).await?;
    changed_or_refused(store, tenant, id, row).await
}

pub(super) async fn approve(
    store: &SqlStore,
    tenant: TenantId,
    id: ExecutionId,
    by: ApiKeyId,
    digest: &str,
) -> Result<Execution> {
    let call = APPROVE.bind(id.0).bind(tenant.0).bind(micros(now()));
    let call = call.bind(by.0).bind(digest.to_owned());
    let row = call.first::<ChangedRow>(&store.write).await?;
    changed_or_refused(store, tenant, id, row).await
}

/// The execution as it was changed, or why it was not.
async fn changed_or_refused(
    store: &SqlStore,
    tenant: TenantId,
    id: ExecutionId,
    row: Option<ChangedRow>,
) -> Result<Execution> {
    match row {
        Some(row) => store.changed(row),
        None => match current(store, tenant, id).await {
            Ok(_) => Err(StoreError::Conflict),
            Err(error) => Err(error),
        },
    }
}

async fn current(store: &SqlStore, tenant: TenantId, id: ExecutionId) -> Result<Execution> {
    executions::get(store, tenant, id).await
}
