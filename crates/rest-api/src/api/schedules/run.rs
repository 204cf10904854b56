//! Runs what schedules are due for.
//!
//! A due schedule is claimed for a while, its runs are enqueued, and then its turn ends. Should the replica be lost in
//! between, another claims it when the while is over and enqueues the same runs under the same idempotency keys, so
//! that each due time has one run.

use crate::{
    api::{Api, Ask},
    clock::now,
    error::{Error, Result},
    metrics,
    store::schedules::Turn,
};
use domain::{
    ExecutionId, Principal, Time,
    schedule::{Due, Schedule, Timetable},
    tenant::TenantStatus,
    tool::built_in::is_built_in,
};
use std::time::Duration;

/// For how long a due schedule is claimed.
const CLAIM: Duration = Duration::from_secs(30);

/// What a schedule's turn came to.
enum Done {
    /// Its runs are enqueued; the last one, if there was one.
    Enqueued(Option<(Time, ExecutionId)>),
    /// It cannot run any more.
    Disabled(&'static str),
}

impl Api {
    /// Enqueues what at most `limit` schedules are due for; says how many schedules had a turn.
    pub async fn run_schedules(&self, limit: u32) -> Result<u64> {
        let now = now();
        let store = &self.0.store;
        let due = store.claim_due_schedules(now, now + CLAIM, limit).await?;
        for schedule in &due {
            if let Err(error) = self.take_turn(schedule, now).await {
                // The claim runs out, and it is tried again.
                tracing::warn!(schedule_id = %schedule.id, error = %error, "schedule could not run now");
            }
        }
        Ok(due.len() as u64)
    }

    async fn take_turn(&self, schedule: &Schedule, now: Time) -> Result<()> {
        let Some(from) = schedule.next_run_at else {
            return Ok(());
        };
        let spec = &schedule.spec;
        // Time zones change with the releases of their database, and so may what can be read.
        let Ok(times) = Timetable::parse(&spec.cron, &spec.timezone) else {
            return self.disable(schedule, from, "timetable_invalid").await;
        };
        let due = times.due(from, now, spec.missed_runs);
        let last = match self.enqueue_due(schedule, &due).await? {
            Done::Enqueued(last) => last,
            Done::Disabled(reason) => return self.disable(schedule, from, reason).await,
        };
        let turn = Turn {
            id: schedule.id,
            from,
            next_run_at: times.next(now),
            last,
            disabled_reason: None,
        };
        if self.0.store.end_turn(&turn).await? && due.missed > 0 {
            metrics::SCHEDULE_RUNS.add(due.missed, ["missed"]);
            tracing::warn!(schedule_id = %schedule.id, missed = due.missed, "schedule missed runs");
        }
        Ok(())
    }

    async fn enqueue_due(&self, schedule: &Schedule, due: &Due) -> Result<Done> {
        let store = &self.0.store;
        let owner = store.key_owner_by_id(schedule.tenant_id, schedule.key_id).await?;
        let Some(owner) = owner.filter(|owner| owner.key.is_active(now())) else {
            return Ok(Done::Disabled("key_revoked"));
        };
        if owner.tenant_status != TenantStatus::Active {
            metrics::SCHEDULE_RUNS.add(due.run.len() as u64, ["refused"]);
            return Ok(Done::Enqueued(None));
        }
        let mut last = None;
        for time in &due.run {
            match self.enqueue_run(&owner.principal, schedule, *time).await {
                Ok(id) => last = Some((*time, id)),
                Err(error) => match hopeless(&schedule.spec.tool, &error) {
                    Some(reason) => return Ok(Done::Disabled(reason)),
                    None => return Err(error),
                },
            }
        }
        Ok(Done::Enqueued(last))
    }

    async fn enqueue_run(&self, caller: &Principal, schedule: &Schedule, due: Time) -> Result<ExecutionId> {
        let spec = &schedule.spec;
        let ask = Ask {
            tool: spec.tool.clone(),
            arguments: spec.arguments.clone(),
            idempotency_key: Some(format!("schedule:{}:{}", schedule.id, due.timestamp())),
            priority: spec.priority,
            schedule_id: Some(schedule.id),
            ..Ask::default()
        };
        let made = self.enqueue_once(caller, ask).await?;
        if let crate::store::Made::New(execution) = &made {
            metrics::SCHEDULE_RUNS.inc(["enqueued"]);
            tracing::info!(schedule_id = %schedule.id, execution_id = %execution.id, "scheduled run enqueued");
        }
        Ok(made.into_inner().id)
    }

    async fn disable(&self, schedule: &Schedule, from: Time, reason: &'static str) -> Result<()> {
        let turn = Turn {
            id: schedule.id,
            from,
            next_run_at: None,
            last: None,
            disabled_reason: Some(reason),
        };
        if self.0.store.end_turn(&turn).await? {
            metrics::SCHEDULE_RUNS.inc(["refused"]);
            metrics::SCHEDULES_DISABLED.inc([reason]);
            tracing::warn!(schedule_id = %schedule.id, tool = schedule.spec.tool, reason, "schedule switched off");
        }
        Ok(())
    }
}

/// Why trying again to run this tool would not help, if so.
fn hopeless(tool: &str, error: &Error) -> Option<&'static str> {
    match error {
        // One of the product's own is back as soon as a worker runs it: until then the turn is tried again.
        Error::NotFound("tool") if is_built_in(tool) => None,
        Error::NotFound(_) => Some("tool_removed"),
        Error::Arguments(_) | Error::Invalid(_) | Error::TooLarge { .. } => Some("arguments_invalid"),
        Error::MissingScope(_) | Error::ArgumentsNotAllowed(_) => Some("not_allowed"),
        // Somebody took the run's key for a call of his own: there will be no run of this time.
        Error::IdempotencyMismatch => Some("idempotency_key_taken"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_of_the_product_that_no_worker_runs_now_switches_nothing_off() {
        let gone = Error::NotFound("tool");
        assert_eq!(hopeless("query_logs", &gone), None);
        assert_eq!(hopeless("weather", &gone), Some("tool_removed"));
        assert_eq!(
            hopeless("query_logs", &Error::Arguments("no".into())),
            Some("arguments_invalid")
        );
    }
}
