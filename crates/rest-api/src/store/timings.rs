//! What the statements of this process take, as it waits for them: with the wait for a connection and the way to the
//! server and back, which the database's own statistics do not see. Slow ones are logged.
//!
//! Statements are constants of the program, so there are as many entries as it has statements, and one is found by
//! where its text lies.

use super::inspect::{Order, SlowStatement, StatementAsk, StatementCost};
use crate::clock::now;
use domain::Time;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How many slow statements are remembered, the last ones.
const REMEMBERED: usize = 50;

/// Those of this process. It has one database, and what runs a statement does not know which store it is for.
pub(crate) static TIMINGS: Timings = Timings::new();

/// The statements' timings, and the last slow ones.
pub(crate) struct Timings {
    statements: RwLock<BTreeMap<(usize, usize), Entry>>,
    slow: Mutex<VecDeque<SlowStatement>>,
    /// Nanoseconds.
    slow_from: AtomicU64,
    /// When the first statement was timed.
    since: Mutex<Option<Time>>,
}

struct Entry {
    operation: &'static str,
    text: &'static str,
    calls: AtomicU64,
    failed: AtomicU64,
    total_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

impl Timings {
    const fn new() -> Self {
        Self {
            statements: RwLock::new(BTreeMap::new()),
            slow: Mutex::new(VecDeque::new()),
            slow_from: AtomicU64::new(u64::MAX),
            since: Mutex::new(None),
        }
    }

    /// Says from which duration on a statement is remembered as slow.
    pub(crate) fn remember_from(&self, slow: Duration) {
        self.slow_from.store(nanos(slow), Relaxed);
        self.since.lock().get_or_insert_with(now);
    }

    /// Since when statements are timed.
    pub(crate) fn since(&self) -> Option<Time> {
        *self.since.lock()
    }

    /// From which duration on a statement is remembered as slow.
    pub(crate) fn slow_from(&self) -> Duration {
        Duration::from_nanos(self.slow_from.load(Relaxed))
    }

    /// Notes that a statement ran; called in the context of its request.
    pub(crate) fn note(&self, operation: &'static str, text: &'static str, started: Instant, failed: bool) {
        let nanos = nanos(started.elapsed());
        let key = (operation.as_ptr() as usize, text.as_ptr() as usize);
        let statements = self.statements.read();
        if let Some(entry) = statements.get(&key) {
            entry.add(nanos, failed);
        } else {
            drop(statements);
            let mut statements = self.statements.write();
            let entry = statements
                .entry(key)
                .or_insert_with(|| Entry::new(operation, text));
            entry.add(nanos, failed);
        }
        if nanos >= self.slow_from.load(Relaxed) {
            self.remember(operation, text, nanos, failed);
        }
    }

    #[cold]
    fn remember(&self, operation: &'static str, text: &'static str, nanos: u64, failed: bool) {
        let slow = SlowStatement {
            operation,
            query: one_line(text),
            duration_ms: millis(nanos),
            ended_at: now(),
            failed,
            trace_id: telemetry::context::current_trace_id(),
            sampled: telemetry::context::is_sampled(),
            request_id: telemetry::context::current_request_id().map(|id| id.as_str().to_owned()),
        };
        let (duration_ms, query) = (slow.duration_ms, &slow.query);
        tracing::warn!(operation, duration_ms, failed, query, "slow statement");
        let mut remembered = self.slow.lock();
        remembered.truncate(REMEMBERED - 1);
        remembered.push_front(slow);
    }

    /// The last slow statements, newest first.
    pub(crate) fn slow(&self) -> Vec<SlowStatement> {
        self.slow.lock().iter().cloned().collect()
    }

    /// The statements that are asked for, in the order asked for.
    pub(crate) fn list(&self, ask: &StatementAsk) -> Vec<StatementCost> {
        // One statement may lie in several places.
        let mut by_name: BTreeMap<(&str, &str), Cost> = BTreeMap::new();
        for entry in self.statements.read().values() {
            by_name
                .entry((entry.operation, entry.text))
                .or_default()
                .add(entry);
        }
        let mut costs: Vec<_> = by_name
            .into_iter()
            .map(|((operation, text), cost)| cost.shown(operation, text))
            .filter(|cost| cost.mean_exec_time > ask.min_mean_ms)
            .collect();
        costs.sort_by(|a, b| ask.order.of(b).total_cmp(&ask.order.of(a)));
        costs.truncate(usize::try_from(ask.limit).unwrap_or(usize::MAX));
        costs
    }
}

impl Entry {
    fn new(operation: &'static str, text: &'static str) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            operation,
            text,
            calls: zero(),
            failed: zero(),
            total_nanos: zero(),
            max_nanos: zero(),
        }
    }

    fn add(&self, nanos: u64, failed: bool) {
        self.calls.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(failed), Relaxed);
        self.total_nanos.fetch_add(nanos, Relaxed);
        self.max_nanos.fetch_max(nanos, Relaxed);
    }
}

#[derive(Default)]
struct Cost {
    calls: u64,
    failed: u64,
    total_nanos: u64,
    max_nanos: u64,
}

impl Cost {
    fn add(&mut self, entry: &Entry) {
        self.calls += entry.calls.load(Relaxed);
        self.failed += entry.failed.load(Relaxed);
        self.total_nanos += entry.total_nanos.load(Relaxed);
        self.max_nanos = self.max_nanos.max(entry.max_nanos.load(Relaxed));
    }

    fn shown(&self, operation: &'static str, text: &str) -> StatementCost {
        StatementCost {
            operation: Some(operation),
            query: one_line(text),
            calls: self.calls,
            mean_exec_time: millis(self.total_nanos) / (self.calls.max(1) as f64),
            max_exec_time: millis(self.max_nanos),
            total_exec_time: millis(self.total_nanos),
            rows: None,
            failed: Some(self.failed),
        }
    }
}

impl Order {
    fn of(self, cost: &StatementCost) -> f64 {
        match self {
            Self::Mean => cost.mean_exec_time,
            Self::Total => cost.total_exec_time,
            Self::Max => cost.max_exec_time,
            Self::Calls => cost.calls as f64,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// A statement as the program's text breaks it, in one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(min_mean_ms: f64, limit: u32, order: Order) -> StatementAsk {
        StatementAsk {
            min_mean_ms,
            limit,
            order,
        }
    }

    fn ago(millis: u64) -> Instant {
        Instant::now()
            .checked_sub(Duration::from_millis(millis))
            .expect("the machine runs for longer")
    }

    #[test]
    fn statements_are_counted_ordered_and_cut() {
        let timings = Timings::new();
        timings.note("a.get", "SELECT\n  a", ago(1000), false);
        timings.note("a.get", "SELECT\n  a", ago(3000), true);
        timings.note("b.get", "SELECT b", ago(2500), false);
        timings.note("c.get", "SELECT c", Instant::now(), false);

        let names = |ask| {
            let all = timings.list(&ask);
            all.into_iter().map(|cost| cost.query).collect::<Vec<_>>()
        };
        assert_eq!(names(ask(500.0, 20, Order::Mean)), ["SELECT b", "SELECT a"]);
        assert_eq!(names(ask(500.0, 20, Order::Total)), ["SELECT a", "SELECT b"]);
        assert_eq!(names(ask(0.0, 1, Order::Calls)), ["SELECT a"]);
        assert_eq!(names(ask(0.0, 3, Order::Max)).len(), 3);

        let a = &timings.list(&ask(500.0, 20, Order::Max))[0];
        assert_eq!((a.operation, a.calls, a.failed), (Some("a.get"), 2, Some(1)));
        assert!(
            a.max_exec_time >= 3000.0 && a.mean_exec_time >= 2000.0 && a.total_exec_time >= 4000.0,
            "{a:?}"
        );
    }

    #[test]
    fn the_last_slow_statements_are_remembered_and_no_others() {
        let timings = Timings::new();
        timings.note("early", "SELECT 0", ago(5000), false);
        timings.remember_from(Duration::from_secs(2));
        timings.note("fast", "SELECT 1", ago(100), false);
        for _ in 0..=REMEMBERED {
            timings.note("slow", "SELECT 2", ago(3000), false);
        }
        timings.note("last", "SELECT 3", ago(4000), true);
        let slow = timings.slow();
        assert_eq!(slow.len(), REMEMBERED);
        assert_eq!((slow[0].operation, slow[0].failed), ("last", true));
        assert!(
            slow[1..]
                .iter()
                .all(|one| one.operation == "slow" && one.duration_ms >= 3000.0)
        );
    }
}
