//! All series of a service, and what is asked at scrape time.

use super::exposition::{self, Format, Samples};
use super::recorder::Recorder;
use super::{Counter, Declaration, Gauge};
use crate::settings;
use ::metrics::with_local_recorder;
use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;

type Hook = Arc<dyn Fn() + Send + Sync>;
type Sampler = Arc<dyn Fn(&mut Samples<'_>) + Send + Sync>;

/// All metrics of one service. A clone is the same registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    enabled: bool,
    recorder: Arc<Recorder>,
    hooks: RwLock<Vec<Hook>>,
    samplers: RwLock<Vec<Sampler>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.0.recorder).finish()
    }
}

impl Registry {
    /// A registry that takes the declared metrics and no others. [`init`](crate::init) makes the one of a service;
    /// tests make their own.
    ///
    /// # Errors
    /// When a metric is declared twice, or has a label `service`.
    pub fn new(
        service: &str,
        declarations: &[&'static [Declaration]],
        settings: &settings::Metrics,
    ) -> anyhow::Result<Self> {
        let recorder = Arc::new(Recorder::new(service, declarations, settings)?);
        let (hooks, samplers) = Default::default();
        Ok(Self(Arc::new(Inner {
            enabled: settings.enabled,
            recorder,
            hooks,
            samplers,
        })))
    }

    /// What records into it, for `with_local_recorder` and the like.
    #[must_use]
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.0.recorder
    }

    /// What is scraped, and its content type: OpenMetrics with exemplars when the `Accept` header asks for it, else
    /// Prometheus' text.
    #[must_use]
    pub fn render(&self, accept: Option<&str>) -> (&'static str, String) {
        let Inner {
            enabled,
            recorder,
            hooks,
            samplers,
        } = &*self.0;
        let format = Format::negotiate(accept);
        if !enabled {
            return (format.content_type(), format.end().to_owned());
        }
        // Cloned, so that a hook may register another and no lock is held while foreign code runs.
        let hooks = hooks.read().clone();
        with_local_recorder(recorder, || hooks.iter().for_each(|hook| hook()));
        let mut samples = Samples::new(recorder);
        let samplers = samplers.read().clone();
        samplers.iter().for_each(|sampler| sampler(&mut samples));
        (
            format.content_type(),
            exposition::render(recorder, &samples, format),
        )
    }

    /// Runs `hook` before each rendering, to set gauges. It must be quick and must not block.
    pub fn on_scrape(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.0.hooks.write().push(Arc::new(hook));
    }

    /// Renders `gauge` from what `sample` gives at each scrape; a series that it no longer gives is gone. The gauge
    /// must not be set elsewhere.
    pub fn on_scrape_gauge<const N: usize>(
        &self,
        gauge: &'static Gauge<N>,
        sample: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) {
        self.on_scrape_samples(move |samples| {
            for (labels, value) in sample() {
                samples.push(gauge.declaration(), &labels.each_ref().map(String::as_str), value);
            }
        });
    }

    /// Renders `counter` from the totals that `sample` gives at each scrape, for what somebody else counts. A series that
    /// it no longer gives is gone. The counter must not be increased elsewhere.
    pub fn on_scrape_counter<const N: usize>(
        &self,
        counter: &'static Counter<N>,
        sample: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) {
        self.on_scrape_samples(move |samples| {
            for (labels, value) in sample() {
                samples.push(
                    counter.declaration(),
                    &labels.each_ref().map(String::as_str),
                    value,
                );
            }
        });
    }

    /// Asks `sampler` for samples at each scrape.
    pub(crate) fn on_scrape_samples(&self, sampler: impl Fn(&mut Samples<'_>) + Send + Sync + 'static) {
        self.0.samplers.write().push(Arc::new(sampler));
    }

    /// Moves recorded observations into their buckets; between two calls each takes 20 bytes.
    pub(crate) fn upkeep(&self) {
        self.0.recorder.exporter().run_upkeep();
    }
}
