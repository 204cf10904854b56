//! How much room a service has left: of its runtime, its pools, its memory, its disks.

use super::{
    figures::{Figures, Sample},
    requests::Place,
    words,
};
use crate::{outcome::Failure, sources::Access, tools::observe::answer};
use domain::Time;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A figure, and from where on it is too much.
struct Gauge {
    name: &'static str,
    /// `$s` stands for the matchers of the service, `$c` for those of its container.
    query: &'static str,
    bound: Bound,
    /// What is said where it is too much; `$v` stands for the value.
    says: &'static str,
    shown: Shown,
}

#[derive(Clone, Copy)]
enum Bound {
    /// More is too much.
    Above(f64),
    /// Less is too little.
    Below(f64),
    /// It says nothing by itself.
    None,
}

#[derive(Clone, Copy)]
enum Shown {
    Percent,
    Seconds,
    Number,
}

const GAUGES: [Gauge; 15] = [
    gauge(
        "runtime_busy",
        "max(avg_over_time(tokio_busy_ratio{$s}[5m]))",
        Bound::Above(0.9),
        "the runtime of a replica is busy for $v of the time",
        Shown::Percent,
    ),
    gauge(
        "scheduling_delay_p99",
        "histogram_quantile(0.99, sum by (le) (rate(runtime_scheduling_delay_seconds_bucket{$s}[5m])))",
        Bound::Above(0.5),
        "tasks are woken $v late",
        Shown::Seconds,
    ),
    gauge(
        "tasks_stuck",
        "sum(runtime_tasks_stuck{$s})",
        Bound::Above(0.0),
        "$v tasks are stuck",
        Shown::Number,
    ),
    gauge(
        "database_pool",
        r#"sum(db_pool_connections{$s,state="used"}) / (sum(db_pool_max_connections{$s}) > 0)"#,
        Bound::Above(0.95),
        "$v of the database connections are in use",
        Shown::Percent,
    ),
    gauge(
        "file_descriptors",
        "max(process_open_fds{$s} / (process_max_fds{$s} > 0))",
        Bound::Above(0.8),
        "$v of the file descriptors are in use",
        Shown::Percent,
    ),
    gauge(
        "memory_of_limit",
        r"max(container_memory_working_set_bytes{$c} / (container_spec_memory_limit_bytes{$c} > 0))",
        Bound::Above(0.9),
        "a container uses $v of its memory limit",
        Shown::Percent,
    ),
    gauge(
        "memory_bytes",
        "sum(process_resident_memory_bytes{$s})",
        Bound::None,
        "",
        Shown::Number,
    ),
    gauge(
        "cpu_cores",
        "sum(rate(process_cpu_seconds_total{$s}[5m]))",
        Bound::None,
        "",
        Shown::Number,
    ),
    gauge(
        "cpu_throttled",
        "max(rate(container_cpu_cfs_throttled_periods_total{$c}[5m]) / (rate(container_cpu_cfs_periods_total{$c}[5m]) > 0))",
        Bound::Above(0.25),
        "a container is throttled in $v of its CPU periods",
        Shown::Percent,
    ),
    gauge(
        "disk_free",
        "min(data_directory_free_bytes{$s} / data_directory_size_bytes{$s})",
        Bound::Below(0.1),
        "only $v of a disk is free",
        Shown::Percent,
    ),
    gauge(
        "requests_in_flight",
        "sum(http_requests_in_flight{$s})",
        Bound::None,
        "",
        Shown::Number,
    ),
    gauge(
        "slots",
        "sum(worker_runs_in_flight{$s}) / (sum(worker_slots{$s}) > 0)",
        Bound::Above(0.95),
        "$v of the worker's slots are taken",
        Shown::Percent,
    ),
    gauge(
        "slots_waiting",
        "sum(worker_slots_waiting{$s})",
        Bound::Above(0.0),
        "$v runs wait for a slot of the worker",
        Shown::Number,
    ),
    gauge(
        "queue_age_seconds",
        "max(mcp_execution_queue_age_seconds{$s})",
        Bound::Above(60.0),
        "an execution has been queued for $v",
        Shown::Seconds,
    ),
    gauge(
        "restarts_30m",
        "max(changes(process_start_time_seconds{$s}[30m]))",
        Bound::Above(2.0),
        "a replica restarted $v times in 30 minutes",
        Shown::Number,
    ),
];

const fn gauge(
    name: &'static str,
    query: &'static str,
    bound: Bound,
    says: &'static str,
    shown: Shown,
) -> Gauge {
    Gauge {
        name,
        query,
        bound,
        says,
        shown,
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Saturation {
    figures: BTreeMap<String, Vec<Sample>>,
}

/// Asks for all of it.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn ask(access: &Access, place: &Place, at: Time) -> Result<Saturation, Failure> {
    let service = place.matchers(&[]);
    let container = Place {
        label: "container".to_owned(),
        service: place.service.clone(),
    };
    let container = container.matchers(&[]);
    let mut figures = Figures::default();
    for gauge in &GAUGES {
        let query = gauge.query.replace("$s", &service).replace("$c", &container);
        figures.add(gauge.name, &query);
    }
    figures.add(
        "dependencies_down",
        &format!("min by (dependency) (dependency_up{{{service}}}) == 0"),
    );
    // `up` has the labels of the scrape alone; elsewhere the job mostly has the service's name.
    let job = Place {
        label: "job".to_owned(),
        service: place.service.clone(),
    };
    for (name, aggregate) in [("replicas", "count"), ("replicas_up", "sum")] {
        let query = format!(
            "({aggregate}(up{{{service}}}) or {aggregate}(up{{{}}}))",
            job.matchers(&[])
        );
        figures.add(name, &query);
    }
    Ok(Saturation {
        figures: figures.ask(access, at).await?,
    })
}

impl Saturation {
    fn figure(&self, name: &str) -> Option<f64> {
        Some(self.figures.get(name)?.first()?.value)
    }

    /// How many replicas are up, of how many.
    pub(in super::super) fn replicas(&self) -> Option<(f64, f64)> {
        Some((self.figure("replicas_up")?, self.figure("replicas")?))
    }

    /// What the service depends on and some replica does not reach.
    pub(in super::super) fn dependencies_down(&self) -> Vec<String> {
        let samples = self.figures.get("dependencies_down").into_iter().flatten();
        samples
            .map(|sample| sample.label("dependency").to_owned())
            .collect()
    }

    /// What is too much, in words.
    pub(in super::super) fn complaints(&self) -> Vec<String> {
        let complaint = |gauge: &Gauge| {
            let value = self.figure(gauge.name)?;
            let too_much = match gauge.bound {
                Bound::Above(bound) => value > bound,
                Bound::Below(bound) => value < bound,
                Bound::None => false,
            };
            let shown = match gauge.shown {
                Shown::Percent => words::percent(value),
                Shown::Seconds => words::seconds(value),
                Shown::Number => words::short(value),
            };
            too_much.then(|| gauge.says.replace("$v", &shown))
        };
        GAUGES.iter().filter_map(complaint).collect()
    }

    /// As it is answered: what is known.
    pub(in super::super) fn told(&self) -> Value {
        let known = GAUGES
            .iter()
            .filter_map(|gauge| Some((gauge.name.to_owned(), answer::number(self.figure(gauge.name)?))));
        known.collect::<Map<_, _>>().into()
    }
}
