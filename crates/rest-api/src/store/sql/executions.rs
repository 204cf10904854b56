//! Executions as they are shown and purged; the queue's side of them is in [`super::queue`].

use super::{SqlStore, Statement, dialect::skip_locked};
use crate::store::{
    ExecutionFilter, Result,
    cursor::{Listing, NEWEST, page},
    rows::{ExecutionRow, micros, read_all, read_found},
};
use domain::{
    ExecutionId, TenantId, Time,
    execution::{Execution, ExecutionStatus},
    page::{Page, PageRequest},
};

/// What [`ExecutionRow`] is read from. `tool_id` is that of a registered tool that still exists.
macro_rules! columns {
    () => {
        "id, tenant_id, (SELECT t.id FROM tools t WHERE t.id = executions.tool_id) AS tool_id, \
         tool_id AS asked_tool_id, tool, key_id, status, \
         arguments, result, error_code, error_message, attempts, priority, run_at, deadline, cancel_requested, progress, \
         schedule_id, digest, approved_by, trace_id, created_at, started_at, finished_at"
    };
}
pub(super) use columns;

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
    ($condition:literal) => {
        Statement::new(
            "executions.list",
            concat!(
                "SELECT ",
                columns!(),
                " FROM executions
                 WHERE tenant_id = $1 AND (created_at, id) < ($2, $3) AND created_at >= $4 AND created_at < $8
                 AND ",
                $condition,
                " AND ($6 IS NULL OR status = $6) AND ($7 IS NULL OR schedule_id = $7)
                 ORDER BY created_at DESC, id DESC LIMIT $9"
            ),
        )
    };
}
const LIST: Statement = list!("($5 IS NULL OR tool = $5)");
const LIST_BY_TOOL: Statement = list!("tool = $5");
const LIST_BY_SCHEDULE: Statement = list!("($5 IS NULL OR tool = $5) AND schedule_id = $7");

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
    let statement = match (filter.schedule_id, &filter.tool) {
        (Some(_), _) => LIST_BY_SCHEDULE,
        (None, Some(_)) => LIST_BY_TOOL,
        (None, None) => LIST,
    };
    let call = statement
        .bind(tenant.0)
        .bind(time)
        .bind(id)
        .bind(filter.created_since.map_or(i64::MIN, micros));
    let call = call
        .bind(filter.tool.clone())
        .bind(filter.status.map(ExecutionStatus::as_str));
    let call = call
        .bind(filter.schedule_id.map(|id| id.0))
        .bind(filter.created_until.map_or(i64::MAX, micros));
    let rows = call
        .bind(i64::from(request.limit) + 1)
        .all::<ExecutionRow>(&store.read)
        .await?;
    let place = |last: &Execution| Listing::Executions.after((micros(last.created_at), last.id.0));
    Ok(page(read_all(rows)?, request.limit, place))
}

pub(super) async fn purge(store: &SqlStore, before: Time, limit: u32) -> Result<u64> {
    PURGE
        .bind(micros(before))
        .bind(i64::from(limit))
        .execute(&store.write)
        .await
}
