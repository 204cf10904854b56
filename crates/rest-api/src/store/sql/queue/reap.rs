//! What nobody ends any more: lost leases, and deadlines that passed before anything began.

use super::super::{SqlStore, Statement, dialect::skip_locked};
use crate::store::{
    MAX_LOST, Reaped, Result, Signal,
    rows::{ReapedRow, micros, read_all},
    signals::Reach,
};
use domain::{Time, execution::ExecutionStatus};

const LOST: Statement = Statement::new(
    "executions.reap",
    concat!(
        "WITH lost AS MATERIALIZED (SELECT id FROM executions WHERE status = 'running' AND lease_expires_at < $1
         ORDER BY lease_expires_at LIMIT $2", skip_locked!(), ")
         UPDATE executions SET
         status = CASE WHEN NOT idempotent THEN 'outcome_unknown' WHEN cancel_requested THEN 'cancelled'
             WHEN lost_attempts + 1 >= $3 THEN 'dead' ELSE 'queued' END,
         finished_at = CASE WHEN idempotent AND NOT cancel_requested AND lost_attempts + 1 < $3 THEN NULL ELSE $1 END,
         error_code = CASE WHEN idempotent AND cancel_requested THEN 'cancelled' ELSE 'worker_lost' END,
         error_message = CASE WHEN NOT idempotent THEN 'its worker was lost; it may or may not have had its effect'
             WHEN cancel_requested THEN 'it was cancelled, and its worker was lost'
             WHEN lost_attempts + 1 >= $3 THEN 'its worker was lost, as others before' ELSE 'its worker was lost' END,
         lost_attempts = lost_attempts + 1, run_at = $1, ready = TRUE, lease_owner = NULL, lease_expires_at = NULL,
         progress = NULL, watched = TRUE, updated_at = $1
         WHERE id IN (SELECT id FROM lost) AND status = 'running' RETURNING id, tool, status, created_at, error_code"
    ),
);
const LATE: Statement = Statement::new(
    "executions.expire",
    concat!(
        "WITH late AS MATERIALIZED (SELECT id FROM executions
         WHERE deadline <= $1 AND status IN ('queued', 'awaiting_approval')
         ORDER BY deadline LIMIT $2",
        skip_locked!(),
        ")
         UPDATE executions SET status = 'failed', finished_at = $1, updated_at = $1,
         error_code = CASE WHEN status = 'queued' THEN 'deadline_exceeded' ELSE 'approval_expired' END,
         error_message = CASE WHEN status = 'queued' THEN 'its deadline passed before it could begin'
             ELSE 'nobody approved it in time' END
         WHERE id IN (SELECT id FROM late) AND status IN ('queued', 'awaiting_approval')
         RETURNING id, tool, status, created_at, error_code"
    ),
);

pub(super) async fn reap(store: &SqlStore, now: Time, limit: u32) -> Result<Vec<Reaped>> {
    let lost = store.retrying(|| {
        let call = LOST.bind(micros(now)).bind(i64::from(limit)).bind(MAX_LOST);
        call.all::<ReapedRow>(&store.write)
    });
    let mut reaped = read_all(lost.await?)?;
    tell(store, &reaped);
    let late = store.retrying(|| {
        let call = LATE.bind(micros(now)).bind(i64::from(limit));
        call.all::<ReapedRow>(&store.write)
    });
    let late = read_all(late.await?)?;
    tell(store, &late);
    reaped.extend(late);
    Ok(reaped)
}

fn tell(store: &SqlStore, reaped: &[Reaped]) {
    for one in reaped {
        store.signals.tell(Signal::Changed(one.id), Reach::Everywhere);
    }
    if reaped.iter().any(|one| one.status == ExecutionStatus::Queued) {
        store.signals.tell(Signal::Queued, Reach::Everywhere);
    }
}
