//! Executions. Whoever ends one shows its fencing token: one that was taken over has another.

use super::{SqlStore, Statement, dialect::skip_locked};
use crate::clock::now;
use crate::store::{
    ExecutionFilter, NewExecution, Result, StoreError,
    cursor::{Listing, NEWEST, page},
    rows::{ExecutionRow, Row as _, json, micros, read_all, read_found},
};
use domain::{
    ExecutionId, TenantId, Time,
    execution::{Execution, ExecutionStatus, Outcome},
    page::{Page, PageRequest},
};

/// The token of an execution's first holder.
const FIRST_TOKEN: i64 = 1;

/// `tool_id` is that of a tool that still exists.
macro_rules! columns {
    () => {
        "id, tenant_id, (SELECT t.id FROM tools t WHERE t.id = executions.tool_id) AS tool_id, tool, key_id, status, \
         arguments, result, error_code, error_message, attempts, trace_id, created_at, started_at, finished_at"
    };
}

const BEGIN: Statement = Statement::new(
    "executions.insert",
    "INSERT INTO executions (id, tenant_id, tool_id, tool, key_id, status, attempts, lease_owner, lease_expires_at,
     fencing_token, idempotent, arguments, trace_id, created_at, started_at, updated_at)
     SELECT $1, $2, $3, $4, $5, 'running', 1, $6, $7, $8, $9, $10, $11, $12, $12, $12
     FROM tools WHERE id = $3 AND tenant_id = $2",
);
const RENEW: Statement = Statement::new(
    "executions.renew",
    "UPDATE executions SET lease_expires_at = $3, updated_at = $4
     WHERE id = $1 AND fencing_token = $2 AND status = 'running'",
);
const FINISH: Statement = Statement::new(
    "executions.finish",
    concat!(
        "UPDATE executions SET status = $3, result = $4, error_code = $5, error_message = $6, lease_owner = NULL,
         lease_expires_at = NULL, finished_at = $7, updated_at = $7
         WHERE id = $1 AND fencing_token = $2 AND status = 'running' RETURNING ", columns!()
    ),
);
const GET: Statement = Statement::new(
    "executions.get",
    concat!(
        "SELECT ",
        columns!(),
        " FROM executions WHERE id = $1 AND tenant_id = $2"
    ),
);

/// The listing, with the condition that names an index of its own.
macro_rules! list {
    ($tool:literal) => {
        Statement::new(
            "executions.list",
            concat!(
                "SELECT ",
                columns!(),
                " FROM executions
                 WHERE tenant_id = $1 AND (created_at, id) < ($2, $3) AND created_at >= $4
                 AND ",
                $tool,
                " AND ($6 IS NULL OR status = $6)
                 ORDER BY created_at DESC, id DESC LIMIT $7"
            ),
        )
    };
}
const LIST: Statement = list!("($5 IS NULL OR tool = $5)");
const LIST_BY_TOOL: Statement = list!("tool = $5");

const REAP: Statement = Statement::new(
    "executions.reap",
    concat!(
        "WITH lost AS MATERIALIZED (SELECT id FROM executions WHERE status = 'running' AND lease_expires_at < $1
         ORDER BY lease_expires_at LIMIT $2", skip_locked!(), ")
         UPDATE executions SET status = CASE WHEN idempotent THEN 'failed' ELSE 'outcome_unknown' END,
         error_code = 'worker_lost',
         error_message = CASE WHEN idempotent THEN 'its worker was lost; it may be run again'
             ELSE 'its worker was lost; it may or may not have had its effect' END,
         lease_owner = NULL, lease_expires_at = NULL, fencing_token = fencing_token + 1, finished_at = $1,
         updated_at = $1
         WHERE id IN (SELECT id FROM lost) AND status = 'running' RETURNING tool, status"
    ),
);
const PURGE: Statement = Statement::new(
    "executions.purge",
    concat!(
        "WITH old AS MATERIALIZED (SELECT id FROM executions WHERE finished_at < $1
         ORDER BY finished_at LIMIT $2",
        skip_locked!(),
        ")
         DELETE FROM executions WHERE id IN (SELECT id FROM old)"
    ),
);

pub(super) async fn begin(store: &SqlStore, tenant: TenantId, new: &NewExecution) -> Result<i64> {
    let call = BEGIN
        .bind(new.id.0)
        .bind(tenant.0)
        .bind(new.tool_id.0)
        .bind(new.tool.clone())
        .bind(new.key_id.0);
    let call = call
        .bind(new.lease_owner.clone())
        .bind(micros(new.lease_expires_at))
        .bind(FIRST_TOKEN);
    let call = call
        .bind(new.idempotent)
        .bind(json(&new.arguments)?)
        .bind(new.trace_id.clone())
        .bind(micros(now()));
    if call.execute(&store.write).await? == 0 {
        Err(StoreError::NotFound)
    } else {
        Ok(FIRST_TOKEN)
    }
}

pub(super) async fn renew(store: &SqlStore, id: ExecutionId, token: i64, expires_at: Time) -> Result<()> {
    let call = RENEW
        .bind(id.0)
        .bind(token)
        .bind(micros(expires_at))
        .bind(micros(now()));
    if call.execute(&store.write).await? == 0 {
        Err(StoreError::LeaseLost)
    } else {
        Ok(())
    }
}

pub(super) async fn finish(
    store: &SqlStore,
    id: ExecutionId,
    token: i64,
    outcome: &Outcome,
) -> Result<Execution> {
    let error = outcome.error.as_ref();
    let call = FINISH.bind(id.0).bind(token).bind(outcome.status.as_str());
    let call = call.bind(outcome.result.as_ref().map(json).transpose()?);
    let call = call
        .bind(error.map(|e| e.code.clone()))
        .bind(error.map(|e| e.message.replace('\0', "")));
    let row = call
        .bind(micros(now()))
        .first::<ExecutionRow>(&store.write)
        .await?;
    row.ok_or(StoreError::LeaseLost)?.read()
}

pub(super) async fn get(store: &SqlStore, tenant: TenantId, id: ExecutionId) -> Result<Execution> {
    read_found(
        GET.bind(id.0)
            .bind(tenant.0)
            .first::<ExecutionRow>(&store.read)
            .await?,
    )
}

pub(super) async fn list(
    store: &SqlStore,
    tenant: TenantId,
    filter: &ExecutionFilter,
    request: &PageRequest,
) -> Result<Page<Execution>> {
    let (time, id) = Listing::Executions.place(request.cursor.as_deref(), NEWEST)?;
    let statement = if filter.tool.is_some() { LIST_BY_TOOL } else { LIST };
    let call = statement
        .bind(tenant.0)
        .bind(time)
        .bind(id)
        .bind(filter.created_since.map_or(i64::MIN, micros));
    let call = call
        .bind(filter.tool.clone())
        .bind(filter.status.map(ExecutionStatus::as_str));
    let rows = call
        .bind(i64::from(request.limit) + 1)
        .all::<ExecutionRow>(&store.read)
        .await?;
    let place = |last: &Execution| Listing::Executions.after((micros(last.created_at), last.id.0));
    Ok(page(read_all(rows)?, request.limit, place))
}

pub(super) async fn reap(store: &SqlStore, now: Time, limit: u32) -> Result<Vec<(String, ExecutionStatus)>> {
    let call = REAP.bind(micros(now)).bind(i64::from(limit));
    let rows = call.all::<(String, String)>(&store.write).await?;
    let read = |(tool, status): (String, String)| Ok((tool, status.parse().map_err(StoreError::decode)?));
    rows.into_iter().map(read).collect()
}

pub(super) async fn purge(store: &SqlStore, before: Time, limit: u32) -> Result<u64> {
    PURGE
        .bind(micros(before))
        .bind(i64::from(limit))
        .execute(&store.write)
        .await
}
