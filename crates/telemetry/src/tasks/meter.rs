//! Tasks as metrics.

use super::{long_polls, registry, snapshot};
use crate::metrics::{Registry, Samples};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often the runtime is asked to wake a task in time.
pub(crate) const EVERY: Duration = Duration::from_millis(250);

crate::metrics! {
    /// Polls of a task, or of the work on a request (`http`, `grpc`), that took `monitoring.tasks.long_poll_ms` or
    /// longer: so long, everything else on that thread waited.
    pub(crate) static LONG_POLLS: Counter["task"] = "runtime_long_polls_total";
    /// The longest poll in progress when this was scraped; 0 when there is none.
    pub(crate) static LONGEST_POLL: Gauge[] = "runtime_longest_poll_seconds";
    /// How late a task is polled that waits for a timer, tried four times a second.
    pub(crate) static SCHEDULING_DELAY: Histogram[] = "runtime_scheduling_delay_seconds",
        buckets: &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    /// Live tasks that the service has spawned, by what they do.
    pub(crate) static TASKS: Gauge["task"] = "runtime_tasks";
    /// Tasks that do something again and again, and were not polled for three times the period that they named.
    pub(crate) static TASKS_STUCK: Gauge["task"] = "runtime_tasks_stuck";
}

/// Has tasks counted at each scrape.
pub(crate) fn observe(registry: &Registry) {
    // A name that has been there stays, with 0: a line that ends could also be a scrape that failed.
    let seen: Mutex<BTreeMap<&'static str, Counts>> = Mutex::default();
    registry.on_scrape_samples(move |samples| sample(samples, &mut seen.lock()));
    // From the first scrape on: a counter that first appears with a value hides that one from `rate()`.
    registry.on_scrape(|| {
        for name in ["http", "grpc"] {
            LONG_POLLS.add(0, [name]);
        }
        let mut names: Vec<_> = registry::entries().iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        names.iter().for_each(|name| LONG_POLLS.add(0, [name]));
    });
}

#[derive(Default)]
struct Counts {
    live: u32,
    /// `None` where no task of that name has a period.
    stuck: Option<u32>,
}

fn sample(samples: &mut Samples<'_>, seen: &mut BTreeMap<&'static str, Counts>) {
    if !super::enabled() {
        return;
    }
    for counts in seen.values_mut() {
        counts.live = 0;
        counts.stuck = counts.stuck.map(|_| 0);
    }
    let now = Instant::now();
    let requests = long_polls::in_progress();
    let mut longest = requests
        .iter()
        .map(|(_, since)| now.saturating_duration_since(*since))
        .max()
        .unwrap_or_default();
    for entry in registry::entries() {
        let reading = entry.read(now);
        let counts = seen.entry(entry.name).or_default();
        counts.live += 1;
        if let Some(every) = reading.every {
            let stuck = snapshot::is_stuck(reading.since, every);
            *counts.stuck.get_or_insert_default() += u32::from(stuck);
        }
        if reading.running {
            longest = longest.max(reading.since);
        }
    }
    samples.push(LONGEST_POLL.declaration(), &[], longest.as_secs_f64());
    for (name, counts) in seen {
        samples.push(TASKS.declaration(), &[name], f64::from(counts.live));
        if let Some(stuck) = counts.stuck {
            samples.push(TASKS_STUCK.declaration(), &[name], f64::from(stuck));
        }
    }
}

/// Measures how late the runtime wakes a task; for ever. Nothing while tasks are not tracked.
pub(crate) async fn measure_scheduling_delay() {
    if !super::enabled() {
        return;
    }
    let delay = SCHEDULING_DELAY.with([]);
    loop {
        let due = tokio::time::Instant::now() + EVERY;
        tokio::time::sleep_until(due).await;
        delay.record(due.elapsed());
    }
}
