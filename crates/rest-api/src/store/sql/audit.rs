//! The audit log.

use super::{
    SqlStore, Statement, Twice,
    dialect::{audit_records, skip_locked},
};
use crate::store::{
    Result,
    audit::{AuditFilter, AuditRow, AuditStore, NewRow, cursor, owner},
    cursor::{Listing, page},
    rows::{json, micros, read_all},
};
use domain::{
    TenantId, Time,
    audit::{Outcome, Record, first_id},
    page::{Page, PageRequest},
};
use uuid::Uuid;

macro_rules! columns {
    () => {
        "id, tenant_id, at, key_id, key_name, door, action, arguments_hash, arguments, outcome, code, duration_us, \
         trace_id, execution_id, count, address"
    };
}

const INSERT: Statement = Statement::new(
    "audit_records.insert",
    concat!(
        "INSERT INTO audit_records (",
        columns!(),
        ") SELECT ",
        columns!(),
        " FROM ",
        audit_records!("$1"),
        " AS given WHERE TRUE ON CONFLICT (id) DO NOTHING"
    ),
);

/// The listing, with the condition that names an index of its own.
macro_rules! list {
    ($condition:literal) => {
        Statement::new(
            "audit_records.list",
            concat!(
                "SELECT ",
                columns!(),
                " FROM audit_records
                 WHERE tenant_id = $1 AND id < $2 AND id >= $3 AND at >= $4 AND at < $5 AND ",
                $condition,
                " AND ($6 IS NULL OR key_id = $6) AND ($7 IS NULL OR action = $7)
                 AND ($8 IS NULL OR outcome = $8) AND ($9 IS NULL OR trace_id = $9)
                 ORDER BY id DESC LIMIT $10"
            ),
        )
    };
}
const LIST: Statement = list!("TRUE");
const LIST_BY_KEY: Statement = list!("key_id = $6");
const LIST_BY_ACTION: Statement = list!("action = $7");
const LIST_BY_OUTCOME: Statement = list!("outcome = $8 AND outcome <> 'ok'");
const LIST_BY_TRACE: Statement = list!("trace_id = $9 AND trace_id <> ''");

const PURGE: Statement = Statement::new(
    "audit_records.purge",
    concat!(
        "WITH old AS MATERIALIZED (SELECT id FROM audit_records WHERE id < $1 ORDER BY id LIMIT $2",
        skip_locked!(),
        ")
         DELETE FROM audit_records WHERE id IN (SELECT id FROM old)"
    ),
);

/// The statement whose index leaves the least to look through.
fn listing(filter: &AuditFilter) -> Statement {
    match filter {
        AuditFilter {
            trace_id: Some(_), ..
        } => LIST_BY_TRACE,
        AuditFilter { key_id: Some(_), .. } => LIST_BY_KEY,
        AuditFilter { action: Some(_), .. } => LIST_BY_ACTION,
        AuditFilter {
            outcome: Some(outcome),
            ..
        } if *outcome != Outcome::Ok => LIST_BY_OUTCOME,
        _ => LIST,
    }
}

/// Identifiers count milliseconds; the exact time is compared as well.
fn after_millisecond(time: Time) -> Uuid {
    first_id(time + chrono::TimeDelta::milliseconds(1))
}

#[async_trait::async_trait]
impl AuditStore for SqlStore {
    async fn keep_audit(&self, records: &[Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let rows = json(&records.iter().map(NewRow::from).collect::<Vec<_>>())?;
        self.again(Twice::Safe, || async {
            INSERT.bind(rows.clone()).execute(&self.write).await.map(drop)
        })
        .await
    }

    async fn list_audit(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        request: &PageRequest,
    ) -> Result<Page<Record>> {
        let end = filter.until.map_or(Uuid::max(), after_millisecond);
        let (_, before) = Listing::Audit.place(request.cursor.as_deref(), (0, Uuid::max()))?;
        let call = listing(filter)
            .bind(owner(tenant))
            .bind(before.min(end))
            .bind(filter.since.map_or(Uuid::nil(), first_id))
            .bind(filter.since.map_or(i64::MIN, micros))
            .bind(filter.until.map_or(i64::MAX, micros));
        let call = call
            .bind(filter.key_id.map(|id| id.0))
            .bind(filter.action.clone())
            .bind(filter.outcome.map(Outcome::as_str))
            .bind(filter.trace_id.clone());
        let rows = call
            .bind(i64::from(request.limit) + 1)
            .all::<AuditRow>(&self.read)
            .await?;
        Ok(page(read_all(rows)?, request.limit, cursor))
    }

    async fn purge_audit(&self, before: Time, limit: u32) -> Result<u64> {
        self.retrying(|| async {
            let call = PURGE.bind(first_id(before)).bind(i64::from(limit));
            call.execute(&self.write).await
        })
        .await
    }
}
