//! The metrics that there are: ours as declared, recorded ones, and those of other programs.

use super::{Purpose, Sources, catalogue::Catalogue, promql};
use chassis::Service;
use std::collections::{BTreeMap, BTreeSet};
use telemetry::metrics::{Declaration, Kind, catalogue::COMMON};

/// Labels that Prometheus gives to everything that it scrapes.
const TARGET: [&str; 2] = ["instance", "job"];

/// Metrics that Prometheus makes for each target.
pub(super) const OF_TARGETS: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// How a series' values may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Only grows, until its program starts anew: nothing but its growth means anything.
    Growth,
    /// Means something as it is.
    Value,
    /// Not known.
    Unknown,
}

/// What is known of the series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// How its values may be used.
    pub usage: Use,
    /// The names of its labels.
    pub labels: BTreeSet<String>,
    /// The bounds of a histogram of ours, on the series of its buckets.
    pub bounds: &'static [f64],
    /// The values that a label of ours may have, where the declaration names them.
    pub values: BTreeMap<String, &'static [&'static str]>,
}

/// All there is.
#[derive(Debug, Default)]
pub struct Known {
    /// Series by name; a histogram stands here by `_bucket`, `_sum` and `_count`.
    pub series: BTreeMap<String, Series>,
    /// Our services.
    pub services: Vec<&'static str>,
    /// Scrape jobs.
    pub jobs: BTreeSet<String>,
}

/// A service's own declarations beside those that all have.
type Groups = &'static [&'static [Declaration]];

/// Our services with what each declares.
#[must_use]
pub fn services() -> [(&'static str, Groups); 3] {
    [
        ("rest-api", rest_api::RestApi::declarations()),
        ("mcp-server", mcp_server::McpServer::declarations()),
        ("worker", worker::Worker::declarations()),
    ]
}

/// Our declarations in groups with titles: what all services share, then each service's own.
#[must_use]
pub fn declarations() -> Vec<(&'static str, &'static [Declaration])> {
    let mut groups = COMMON.to_vec();
    groups.extend([
        ("Dependencies", chassis::DECLARATIONS),
        ("Authentication", chassis::credential::DECLARATIONS),
        ("Redis and rate limits", coordination::metrics::DECLARATIONS),
        ("Audit log", chassis::outbox::DECLARATIONS),
    ]);
    let shared: Vec<&str> = groups.iter().flat_map(|(_, group)| first(group)).collect();
    for (name, own) in services() {
        let is_shared = |group: &[Declaration]| first(group).is_some_and(|name| shared.contains(&name));
        let own = own.iter().filter(|group| !is_shared(group));
        groups.extend(own.map(|group| (name, *group)));
    }
    groups
}

/// A label of ours as Prometheus stores it: its own of that name come first.
fn scraped(label: &str) -> String {
    if TARGET.contains(&label) {
        return format!("exported_{label}");
    }
    label.to_owned()
}

fn first(group: &[Declaration]) -> Option<&'static str> {
    group.first().map(|declaration| declaration.name)
}

impl Known {
    /// Everything that the queries of `sources` may name.
    #[must_use]
    pub fn new(catalogue: &Catalogue, sources: &Sources) -> Self {
        let mut known = Self::default();
        known.services.extend(services().map(|(service, _)| service));
        known.jobs.clone_from(&sources.jobs);
        for declaration in declarations().iter().flat_map(|(_, group)| *group) {
            let own = declaration.labels.iter().map(|label| scraped(label));
            let labels = own
                .chain(TARGET.map(str::to_owned))
                .chain(["service".to_owned()])
                .collect();
            known.add(
                declaration.name,
                declaration.kind.as_str(),
                &labels,
                declaration.buckets,
            );
            if let Some(series) = known.series.get_mut(declaration.name) {
                let own = declaration.labels.iter().map(|label| scraped(label));
                series.values = own.zip(declaration.known.iter().copied()).collect();
            }
        }
        for name in OF_TARGETS {
            known.add(name, "gauge", &TARGET.map(str::to_owned).into(), &[]);
        }
        for metrics in catalogue.jobs.values() {
            for (name, entry) in metrics {
                let labels = TARGET.iter().map(|label| (*label).to_owned());
                let labels = entry.labels.iter().cloned().chain(labels).collect();
                known.add(name, &entry.kind, &labels, &[]);
            }
        }
        known.add_recorded(sources);
        known
    }

    fn add(&mut self, name: &str, kind: &str, labels: &BTreeSet<String>, bounds: &'static [f64]) {
        let with = |label: &str| labels.iter().cloned().chain([label.to_owned()]).collect();
        match kind {
            "counter" => self.insert(name, Use::Growth, labels.clone(), &[]),
            "gauge" => self.insert(name, Use::Value, labels.clone(), &[]),
            "histogram" => {
                self.insert(&format!("{name}_bucket"), Use::Growth, with("le"), bounds);
                self.insert(&format!("{name}_sum"), Use::Growth, labels.clone(), &[]);
                self.insert(&format!("{name}_count"), Use::Growth, labels.clone(), &[]);
            }
            "summary" => {
                self.insert(name, Use::Value, with("quantile"), &[]);
                self.insert(&format!("{name}_sum"), Use::Growth, labels.clone(), &[]);
                self.insert(&format!("{name}_count"), Use::Growth, labels.clone(), &[]);
            }
            _ => self.insert(name, Use::Unknown, labels.clone(), &[]),
        }
    }

    /// Several programs may expose the same name (`go_goroutines`): together they have all the labels.
    fn insert(&mut self, name: &str, usage: Use, labels: BTreeSet<String>, bounds: &'static [f64]) {
        let series = self.series.entry(name.to_owned()).or_insert_with(|| Series {
            usage,
            labels: BTreeSet::new(),
            bounds,
            values: BTreeMap::new(),
        });
        series.labels.extend(labels);
    }

    /// Recorded series have the labels of their query and those that the rule gives. Rules build on each other, in any
    /// order, so it is gone over them until nothing new is learnt.
    fn add_recorded(&mut self, sources: &Sources) {
        loop {
            let before = self
                .series
                .values()
                .map(|series| series.labels.len() + 1)
                .sum::<usize>();
            let (mut recorded, mut alerts) = (Vec::new(), BTreeSet::new());
            for expression in &sources.expressions {
                let labels = promql::labels(expression, self)
                    .chain(expression.given.iter().map(|(label, _)| label.clone()));
                match &expression.purpose {
                    Purpose::Record(name) => recorded.push((name, labels.collect())),
                    Purpose::Alert => alerts.extend(labels),
                    _ => {}
                }
            }
            for (name, labels) in recorded {
                self.insert(name, Use::Value, labels, &[]);
            }
            alerts.extend(["alertname", "alertstate"].map(str::to_owned));
            for name in ["ALERTS", "ALERTS_FOR_STATE"] {
                self.insert(name, Use::Value, alerts.clone(), &[]);
            }
            if before
                == self
                    .series
                    .values()
                    .map(|series| series.labels.len() + 1)
                    .sum::<usize>()
            {
                return;
            }
        }
    }

    /// Whether a name is one of ours, by its declaration.
    #[must_use]
    pub fn is_declared(name: &str) -> bool {
        declarations()
            .iter()
            .flat_map(|(_, group)| *group)
            .any(|declaration| {
                let rest = name.strip_prefix(declaration.name);
                match declaration.kind {
                    Kind::Histogram => matches!(rest, Some("_bucket" | "_sum" | "_count")),
                    Kind::Counter | Kind::Gauge => rest == Some(""),
                }
            })
    }

    /// A word on a name that is not known.
    #[must_use]
    pub fn hint(&self, name: &str) -> String {
        if self.series.contains_key(&format!("{name}_bucket")) {
            return format!("{name} is a histogram: its series are {name}_bucket, _sum and _count");
        }
        if self.series.contains_key(&format!("{name}_total")) {
            return format!("no metric {name}; there is {name}_total");
        }
        format!(
            "no metric {name}: neither declared, nor recorded, nor in {}",
            super::catalogue::PATH
        )
    }
}
