//! Schedules, as a part of the store.

use super::{
    KeyOwner, Result,
    rows::{Row, from_json, from_word, optional_time, time},
};
use domain::{
    ApiKeyId, ExecutionId, ScheduleId, TenantId, Time,
    page::{Page, PageRequest},
    schedule::{NewSchedule, Schedule},
};
use sqlx::FromRow;
use uuid::Uuid;

/// What is made or put in a schedule's place.
#[derive(Clone, Debug)]
pub struct ScheduleSpec<'a> {
    /// What it is.
    pub spec: &'a NewSchedule,
    /// Whom its runs run as.
    pub key_id: ApiKeyId,
    /// When it runs next; `None` while it is off.
    pub next_run_at: Option<Time>,
}

/// What became of a schedule's turn.
#[derive(Clone, Debug)]
pub struct Turn<'a> {
    /// The schedule.
    pub id: ScheduleId,
    /// The turn: the `next_run_at` that was claimed.
    pub from: Time,
    /// When it runs next.
    pub next_run_at: Option<Time>,
    /// The last run that was enqueued: for when it was due, and the run.
    pub last: Option<(Time, ExecutionId)>,
    /// Why it is switched off now.
    pub disabled_reason: Option<&'a str>,
}

/// Schedules. [`Store`](super::Store)'s rules hold here, too.
#[async_trait::async_trait]
pub trait ScheduleStore: Send + Sync + 'static {
    /// Makes a schedule. [`StoreError::Conflict`](super::StoreError::Conflict) when the tenant has one of that name.
    async fn create_schedule(&self, tenant: TenantId, new: &ScheduleSpec<'_>) -> Result<Schedule>;
    /// One schedule.
    async fn get_schedule(&self, tenant: TenantId, id: ScheduleId) -> Result<Schedule>;
    /// Schedules, newest first.
    async fn list_schedules(&self, tenant: TenantId, page: &PageRequest) -> Result<Page<Schedule>>;
    /// How many a tenant has.
    async fn count_schedules(&self, tenant: TenantId) -> Result<i64>;
    /// Puts another spec in a schedule's place.
    /// [`StoreError::VersionMismatch`](super::StoreError::VersionMismatch) when it is not at `version`.
    async fn update_schedule(
        &self,
        tenant: TenantId,
        id: ScheduleId,
        version: i64,
        new: &ScheduleSpec<'_>,
    ) -> Result<Schedule>;
    /// Deletes a schedule; its runs stay. `VersionMismatch` when it is not at `if_version`.
    async fn delete_schedule(&self, tenant: TenantId, id: ScheduleId, if_version: Option<i64>) -> Result<()>;
    /// Gives at most `limit` schedules that are due at `now`, the most overdue first, to nobody else until `until`:
    /// should the caller be lost, another takes them up then.
    async fn claim_due_schedules(&self, now: Time, until: Time, limit: u32) -> Result<Vec<Schedule>>;
    /// Ends a schedule's turn; says whether it still was that turn.
    async fn end_turn(&self, turn: &Turn<'_>) -> Result<bool>;
    /// Gives the schedules of a key that is rotated to its successor; says how many.
    async fn hand_over_schedules(&self, tenant: TenantId, from: ApiKeyId, to: ApiKeyId) -> Result<u64>;
    /// A tenant's key and its owner, revoked or not.
    async fn key_owner_by_id(&self, tenant: TenantId, id: ApiKeyId) -> Result<Option<KeyOwner>>;
}

#[derive(FromRow)]
pub(crate) struct ScheduleRow {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    tool: String,
    arguments: String,
    key_id: Uuid,
    cron: String,
    timezone: String,
    missed_runs: String,
    enabled: bool,
    priority: i32,
    disabled_reason: Option<String>,
    next_run_at: Option<i64>,
    last_run_at: Option<i64>,
    last_execution_id: Option<Uuid>,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

impl Row for ScheduleRow {
    type Entity = Schedule;
    fn read(self) -> Result<Schedule> {
        let spec = NewSchedule {
            name: self.name,
            tool: self.tool,
            arguments: from_json(&self.arguments)?,
            cron: self.cron,
            timezone: self.timezone,
            missed_runs: from_word(&self.missed_runs)?,
            enabled: self.enabled,
            priority: self.priority,
        };
        Ok(Schedule {
            id: ScheduleId(self.id),
            tenant_id: TenantId(self.tenant_id),
            key_id: ApiKeyId(self.key_id),
            spec,
            disabled_reason: self.disabled_reason,
            next_run_at: optional_time(self.next_run_at)?,
            last_run_at: optional_time(self.last_run_at)?,
            last_execution_id: self.last_execution_id.map(ExecutionId),
            version: self.version,
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
        })
    }
}
