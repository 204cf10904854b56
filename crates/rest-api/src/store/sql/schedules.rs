//! Schedules.

use super::{SqlStore, Statement, check_version, commit, dialect::skip_locked, keys, statement::Call};
use crate::clock::now;
use crate::store::{
    KeyOwner, Result, StoreError,
    cursor::{Listing, NEWEST, page},
    rows::{json, micros, read_all, read_found},
    schedules::{ScheduleRow, ScheduleSpec, ScheduleStore, Turn},
};
use domain::{
    ApiKeyId, ScheduleId, TenantId, Time,
    page::{Page, PageRequest},
    schedule::Schedule,
};

macro_rules! columns {
    () => {
        "id, tenant_id, name, tool, arguments, key_id, cron, timezone, missed_runs, enabled, priority, disabled_reason, \
         next_run_at, last_run_at, last_execution_id, version, created_at, updated_at"
    };
}

const INSERT: Statement = Statement::new(
    "schedules.insert",
    concat!(
        "INSERT INTO schedules (id, tenant_id, created_at, updated_at, version, name, tool, arguments, key_id, cron,
         timezone, missed_runs, enabled, priority, next_run_at)
         VALUES ($1, $2, $3, $3, 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING ",
        columns!()
    ),
);
const GET: Statement = Statement::new(
    "schedules.get",
    concat!(
        "SELECT ",
        columns!(),
        " FROM schedules WHERE id = $1 AND tenant_id = $2"
    ),
);
const LIST: Statement = Statement::new(
    "schedules.list",
    concat!(
        "SELECT ",
        columns!(),
        " FROM schedules WHERE tenant_id = $1 AND (created_at, id) < ($2, $3)
         ORDER BY created_at DESC, id DESC LIMIT $4"
    ),
);
const COUNT: Statement = Statement::new(
    "schedules.count",
    "SELECT COUNT(*) FROM schedules WHERE tenant_id = $1",
);
/// The claim ends: whoever works on the turn as it was notices that it is no more.
const UPDATE: Statement = Statement::new(
    "schedules.update",
    concat!(
        "UPDATE schedules SET updated_at = $3, version = version + 1, name = $4, tool = $5, arguments = $6, key_id = $7,
         cron = $8, timezone = $9, missed_runs = $10, enabled = $11, priority = $12, next_run_at = $13,
         disabled_reason = NULL, claimed_until = NULL
         WHERE id = $1 AND tenant_id = $2 RETURNING ",
        columns!()
    ),
);
const DELETE: Statement = Statement::new(
    "schedules.delete",
    "DELETE FROM schedules WHERE id = $1 AND tenant_id = $2 RETURNING version + 1",
);
const CLAIM: Statement = Statement::new(
    "schedules.claim",
    concat!(
        "UPDATE schedules SET claimed_until = $2 WHERE id IN (
             SELECT id FROM schedules
             WHERE enabled AND next_run_at <= $1 AND (claimed_until IS NULL OR claimed_until <= $1)
             ORDER BY next_run_at LIMIT $3",
        skip_locked!(),
        ") RETURNING ",
        columns!()
    ),
);
const END_TURN: Statement = Statement::new(
    "schedules.end_turn",
    "UPDATE schedules SET next_run_at = $3, last_run_at = COALESCE($4, last_run_at),
     last_execution_id = COALESCE($5, last_execution_id), disabled_reason = $6,
     enabled = CASE WHEN $6 IS NULL THEN enabled ELSE FALSE END,
     version = CASE WHEN $6 IS NULL THEN version ELSE version + 1 END, claimed_until = NULL
     WHERE id = $1 AND next_run_at = $2 AND enabled",
);
const HAND_OVER: Statement = Statement::new(
    "schedules.hand_over",
    "UPDATE schedules SET key_id = $3 WHERE tenant_id = $1 AND key_id = $2",
);

/// What insert and update have in common, from `$4` on.
fn bind_spec(call: Call, new: &ScheduleSpec<'_>) -> Result<Call> {
    let spec = new.spec;
    let call = call
        .bind(spec.name.clone())
        .bind(spec.tool.clone())
        .bind(json(&spec.arguments)?)
        .bind(new.key_id.0);
    let call = call
        .bind(spec.cron.clone())
        .bind(spec.timezone.clone())
        .bind(spec.missed_runs.as_str());
    Ok(call
        .bind(spec.enabled)
        .bind(spec.priority)
        .bind(new.next_run_at.map(micros)))
}

#[async_trait::async_trait]
impl ScheduleStore for SqlStore {
    async fn create_schedule(&self, tenant: TenantId, new: &ScheduleSpec<'_>) -> Result<Schedule> {
        let call = INSERT
            .bind(ScheduleId::new().0)
            .bind(tenant.0)
            .bind(micros(now()));
        read_found(bind_spec(call, new)?.first::<ScheduleRow>(&self.write).await?)
    }

    async fn get_schedule(&self, tenant: TenantId, id: ScheduleId) -> Result<Schedule> {
        let call = GET.bind(id.0).bind(tenant.0);
        read_found(call.first::<ScheduleRow>(&self.read).await?)
    }

    async fn list_schedules(&self, tenant: TenantId, request: &PageRequest) -> Result<Page<Schedule>> {
        let (time, id) = Listing::Schedules.place(request.cursor.as_deref(), NEWEST)?;
        let call = LIST
            .bind(tenant.0)
            .bind(time)
            .bind(id)
            .bind(i64::from(request.limit) + 1);
        let schedules = read_all(call.all::<ScheduleRow>(&self.read).await?)?;
        Ok(page(schedules, request.limit, |last| {
            Listing::Schedules.after((micros(last.created_at), last.id.0))
        }))
    }

    async fn count_schedules(&self, tenant: TenantId) -> Result<i64> {
        let row = COUNT.bind(tenant.0).first::<(i64,)>(&self.read).await?;
        Ok(row.map_or(0, |(count,)| count))
    }

    async fn update_schedule(
        &self,
        tenant: TenantId,
        id: ScheduleId,
        version: i64,
        new: &ScheduleSpec<'_>,
    ) -> Result<Schedule> {
        self.retrying(|| async {
            let mut tx = self.begin().await?;
            let call = UPDATE.bind(id.0).bind(tenant.0).bind(micros(now()));
            let row = bind_spec(call, new)?.first::<ScheduleRow>(&mut *tx).await?;
            let schedule = read_found(row)?;
            check_version(schedule.version, Some(version))?;
            commit(tx).await?;
            Ok(schedule)
        })
        .await
    }

    async fn delete_schedule(&self, tenant: TenantId, id: ScheduleId, if_version: Option<i64>) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin().await?;
            let row = DELETE.bind(id.0).bind(tenant.0).first::<(i64,)>(&mut *tx).await?;
            let (next,) = row.ok_or(StoreError::NotFound)?;
            check_version(next, if_version)?;
            commit(tx).await
        })
        .await
    }

    async fn claim_due_schedules(&self, now: Time, until: Time, limit: u32) -> Result<Vec<Schedule>> {
        self.retrying(|| async {
            let call = CLAIM.bind(micros(now)).bind(micros(until)).bind(i64::from(limit));
            read_all(call.all::<ScheduleRow>(&self.write).await?)
        })
        .await
    }

    async fn end_turn(&self, turn: &Turn<'_>) -> Result<bool> {
        let call = END_TURN
            .bind(turn.id.0)
            .bind(micros(turn.from))
            .bind(turn.next_run_at.map(micros));
        let call = call
            .bind(turn.last.map(|(due, _)| micros(due)))
            .bind(turn.last.map(|(_, execution)| execution.0));
        let call = call.bind(turn.disabled_reason.map(str::to_owned));
        Ok(call.execute(&self.write).await? > 0)
    }

    async fn hand_over_schedules(&self, tenant: TenantId, from: ApiKeyId, to: ApiKeyId) -> Result<u64> {
        let call = HAND_OVER.bind(tenant.0).bind(from.0).bind(to.0);
        call.execute(&self.write).await
    }

    async fn key_owner_by_id(&self, tenant: TenantId, id: ApiKeyId) -> Result<Option<KeyOwner>> {
        keys::owner_by_id(self, tenant, id).await
    }
}
