//! The live tasks as they are at one moment.

use super::{entry::Entry, long_polls, registry};
use crate::profiles::{Frame, Profile};
use std::{
    collections::BTreeMap,
    fmt,
    panic::Location,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// After how many of its periods a task counts as stuck.
const STUCK_PERIODS: u32 = 3;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It waits to be polled for the first time.
    New,
    /// It is being polled.
    Running,
    /// It waits for something, or for a thread: stable Tokio does not tell which.
    Idle,
}

impl State {
    /// Its name in profiles.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Running => "running",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A live task.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What it does, as its spawner says; all that do the same share it.
    pub name: &'static str,
    /// Where it was spawned.
    pub location: &'static Location<'static>,
    /// What it does right now.
    pub state: State,
    /// For how long it has been doing that.
    pub since: Duration,
    /// How long ago it was spawned.
    pub age: Duration,
    /// How often it was polled.
    pub polls: u64,
    /// How long its polls took, all together and with the one in progress.
    pub busy: Duration,
    /// How often it is polled at least; `None` where nobody said.
    pub every: Option<Duration>,
}

impl Task {
    fn new(entry: &Entry, now: Instant) -> Self {
        let reading = entry.read(now);
        let state = match (reading.running, reading.polls) {
            (true, _) => State::Running,
            (false, 0) => State::New,
            (false, _) => State::Idle,
        };
        Self {
            name: entry.name,
            location: entry.location,
            state,
            since: reading.since,
            age: reading.age,
            polls: reading.polls,
            busy: reading.busy,
            every: reading.every,
        }
    }

    /// Whether it was not polled for three times the period that it named.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.every.is_some_and(|every| is_stuck(self.since, every))
    }
}

pub(super) fn is_stuck(since: Duration, every: Duration) -> bool {
    since > every.saturating_mul(STUCK_PERIODS)
}

/// A request that a thread works on right now.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// `http` or `grpc`.
    pub kind: &'static str,
    /// How long the poll has been going on.
    pub polled_for: Duration,
}

/// What the runtime tells of itself.
#[derive(Clone, Copy, Debug)]
pub struct Runtime {
    /// Its worker threads.
    pub workers: usize,
    /// Its live tasks, whoever spawned them.
    pub alive_tasks: usize,
    /// Tasks that wait in the queue that all workers share.
    pub global_queue_depth: usize,
}

/// All tracked tasks, and what goes with them.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether tasks are tracked at all (`monitoring.tasks.enabled`).
    pub enabled: bool,
    /// The tasks, in no order.
    pub tasks: Vec<Task>,
    /// The requests that are being polled, the tasks of which may not be tracked.
    pub requests: Vec<Request>,
    /// The runtime that this was asked in; `None` outside of one.
    pub runtime: Option<Runtime>,
}

/// Takes a snapshot: some milliseconds for 10,000 tasks, none of which is kept waiting for it.
#[must_use]
pub fn snapshot() -> Snapshot {
    snapshot_at(Instant::now())
}

pub(super) fn snapshot_at(now: Instant) -> Snapshot {
    let requests = long_polls::in_progress().into_iter();
    let entries = registry::entries();
    Snapshot {
        enabled: super::enabled(),
        tasks: entries.iter().map(|entry| Task::new(entry, now)).collect(),
        requests: requests
            .map(|(kind, since)| Request {
                kind,
                polled_for: now.saturating_duration_since(since),
            })
            .collect(),
        runtime: Handle::try_current().ok().map(|runtime| {
            let metrics = runtime.metrics();
            Runtime {
                workers: metrics.num_workers(),
                alive_tasks: metrics.num_alive_tasks(),
                global_queue_depth: metrics.global_queue_depth(),
            }
        }),
    }
}

/// The tasks that were spawned at one place under one name.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they do.
    pub name: &'static str,
    /// Where they were spawned.
    pub location: &'static Location<'static>,
    /// The tasks, longest in their state first.
    pub tasks: Vec<Task>,
}

impl Snapshot {
    /// The tasks by name and place, largest group first.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<_, Vec<Task>> = BTreeMap::new();
        for task in &self.tasks {
            let place = (task.location.file(), task.location.line());
            groups.entry((task.name, place)).or_default().push(*task);
        }
        let mut groups: Vec<_> = groups
            .into_iter()
            .map(|((name, _), mut tasks)| {
                tasks.sort_by_key(|task| std::cmp::Reverse(task.since));
                let location = tasks[0].location;
                Group {
                    name,
                    location,
                    tasks,
                }
            })
            .collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.tasks.len()));
        groups
    }

    /// How many of the runtime's tasks libraries have spawned: those that it knows and the registry does not.
    #[must_use]
    pub fn spawned_by_libraries(&self) -> Option<usize> {
        let alive = self.runtime?.alive_tasks;
        Some(alive.saturating_sub(self.tasks.len()))
    }

    /// As a profile for pprof, gzipped: the stacks are state, name and place of spawning, from the root to the leaf; the
    /// values are the time spent being polled, the age, and the number of tasks, which is what pprof shows by itself.
    #[must_use]
    pub fn profile(&self) -> Vec<u8> {
        let mut samples: BTreeMap<_, (i64, i64, i64)> = BTreeMap::new();
        for task in &self.tasks {
            let place = (task.location.file(), task.location.line());
            let stuck = task.is_stuck();
            let sample = samples.entry((task.state, task.name, place, stuck)).or_default();
            sample.0 = sample.0.saturating_add(whole(task.busy.as_nanos()));
            sample.1 = sample.1.saturating_add(whole(task.age.as_secs().into()));
            sample.2 += 1;
        }
        let types = [("busy", "nanoseconds"), ("age", "seconds"), ("tasks", "count")];
        let mut profile = Profile::new(&types);
        for ((state, name, (file, line), stuck), (busy, age, count)) in samples {
            let labels = [("state", state.as_str()), ("task", name), ("stuck", "true")];
            let labels = if stuck { &labels[..] } else { &labels[..2] };
            profile.add(&stack(state, name, file, line), &[busy, age, count], labels);
        }
        if let Some(count) = self.spawned_by_libraries().filter(|count| *count > 0) {
            let stack = [frame("(spawned by libraries)", "", 0)];
            profile.add(&stack, &[0, 0, whole(count as u128)], &[]);
        }
        profile.encode()
    }
}

fn stack(state: State, name: &str, file: &str, line: u32) -> [Frame; 3] {
    [
        frame(&format!("{file}:{line}"), file, line),
        frame(name, file, line),
        frame(state.as_str(), "", 0),
    ]
}

fn frame(function: &str, file: &str, line: u32) -> Frame {
    Frame {
        function: function.to_owned(),
        file: file.to_owned(),
        line: line.into(),
    }
}

fn whole(value: u128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
