//! Metrics, logs and traces, and the layers that carry them across HTTP and gRPC.
//!
//! A service calls [`init`] once, first thing, and keeps the guard until it has drained; everything else works
//! through the [`Handle`] and through the layers. Telemetry never blocks or fails a request: what cannot be kept is
//! dropped and counted.

pub mod client;
pub mod context;
pub mod db;
mod directories;
pub mod grpc;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod profiles;
pub mod propagate;
pub mod recent;
mod runtime;
mod sampling;
pub mod settings;
pub mod span;
pub mod tasks;
pub mod traces;

pub use logs::InvalidDirective;
pub use settings::Settings;

use anyhow::Context as _;
use metrics::{Counter, Declaration, Gauge, Registry, catalogue};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Between two runs, each observation in a histogram takes 20 bytes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How long spans may take to leave at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Which service this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Its name, as in the metrics' `service` label: `rest-api`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// Starts telemetry for this process. Call it inside the Tokio runtime that the service runs in: outside of one,
/// the runtime is not measured and observations wait for a scrape.
///
/// `declarations` are the service's own metrics; those of this crate come to them.
///
/// # Errors
/// When a setting cannot be, a metric is declared twice, a log file cannot be opened, or telemetry was started
/// before.
pub fn init(
    info: ServiceInfo,
    environment: &str,
    settings: &Settings,
    declarations: &[&'static [Declaration]],
) -> anyhow::Result<Telemetry> {
    settings.validate()?;
    let registry = registry(info, &settings.metrics, declarations)?;
    if settings.metrics.enabled {
        ::metrics::set_global_recorder(registry.recorder().clone())
            .ok()
            .context("telemetry has been started before in this process")?;
        runtime::observe(&registry, info);
        directories::observe_all(&registry, settings);
    }
    recent::configure(&settings.recent_requests);
    tasks::configure(&settings.tasks);
    let traces = traces::init(&info, environment, &settings.tracing)?;
    let logs = logs::init_subscriber(&info, environment, &settings.logging, &traces)?;
    if let Err(error) = profiles::heap::configure(&settings.profiling) {
        // Told to, in the environment, or started by tests: nothing that the service needs.
        tracing::info!(%error, "there will be no heap profiles");
    }
    let upkeep = Upkeep::start(&registry);
    Ok(Telemetry {
        service: info.name,
        registry,
        traces,
        logs: Arc::new(logs),
        upkeep,
    })
}

fn registry(
    info: ServiceInfo,
    settings: &settings::Metrics,
    declarations: &[&'static [Declaration]],
) -> anyhow::Result<Registry> {
    let mut all: Vec<_> = catalogue::COMMON
        .iter()
        .map(|(_, declarations)| *declarations)
        .collect();
    all.extend(declarations);
    Registry::new(info.name, &all, settings)
}

/// Running telemetry. Dropped, it stops; [`shutdown`](Telemetry::shutdown) sends first what still waits.
#[must_use = "telemetry stops when this is dropped"]
pub struct Telemetry {
    service: &'static str,
    registry: Registry,
    traces: traces::Traces,
    logs: Arc<logs::Logs>,
    upkeep: Option<Upkeep>,
}

impl Telemetry {
    /// What the rest of the service may do with it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            service: self.service,
            registry: self.registry.clone(),
            logs: Arc::downgrade(&self.logs),
        }
    }

    /// Sends the spans and writes the log lines that still wait, in bounded time.
    pub async fn shutdown(self) {
        let Self {
            service: _,
            registry: _,
            traces,
            logs,
            upkeep,
        } = self;
        drop(upkeep);
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, traces.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(timeout = ?SHUTDOWN_TIMEOUT, "spans were not sent in time and are lost");
        }
        // Last, so that what went wrong above is still written.
        drop(logs);
    }
}

/// The tasks that keep histograms small and measure how late tasks are woken.
struct Upkeep([tokio::task::AbortHandle; 2]);

impl Upkeep {
    fn start(registry: &Registry) -> Option<Self> {
        tokio::runtime::Handle::try_current().ok()?;
        let registry = registry.clone();
        let upkeep = tasks::spawn_every("telemetry upkeep", UPKEEP_EVERY, async move {
            let mut ticks = tokio::time::interval(UPKEEP_EVERY);
            loop {
                ticks.tick().await;
                registry.upkeep();
            }
        });
        let delay = tasks::spawn_every(
            "scheduling delay",
            tasks::SCHEDULING_DELAY_EVERY,
            tasks::measure_scheduling_delay(),
        );
        Some(Self([upkeep, delay].map(|task| task.abort_handle())))
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

/// What a service may do with its telemetry. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    service: &'static str,
    registry: Registry,
    logs: Weak<logs::Logs>,
}

impl Handle {
    /// A handle to a registry of its own and to no logs, for tests. What is recorded reaches it only through
    /// [`Handle::registry`].
    ///
    /// # Errors
    /// When a metric is declared twice.
    pub fn detached(info: ServiceInfo, declarations: &[&'static [Declaration]]) -> anyhow::Result<Self> {
        Ok(Self {
            service: info.name,
            registry: registry(info, &settings::Metrics::default(), declarations)?,
            logs: Weak::new(),
        })
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// All metrics of the service.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The metrics as scraped, and their content type: OpenMetrics with exemplars when the `Accept` header asks
    /// for it, else Prometheus' text.
    #[must_use]
    pub fn render(&self, accept: Option<&str>) -> (&'static str, String) {
        self.registry.render(accept)
    }

    /// Runs `hook` before each rendering, to set gauges. It must be quick and must not block.
    pub fn on_scrape(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.registry.on_scrape(hook);
    }

    /// Renders `gauge` from what `sample` gives at each scrape; a series that it no longer gives is gone. The gauge
    /// must not be set elsewhere.
    pub fn on_scrape_gauge<const N: usize>(
        &self,
        gauge: &'static Gauge<N>,
        sample: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) {
        self.registry.on_scrape_gauge(gauge, sample);
    }

    /// Renders `counter` from the totals that `sample` gives at each scrape, for what somebody else counts. A series that
    /// it no longer gives is gone. The counter must not be increased elsewhere.
    pub fn on_scrape_counter<const N: usize>(
        &self,
        counter: &'static Counter<N>,
        sample: impl Fn() -> Vec<([String; N], f64)> + Send + Sync + 'static,
    ) {
        self.registry.on_scrape_counter(counter, sample);
    }

    /// Measures how much room there is where `path` lies, as `data_directory_free_bytes` of the directory called `name`.
    pub fn watch_directory(&self, name: &str, path: PathBuf) {
        directories::observe(&self.registry, name, path);
    }

    /// What is logged: a level or directives. Empty once telemetry is shut down.
    #[must_use]
    pub fn log_level(&self) -> String {
        self.logs.upgrade().map(|logs| logs.level()).unwrap_or_default()
    }

    /// Changes what is logged, for all threads, at once.
    ///
    /// # Errors
    /// [`InvalidDirective`] when `directives` is neither a level nor directives; then nothing changes.
    pub fn set_log_level(&self, directives: &str) -> Result<(), InvalidDirective> {
        self.logs
            .upgrade()
            .map_or(Ok(()), |logs| logs.set_level(directives))
    }
}
