//! Leases while they are held, and how attempts end.

use super::super::{SqlStore, Statement, dialect::held, executions::columns};
use super::ChangedRow;
use crate::clock::now;
use crate::store::{
    End, HeldLease, Renewed, Result, Signal, StoreError,
    rows::{AttemptRow, json, micros, read_all},
    signals::Reach,
};
use domain::{
    ExecutionId, TenantId, Time,
    execution::{Attempt, Execution, ExecutionError, Outcome},
};
use serde::Serialize;
use std::collections::HashMap;
use uuid::Uuid;

const RENEW: Statement =
    Statement::new(
        "executions.renew",
        concat!(
        "UPDATE executions SET lease_expires_at = $2, progress = COALESCE(h.progress, executions.progress),
         updated_at = $3
         FROM ", held!("$1"), " AS h
         WHERE executions.id = h.id AND executions.fencing_token = h.token AND executions.status = 'running'
         RETURNING executions.id, executions.cancel_requested, executions.watched"
    ),
    );
const FINISH: Statement = Statement::new(
    "executions.finish",
    concat!(
        "UPDATE executions SET status = $3, result = $4, error_code = $5, error_message = $6, lease_owner = NULL,
         lease_expires_at = NULL, progress = NULL, finished_at = $7, updated_at = $7
         WHERE id = $1 AND fencing_token = $2 AND status = 'running' RETURNING watched, ", columns!()
    ),
);
const REQUEUE: Statement = Statement::new(
    "executions.requeue",
    concat!(
        "UPDATE executions SET status = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END,
         attempts = attempts - $3, run_at = $4, ready = $5,
         error_code = CASE WHEN cancel_requested THEN 'cancelled' ELSE $6 END,
         error_message = CASE WHEN cancel_requested THEN 'it was cancelled before its next attempt' ELSE $7 END,
         lease_owner = NULL, lease_expires_at = NULL, progress = NULL,
         finished_at = CASE WHEN cancel_requested THEN $8 END, watched = TRUE, updated_at = $8
         WHERE id = $1 AND fencing_token = $2 AND status = 'running' RETURNING watched, ", columns!()
    ),
);
const LIST: Statement = Statement::new(
    "execution_attempts.list",
    "SELECT a.number, a.owner, a.outcome, a.error_code, a.error_message, a.started_at, a.finished_at
     FROM executions e LEFT JOIN execution_attempts a ON a.execution_id = e.id
     WHERE e.id = $1 AND e.tenant_id = $2 ORDER BY a.number",
);

/// A [`HeldLease`] as the database reads it.
#[derive(Serialize)]
struct Held {
    id: String,
    token: i64,
    progress: Option<String>,
}

impl Held {
    fn new(held: &HeldLease) -> Self {
        Self {
            id: held.id.0.simple().to_string(),
            token: held.token,
            progress: held.progress.as_ref().map(|text| text.replace('\0', "")),
        }
    }
}

pub(super) async fn renew(store: &SqlStore, held: &[HeldLease], expires_at: Time) -> Result<Vec<Renewed>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let leases: Vec<_> = held.iter().map(Held::new).collect();
    let call = RENEW
        .bind(json(&leases)?)
        .bind(micros(expires_at))
        .bind(micros(now()));
    let rows = call.all::<(Uuid, bool, bool)>(&store.write).await?;
    let found: HashMap<_, _> = rows
        .into_iter()
        .map(|(id, cancel, watched)| (ExecutionId(id), (cancel, watched)))
        .collect();
    let renewed = |held: &HeldLease| {
        let found = found.get(&held.id);
        if let Some((_, watched)) = found
            && held.progress.is_some()
        {
            let reach = if *watched { Reach::Everywhere } else { Reach::Here };
            store.signals.tell(Signal::Changed(held.id), reach);
        }
        Renewed {
            id: held.id,
            lost: found.is_none(),
            cancel: found.is_some_and(|(cancel, _)| *cancel),
        }
    };
    Ok(held.iter().map(renewed).collect())
}

pub(super) async fn end(store: &SqlStore, id: ExecutionId, token: i64, end: End<'_>) -> Result<Execution> {
    let row = match end {
        End::Final(outcome) => finish(store, id, token, outcome).await?,
        End::Retry { run_at, error } => requeue(store, id, token, run_at, Some(error)).await?,
        End::HandBack { run_at } => requeue(store, id, token, run_at, None).await?,
    };
    store.changed(row.ok_or(StoreError::LeaseLost)?)
}

async fn finish(
    store: &SqlStore,
    id: ExecutionId,
    token: i64,
    outcome: &Outcome,
) -> Result<Option<ChangedRow>> {
    let error = outcome.error.as_ref();
    let call = FINISH.bind(id.0).bind(token).bind(outcome.status.as_str());
    let call = call.bind(outcome.result.as_ref().map(json).transpose()?);
    let call = call.bind(error.map(|e| e.code.clone())).bind(error.map(message));
    call.bind(micros(now())).first(&store.write).await
}

/// Queues it again; without an error, the attempt was none.
async fn requeue(
    store: &SqlStore,
    id: ExecutionId,
    token: i64,
    run_at: Time,
    error: Option<&ExecutionError>,
) -> Result<Option<ChangedRow>> {
    let now = now();
    let call = REQUEUE
        .bind(id.0)
        .bind(token)
        .bind(i32::from(error.is_none()))
        .bind(micros(run_at))
        .bind(run_at <= now);
    let call = call.bind(error.map(|e| e.code.clone())).bind(error.map(message));
    call.bind(micros(now)).first(&store.write).await
}

/// The message as PostgreSQL can keep it.
fn message(error: &ExecutionError) -> String {
    error.message.replace('\0', "")
}

/// An execution without attempts is one row without one; one that does not exist is none.
pub(super) async fn list(store: &SqlStore, tenant: TenantId, id: ExecutionId) -> Result<Vec<Attempt>> {
    let rows = LIST
        .bind(id.0)
        .bind(tenant.0)
        .all::<AttemptRow>(&store.read)
        .await?;
    if rows.is_empty() {
        return Err(StoreError::NotFound);
    }
    Ok(read_all(rows)?.into_iter().flatten().collect())
}
