//! The audit log, as a part of the store.

use super::{
    Result,
    rows::{Row, from_word, micros, time},
};
use domain::{
    ApiKeyId, ExecutionId, TenantId, Time,
    audit::{Outcome, Record},
    page::{Page, PageRequest},
};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

/// Which records a listing shows.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only this key's.
    pub key_id: Option<ApiKeyId>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// Only of this trace.
    pub trace_id: Option<String>,
    /// Only those that began at or after this time.
    pub since: Option<Time>,
    /// Only those that began before this time.
    pub until: Option<Time>,
}

/// The audit log. [`Store`](super::Store)'s rules hold here, too.
#[async_trait::async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// Keeps records; one that is there already is left as it is.
    async fn keep_audit(&self, records: &[Record]) -> Result<()>;
    /// A tenant's records, newest first; `None`: those of which nobody knows whose they are.
    async fn list_audit(
        &self,
        tenant: Option<TenantId>,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<Record>>;
    /// Deletes at most `limit` records of before that time.
    async fn purge_audit(&self, before: Time, limit: u32) -> Result<u64>;
}

/// Where a page ends that holds `last`: both listings, a tenant's and nobody's, go on from there.
pub fn cursor(last: &Record) -> String {
    super::cursor::Listing::Audit.after((0, last.id))
}

/// Whose records are nobody's.
pub(crate) fn owner(tenant: Option<TenantId>) -> Uuid {
    tenant.map_or(Uuid::nil(), |tenant| tenant.0)
}

/// A record as it is written, in JSON.
#[derive(Serialize)]
pub(crate) struct NewRow<'a> {
    id: String,
    tenant_id: String,
    at: i64,
    key_id: Option<String>,
    key_name: &'a str,
    door: &'static str,
    action: &'a str,
    arguments_hash: &'a str,
    arguments: Option<&'a str>,
    outcome: &'static str,
    code: &'a str,
    duration_us: i64,
    trace_id: &'a str,
    execution_id: Option<String>,
    count: i64,
    address: &'a str,
}

impl<'a> From<&'a Record> for NewRow<'a> {
    fn from(r: &'a Record) -> Self {
        let hex = |id: Uuid| id.simple().to_string();
        Self {
            id: hex(r.id),
            tenant_id: hex(owner(r.tenant_id)),
            at: micros(r.at),
            key_id: r.key_id.map(|id| hex(id.0)),
            key_name: &r.key_name,
            door: r.door.as_str(),
            action: &r.action,
            arguments_hash: &r.arguments_hash,
            arguments: r.arguments.as_deref(),
            outcome: r.outcome.as_str(),
            code: &r.code,
            duration_us: r.duration_us,
            trace_id: &r.trace_id,
            execution_id: r.execution_id.map(|id| hex(id.0)),
            count: r.count,
            address: &r.address,
        }
    }
}

#[derive(FromRow)]
pub(crate) struct AuditRow {
    id: Uuid,
    tenant_id: Uuid,
    at: i64,
    key_id: Option<Uuid>,
    key_name: String,
    door: String,
    action: String,
    arguments_hash: String,
    arguments: Option<String>,
    outcome: String,
    code: String,
    duration_us: i64,
    trace_id: String,
    execution_id: Option<Uuid>,
    count: i64,
    address: String,
}

impl Row for AuditRow {
    type Entity = Record;
    fn read(self) -> Result<Record> {
        Ok(Record {
            id: self.id,
            at: time(self.at)?,
            tenant_id: (!self.tenant_id.is_nil()).then_some(TenantId(self.tenant_id)),
            key_id: self.key_id.map(ApiKeyId),
            key_name: self.key_name,
            door: from_word(&self.door)?,
            action: self.action,
            arguments_hash: self.arguments_hash,
            arguments: self.arguments,
            outcome: from_word(&self.outcome)?,
            code: self.code,
            duration_us: self.duration_us,
            trace_id: self.trace_id,
            execution_id: self.execution_id.map(ExecutionId),
            count: self.count,
            address: self.address,
        })
    }
}
