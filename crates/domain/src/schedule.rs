//! Schedules: a tool that runs again and again, by the clock.

mod cron;

pub use cron::{Cron, Timetable};

use crate::{ApiKeyId, ExecutionId, Invalid, JsonObject, ScheduleId, TenantId, Time, validate};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The most runs that are made up for at once.
pub const MAX_MADE_UP: usize = 100;
/// For how long a run that is late still counts as on time, seconds.
const ON_TIME: i64 = 60;
/// How many due times are looked at one by one.
const MAX_LOOKED_AT: usize = 5_000;

/// What is done about runs whose time passed while nothing could start them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedRuns {
    /// Nothing: the next one runs at its time.
    Skip,
    /// One run stands for all of them.
    #[default]
    RunOnce,
    /// Each of them runs, but no more than the last [`MAX_MADE_UP`].
    RunAll,
}

impl MissedRuns {
    /// The word that stands in databases and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::RunOnce => "run_once",
            Self::RunAll => "run_all",
        }
    }
}

impl std::str::FromStr for MissedRuns {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let known = [Self::Skip, Self::RunOnce, Self::RunAll].into_iter();
        let mut known = known.filter(|policy| policy.as_str() == s);
        known
            .next()
            .ok_or_else(|| Invalid::new("missed_runs", "skip, run_once or run_all"))
    }
}

/// What a schedule is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSchedule {
    /// Unique in its tenant: 1 to 100 characters.
    pub name: String,
    /// The tool's name.
    pub tool: String,
    /// What it is called with, each time.
    pub arguments: JsonObject,
    /// When it runs: see [`Cron`].
    pub cron: String,
    /// Where the clock hangs, as the IANA calls it, e.g. `Europe/Berlin`.
    pub timezone: String,
    /// What is done about missed runs.
    pub missed_runs: MissedRuns,
    /// Whether it runs at all.
    pub enabled: bool,
    /// Its runs' priority.
    pub priority: i32,
}

impl NewSchedule {
    /// Holds it to the rules, and answers when it runs.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<Timetable, Invalid> {
        validate::text("name", &self.name, 100)?;
        Timetable::parse(&self.cron, &self.timezone)
    }

    /// The same with a patch applied.
    #[must_use]
    pub fn patched(self, patch: SchedulePatch) -> Self {
        Self {
            name: patch.name.unwrap_or(self.name),
            tool: self.tool,
            arguments: patch.arguments.unwrap_or(self.arguments),
            cron: patch.cron.unwrap_or(self.cron),
            timezone: patch.timezone.unwrap_or(self.timezone),
            missed_runs: patch.missed_runs.unwrap_or(self.missed_runs),
            enabled: patch.enabled.unwrap_or(self.enabled),
            priority: patch.priority.unwrap_or(self.priority),
        }
    }
}

/// What changes of a schedule; `None` stays. The tool stays always.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulePatch {
    /// Its name.
    pub name: Option<String>,
    /// The arguments.
    pub arguments: Option<JsonObject>,
    /// When it runs.
    pub cron: Option<String>,
    /// Where the clock hangs.
    pub timezone: Option<String>,
    /// What is done about missed runs.
    pub missed_runs: Option<MissedRuns>,
    /// Whether it runs at all.
    pub enabled: Option<bool>,
    /// Its runs' priority.
    pub priority: Option<i32>,
}

impl SchedulePatch {
    /// Whether it does no more than to switch the schedule off.
    pub fn only_disables(&self) -> bool {
        let off = Self {
            enabled: Some(false),
            ..Self::default()
        };
        *self == off
    }
}

/// A schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Identifier.
    pub id: ScheduleId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The key that its runs run as: the one that made it or last changed what it does.
    pub key_id: ApiKeyId,
    /// What it is.
    pub spec: NewSchedule,
    /// Why it was switched off, if nobody did.
    pub disabled_reason: Option<String>,
    /// When it runs next; `None` while it is off.
    pub next_run_at: Option<Time>,
    /// For when its last run was due.
    pub last_run_at: Option<Time>,
    /// Its last run.
    pub last_execution_id: Option<ExecutionId>,
    /// Grows with every change of what it is, not with its runs. It is the HTTP `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

/// What is due of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The times whose runs start now, in order.
    pub run: Vec<Time>,
    /// How many times passed without a run of their own.
    pub missed: u64,
}

impl Timetable {
    /// What is due at `now`, when `next` is the first time that nothing was done about yet.
    pub fn due(&self, next: Time, now: Time, policy: MissedRuns) -> Due {
        let mut last = VecDeque::new();
        let (mut passed, mut looked_at) = (0_u64, 0);
        let mut time = Some(next);
        while let Some(due) = time.filter(|time| *time <= now) {
            passed += 1;
            looked_at += 1;
            last.push_back(due);
            if last.len() > MAX_MADE_UP {
                last.pop_front();
            }
            let behind = now - chrono::TimeDelta::days(1);
            // What ran so often and so long ago is not worth the time: the last day holds enough of it.
            let far = looked_at == MAX_LOOKED_AT && due < behind;
            time = self.next(if far { behind } else { due });
        }
        let on_time = |due: &Time| (now - due).num_seconds() <= ON_TIME;
        let run: Vec<_> = match policy {
            MissedRuns::Skip => last.into_iter().filter(on_time).collect(),
            MissedRuns::RunOnce => last.pop_back().into_iter().collect(),
            MissedRuns::RunAll => last.into(),
        };
        Due {
            missed: passed - run.len() as u64,
            run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().expect("RFC 3339")
    }

    #[test]
    fn missed_runs_are_skipped_made_up_for_once_or_all() {
        let hourly = Timetable::parse("0 * * * *", "UTC").unwrap();
        let (next, now) = (time("2026-03-01T00:00:00Z"), time("2026-03-01T05:00:30Z"));
        let due = |policy| hourly.due(next, now, policy);
        let latest = time("2026-03-01T05:00:00Z");
        assert_eq!(
            due(MissedRuns::Skip),
            Due {
                run: vec![latest],
                missed: 5
            }
        );
        assert_eq!(
            due(MissedRuns::RunOnce),
            Due {
                run: vec![latest],
                missed: 5
            }
        );
        let all = due(MissedRuns::RunAll);
        assert_eq!((all.run.len(), all.run[0], all.missed), (6, next, 0));
        let late = hourly.due(next, time("2026-03-01T05:10:00Z"), MissedRuns::Skip);
        assert_eq!(
            late,
            Due {
                run: vec![],
                missed: 6
            }
        );
        assert_eq!(
            hourly.due(latest, now - chrono::TimeDelta::hours(1), MissedRuns::RunAll),
            Due::default()
        );
    }

    #[test]
    fn what_was_missed_for_years_is_bounded() {
        let often = Timetable::parse("* * * * *", "Europe/Berlin").unwrap();
        let due = often.due(
            time("2020-01-01T00:00:00Z"),
            time("2026-01-01T00:00:00Z"),
            MissedRuns::RunAll,
        );
        assert_eq!(
            (due.run.len(), due.run[99]),
            (MAX_MADE_UP, time("2026-01-01T00:00:00Z"))
        );
        assert!(due.missed >= 5_000);
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        assert!(
            SchedulePatch {
                enabled: Some(false),
                ..Default::default()
            }
            .only_disables()
        );
        let also = SchedulePatch {
            enabled: Some(false),
            priority: Some(1),
            ..Default::default()
        };
        assert!(!also.only_disables());
    }
}
