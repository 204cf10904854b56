//! How executions come into the table.

use super::super::{SqlStore, Statement, executions::columns};
use crate::clock::now;
use crate::store::{
    FIRST_TOKEN, Made, NewExecution, Result, Signal, Start, StoreError,
    rows::{ExecutionRow, Row as _, json, micros},
    signals::Reach,
};
use domain::{
    ExecutionId, TenantId, Time,
    execution::{Execution, ExecutionStatus},
    tool::built_in,
};
use sqlx::FromRow;

/// One statement, since a caller waits for it, with where the row comes from: no row when there is nothing there, or the
/// idempotency key was used.
macro_rules! insert {
    ($from:literal) => {
        Statement::new(
            "executions.insert",
            concat!(
                "INSERT INTO executions (id, tenant_id, tool_id, tool, key_id, status, attempts, max_attempts, priority,
                 run_at, ready, deadline, lease_owner, lease_expires_at, leased_at, fencing_token, idempotent,
                 idempotency_key, idempotency_fingerprint, digest, schedule_id, arguments, trace_id, traceparent,
                 created_at, started_at, updated_at, watched)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                 $22, $23, $24, $25, $15, $25, $26 ",
                $from,
                " ON CONFLICT (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
            ),
        )
    };
}
/// A registered tool may be gone.
const INSERT: Statement = insert!("FROM tools WHERE id = $3 AND tenant_id = $2");
/// One of the product's own is in no table.
const INSERT_BUILT_IN: Statement = insert!("WHERE TRUE");
const BY_KEY: Statement = Statement::new(
    "executions.by_key",
    concat!(
        "SELECT ",
        columns!(),
        ", idempotency_fingerprint FROM executions WHERE tenant_id = $1 AND idempotency_key = $2"
    ),
);
/// A second caller waits for, or follows, what the first one began.
const WATCH: Statement = Statement::new(
    "executions.watch",
    "UPDATE executions SET watched = TRUE WHERE id = $1 AND tenant_id = $2 AND status = 'running' AND NOT watched",
);

/// What a [`Start`] means for the row.
struct Begin {
    status: ExecutionStatus,
    attempts: i32,
    token: i64,
    run_at: Option<Time>,
    lease: Option<(String, Time)>,
    watched: bool,
}

impl Begin {
    fn new(start: &Start) -> Self {
        let queued = Self {
            status: ExecutionStatus::Queued,
            attempts: 0,
            token: 0,
            run_at: None,
            lease: None,
            watched: true,
        };
        match start {
            Start::Leased { owner, expires_at } => Self {
                status: ExecutionStatus::Running,
                attempts: 1,
                token: FIRST_TOKEN,
                lease: Some((owner.clone(), *expires_at)),
                watched: false,
                ..queued
            },
            Start::Queued { run_at } => Self {
                run_at: Some(*run_at),
                ..queued
            },
            Start::AwaitingApproval => Self {
                status: ExecutionStatus::AwaitingApproval,
                ..queued
            },
        }
    }
}

pub(super) async fn create(
    store: &SqlStore,
    tenant: TenantId,
    new: &NewExecution,
) -> Result<Made<Execution>> {
    let (begin, now) = (Begin::new(&new.start), now());
    if insert(store, tenant, new, &begin, now).await? {
        if begin.run_at.is_some_and(|at| at <= now) {
            store.signals.tell(Signal::Queued, Reach::Everywhere);
        }
        return Ok(Made::New(as_inserted(tenant, new, begin, now)));
    }
    let Some((key, fingerprint)) = &new.idempotency else {
        return Err(StoreError::NotFound);
    };
    before(store, tenant, key, fingerprint).await.map(Made::Before)
}

async fn insert(
    store: &SqlStore,
    tenant: TenantId,
    new: &NewExecution,
    begin: &Begin,
    now: Time,
) -> Result<bool> {
    let began = begin.lease.as_ref().map(|_| micros(now));
    let statement = if built_in::is_id_of(new.tool_id, &new.tool) {
        INSERT_BUILT_IN
    } else {
        INSERT
    };
    let call = statement
        .bind(new.id.0)
        .bind(tenant.0)
        .bind(new.tool_id.0)
        .bind(new.tool.clone())
        .bind(new.key_id.0);
    let call = call
        .bind(begin.status.as_str())
        .bind(begin.attempts)
        .bind(new.max_attempts)
        .bind(new.priority)
        .bind(begin.run_at.map(micros))
        .bind(begin.run_at.is_none_or(|at| at <= now))
        .bind(new.deadline.map(micros));
    let call = call
        .bind(begin.lease.as_ref().map(|(owner, _)| owner.clone()))
        .bind(begin.lease.as_ref().map(|(_, until)| micros(*until)))
        .bind(began)
        .bind(begin.token)
        .bind(new.idempotent);
    let call = call
        .bind(new.idempotency.as_ref().map(|(key, _)| key.clone()))
        .bind(new.idempotency.as_ref().map(|(_, print)| print.to_vec()))
        .bind(new.digest.clone())
        .bind(new.schedule_id.map(|id| id.0))
        .bind(json(&new.arguments)?);
    let call = call
        .bind(new.trace_id.clone())
        .bind(new.traceparent.clone())
        .bind(micros(now))
        .bind(begin.watched);
    Ok(call.execute(&store.write).await? > 0)
}

/// The row as it stands now, without asking for what is known.
fn as_inserted(tenant: TenantId, new: &NewExecution, begin: Begin, now: Time) -> Execution {
    Execution {
        id: new.id,
        tenant_id: tenant,
        tool_id: Some(new.tool_id),
        tool: new.tool.clone(),
        key_id: new.key_id,
        status: begin.status,
        arguments: new.arguments.clone(),
        result: None,
        error: None,
        attempts: begin.attempts,
        priority: new.priority,
        run_at: begin.run_at,
        deadline: new.deadline,
        cancel_requested: false,
        progress: None,
        schedule_id: new.schedule_id,
        digest: new.digest.clone(),
        approved_by: None,
        trace_id: new.trace_id.clone(),
        created_at: now,
        started_at: begin.lease.map(|_| now),
        finished_at: None,
    }
}

#[derive(FromRow)]
struct KeyedRow {
    #[sqlx(flatten)]
    execution: ExecutionRow,
    idempotency_fingerprint: Option<Vec<u8>>,
}

/// The execution that the key made before.
async fn before(store: &SqlStore, tenant: TenantId, key: &str, fingerprint: &[u8; 32]) -> Result<Execution> {
    let call = BY_KEY.bind(tenant.0).bind(key.to_owned());
    let row = call.first::<KeyedRow>(&store.write).await?;
    // None: it was not the key; the tool is gone.
    let row = row.ok_or(StoreError::NotFound)?;
    if row.idempotency_fingerprint.as_deref() != Some(fingerprint) {
        return Err(StoreError::IdempotencyMismatch);
    }
    let execution = row.execution.read()?;
    if execution.status == ExecutionStatus::Running {
        watch(store, tenant, execution.id).await?;
    }
    Ok(execution)
}

pub(super) async fn watch(store: &SqlStore, tenant: TenantId, id: ExecutionId) -> Result<()> {
    WATCH.bind(id.0).bind(tenant.0).execute(&store.write).await?;
    Ok(())
}
