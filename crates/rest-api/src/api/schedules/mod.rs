//! Schedules: made, changed, and run when they are due (see [`run`]).

mod run;

use super::{Api, executions::check_priority, tools::require_catalogue};
use crate::{
    clock::now,
    error::{Error, Found, Result},
    store::{StoreError, schedules::ScheduleSpec},
};
use domain::{
    Principal, ScheduleId, Scope, Time,
    page::{Page, PageRequest},
    schedule::{NewSchedule, Schedule, SchedulePatch, Timetable},
};

/// How often a change is tried that meets another one, when the caller names no version.
const ATTEMPTS: u32 = 4;

impl Api {
    /// Makes a schedule, whose runs run as the caller. Needs `schedules:manage`, and all that the call itself needs.
    pub async fn create_schedule(&self, caller: &Principal, new: NewSchedule) -> Result<Schedule> {
        caller.require(Scope::SchedulesManage)?;
        let limit = self.0.limits.schedules_per_tenant;
        if self.0.store.count_schedules(caller.tenant_id).await? >= i64::from(limit) {
            return Err(Error::TooMany {
                what: "schedules",
                limit: limit.into(),
            });
        }
        let times = self.check_schedule(caller, &new).await?;
        let spec = ScheduleSpec {
            spec: &new,
            key_id: caller.key_id,
            next_run_at: first_run(&new, &times),
        };
        let made = self.0.store.create_schedule(caller.tenant_id, &spec).await;
        let schedule = made.or_missing("schedule")?;
        tracing::info!(schedule_id = %schedule.id, tool = new.tool, by = %caller.key_id, "schedule created");
        Ok(schedule)
    }

    /// One schedule of calls that the caller's rules allow. Needs `tools:read` or `tools:execute`, as the listing.
    pub async fn get_schedule(&self, caller: &Principal, id: ScheduleId) -> Result<Schedule> {
        require_catalogue(caller)?;
        self.visible_schedule(caller, id).await
    }

    /// Schedules of calls that the caller's rules allow, newest first. A page may hold fewer than were asked for, and yet not
    /// be the last one.
    pub async fn list_schedules(&self, caller: &Principal, page: &PageRequest) -> Result<Page<Schedule>> {
        require_catalogue(caller)?;
        let mut listed = self.0.store.list_schedules(caller.tenant_id, page).await?;
        listed
            .items
            .retain(|schedule| self.require_permitted(caller, schedule).is_ok());
        Ok(listed)
    }

    /// Changes a schedule. Its runs run as the caller from then on, who needs what making it needs: else a key could
    /// have its arguments run with another's rights. To switch it off, `schedules:manage` suffices.
    pub async fn update_schedule(
        &self,
        caller: &Principal,
        id: ScheduleId,
        patch: SchedulePatch,
        if_version: Option<i64>,
    ) -> Result<Schedule> {
        caller.require(Scope::SchedulesManage)?;
        for _ in 0..ATTEMPTS {
            let old = self.visible_schedule(caller, id).await?;
            match self.patch_schedule(caller, &old, &patch, if_version).await {
                Err(Error::VersionMismatch { .. }) if if_version.is_none() => {}
                done => return done,
            }
        }
        Err(Error::Unavailable { what: "the schedule" })
    }

    /// Deletes a schedule; its runs stay. Needs `schedules:manage`.
    pub async fn delete_schedule(
        &self,
        caller: &Principal,
        id: ScheduleId,
        if_version: Option<i64>,
    ) -> Result<()> {
        caller.require(Scope::SchedulesManage)?;
        self.visible_schedule(caller, id).await?;
        let deleted = self.0.store.delete_schedule(caller.tenant_id, id, if_version);
        deleted.await.or_missing("schedule")?;
        tracing::info!(schedule_id = %id, by = %caller.key_id, "schedule deleted");
        Ok(())
    }

    async fn visible_schedule(&self, caller: &Principal, id: ScheduleId) -> Result<Schedule> {
        let found = self.0.store.get_schedule(caller.tenant_id, id).await;
        let schedule = found.or_missing("schedule")?;
        self.require_permitted(caller, &schedule)?;
        Ok(schedule)
    }

    /// A schedule of calls that the caller's rules would refuse is not there for him.
    fn require_permitted(&self, caller: &Principal, schedule: &Schedule) -> Result<()> {
        let spec = &schedule.spec;
        let permit = self.0.schemas.permit(caller, &spec.tool, &spec.arguments);
        permit.map_err(|error| error.hidden("schedule"))
    }

    async fn patch_schedule(
        &self,
        caller: &Principal,
        old: &Schedule,
        patch: &SchedulePatch,
        if_version: Option<i64>,
    ) -> Result<Schedule> {
        if if_version.is_some_and(|version| version != old.version) {
            return Err(StoreError::VersionMismatch { current: old.version }.into());
        }
        let new = old.spec.clone().patched(patch.clone());
        let spec = if patch.only_disables() {
            ScheduleSpec {
                spec: &new,
                key_id: old.key_id,
                next_run_at: None,
            }
        } else {
            let times = self.check_schedule(caller, &new).await?;
            let same_times = (&new.cron, &new.timezone) == (&old.spec.cron, &old.spec.timezone);
            ScheduleSpec {
                spec: &new,
                key_id: caller.key_id,
                next_run_at: old
                    .next_run_at
                    .filter(|_| same_times && new.enabled)
                    .or_else(|| first_run(&new, &times)),
            }
        };
        let store = &self.0.store;
        let updated = store
            .update_schedule(caller.tenant_id, old.id, old.version, &spec)
            .await;
        let schedule = updated.or_missing("schedule")?;
        tracing::info!(schedule_id = %old.id, by = %caller.key_id, "schedule changed");
        Ok(schedule)
    }

    /// Holds a schedule to what a call of its tool by the caller would be held to, and to what nobody could confirm.
    async fn check_schedule(&self, caller: &Principal, new: &NewSchedule) -> Result<Timetable> {
        let times = new.check()?;
        check_priority(new.priority)?;
        let callable = self.callable(caller, &new.tool, &new.arguments).await?;
        if callable.tool.spec.destructive {
            caller.require(Scope::ToolsUnattended)?;
        }
        Ok(times)
    }
}

fn first_run(spec: &NewSchedule, times: &Timetable) -> Option<Time> {
    times.next(now()).filter(|_| spec.enabled)
}
