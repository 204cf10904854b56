//! The recorder: the exporter's, behind limits on the number of series, with exemplars beside.

use super::exemplar::{self, Buckets, Slot};
use super::limits::Limits;
use super::{Declaration, Kind, own};
use crate::settings;
use ::metrics::{Key, KeyName, Label, Level, Metadata, Recorder as _, SharedString, Unit};
use anyhow::{Context as _, ensure};
use metrics_exporter_prometheus::formatting::sanitize_label_value;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

static METADATA: Metadata<'static> = Metadata::new("telemetry", Level::INFO, None);

/// Threads meet in one of these maps only when their series do.
const SHARDS: usize = 16;

/// One series as it is handed out.
#[derive(Clone)]
enum Series {
    Counter(::metrics::Counter, Arc<Slot>),
    Gauge(::metrics::Gauge),
    Histogram(::metrics::Histogram, Arc<Buckets>),
}

type Shard = RwLock<HashMap<Key, Series>>;

/// Where exemplars of a series are kept.
pub(super) enum Exemplars {
    /// A counter's last.
    Last(Arc<Slot>),
    /// A histogram's, by bucket.
    ByBucket(Arc<Buckets>),
}

/// The recorder of one service. Give it to [`with_local_recorder`](::metrics::with_local_recorder) in tests.
pub struct Recorder {
    service: String,
    inner: PrometheusRecorder,
    declared: HashMap<&'static str, &'static Declaration>,
    pub(super) limits: Limits,
    shards: [Shard; SHARDS],
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    pub(super) fn new(
        service: &str,
        declarations: &[&'static [Declaration]],
        settings: &settings::Metrics,
    ) -> anyhow::Result<Self> {
        // No idle_timeout: a series held by a handle would lose what is recorded after it expired.
        let mut builder = PrometheusBuilder::new().add_global_label("service", service);
        let mut declared = HashMap::new();
        for declaration in declarations.iter().copied().flatten() {
            let name = declaration.name;
            ensure!(
                declared.insert(name, declaration).is_none(),
                "metric {name} is declared twice"
            );
            ensure!(
                !declaration.labels.contains(&"service"),
                "metric {name}: every series has a service label"
            );
            if declaration.kind == Kind::Histogram {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(name.to_owned()), declaration.buckets)
                    .with_context(|| format!("metric {name}"))?;
            }
        }
        let recorder = Self {
            service: sanitize_label_value(service),
            inner: builder.build_recorder(),
            declared,
            limits: Limits::new(settings),
            shards: Default::default(),
        };
        recorder.begin_known();
        Ok(recorder)
    }

    /// Makes the counters whose label values are known, and those of what may be lost: they stand at 0.
    fn begin_known(&self) {
        for declaration in self.declared.values() {
            for values in declaration.known_series() {
                let labels = declaration.labels.iter().copied().zip(values);
                let labels: Vec<_> = labels.map(|(name, value)| Label::new(name, value)).collect();
                let key = Key::from_parts(declaration.name, labels);
                self.register_counter(&key, &METADATA).increment(0);
            }
            let unbounded = declaration.known.is_empty() && !declaration.labels.is_empty();
            if unbounded {
                self.count_dropped(declaration.name, 0);
            }
        }
    }

    pub(super) fn exporter(&self) -> PrometheusHandle {
        self.inner.handle()
    }

    /// The service's name, escaped as a label's value.
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    pub(super) fn declaration(&self, name: &str) -> Option<&'static Declaration> {
        self.declared.get(name).copied()
    }

    pub(super) fn declarations(&self) -> impl Iterator<Item = &'static Declaration> {
        self.declared.values().copied()
    }

    /// Where the exemplars of each series are, by how its sample lines begin: for a histogram, those of its
    /// buckets up to the bound.
    pub(super) fn exemplars(&self) -> HashMap<String, Exemplars> {
        let mut all = HashMap::new();
        for shard in &self.shards {
            for (key, series) in shard.read().iter() {
                let (suffix, exemplars) = match series {
                    Series::Counter(_, slot) => ("", Exemplars::Last(slot.clone())),
                    Series::Histogram(_, buckets) => ("_bucket", Exemplars::ByBucket(buckets.clone())),
                    Series::Gauge(_) => continue,
                };
                let mut line = format!("{}{suffix}{{service=\"{}\"", key.name(), self.service);
                for label in key.labels() {
                    // Writing to a String does not fail.
                    let _ = write!(
                        line,
                        ",{}=\"{}\"",
                        label.key(),
                        sanitize_label_value(label.value())
                    );
                }
                all.insert(line, exemplars);
            }
        }
        all
    }

    /// Counts recordings of a metric that were refused.
    pub(super) fn count_dropped(&self, metric: &str, count: u64) {
        self.count_loss(own::SERIES_DROPPED.declaration(), metric, count);
    }

    /// The value that a label gets, counted when it is not the given one.
    pub(super) fn label_value<'a>(&self, label: &str, value: &'a str) -> &'a str {
        let admitted = self.limits.value(label, value);
        if !std::ptr::eq(admitted, value) {
            self.count_loss(own::LABEL_VALUES_CAPPED.declaration(), label, 1);
        }
        admitted
    }

    /// Past the limits: how many series the losses have is bounded by the number of metrics and labels.
    fn count_loss(&self, declaration: &Declaration, of: &str, count: u64) {
        let key = Key::from_parts(
            declaration.name,
            vec![Label::new(declaration.labels[0], of.to_owned())],
        );
        self.inner.register_counter(&key, &METADATA).increment(count);
    }

    fn shard(&self, key: &Key) -> &Shard {
        &self.shards[(key.get_hash() >> 32) as usize % SHARDS]
    }

    fn known(&self, key: &Key) -> Option<Series> {
        self.shard(key).read().get(key).cloned()
    }

    /// The series of a key, made when it is new and there is room for it.
    fn series(&self, key: &Key, kind: Kind) -> Option<Series> {
        if let Some(series) = self.known(key) {
            return Some(series);
        }
        let key = self.bounded(key);
        if let Some(series) = self.known(&key) {
            return Some(series);
        }
        let mut shard = self.shard(&key).write();
        // Another thread may have made it since.
        if let Some(series) = shard.get(&key) {
            return Some(series.clone());
        }
        // What is not declared is not documented either, and nothing bounds its names.
        let declaration = self
            .declaration(key.name())
            .filter(|declaration| declaration.kind == kind);
        let Some(declaration) = declaration.filter(|declaration| self.limits.take_series(declaration.name))
        else {
            self.count_dropped(key.name(), 1);
            return None;
        };
        let series = self.make(&key, declaration);
        shard.insert(key, series.clone());
        Some(series)
    }

    /// The key with each label's value within its limits.
    fn bounded(&self, key: &Key) -> Key {
        let labels = key.labels().map(|label| {
            let (name, value) = label.clone().into_parts();
            let admitted = self.label_value(&name, &value).to_owned();
            Label::new(name, admitted)
        });
        Key::from_parts(key.name_shared(), labels.collect::<Vec<_>>())
    }

    fn make(&self, key: &Key, declaration: &Declaration) -> Series {
        match declaration.kind {
            Kind::Counter => {
                let (inner, last) = (
                    self.inner.register_counter(key, &METADATA),
                    Arc::<Slot>::default(),
                );
                let counter = exemplar::Counter {
                    inner,
                    last: last.clone(),
                };
                Series::Counter(::metrics::Counter::from_arc(Arc::new(counter)), last)
            }
            Kind::Gauge => Series::Gauge(self.inner.register_gauge(key, &METADATA)),
            Kind::Histogram => {
                let inner = self.inner.register_histogram(key, &METADATA);
                let buckets = Arc::new(Buckets::new(declaration.buckets));
                let histogram = exemplar::Histogram {
                    inner,
                    buckets: buckets.clone(),
                };
                Series::Histogram(::metrics::Histogram::from_arc(Arc::new(histogram)), buckets)
            }
        }
    }
}

impl ::metrics::Recorder for Recorder {
    // What there is to describe is declared.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Counter {
        match self.series(key, Kind::Counter) {
            Some(Series::Counter(counter, _)) => counter,
            _ => ::metrics::Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Gauge {
        match self.series(key, Kind::Gauge) {
            Some(Series::Gauge(gauge)) => gauge,
            _ => ::metrics::Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Histogram {
        match self.series(key, Kind::Histogram) {
            Some(Series::Histogram(histogram, _)) => histogram,
            _ => ::metrics::Histogram::noop(),
        }
    }
}
