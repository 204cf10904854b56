//! What is known about the process itself: its resources, its heap, its Tokio runtime, its version. All of it is
//! sampled when somebody asks.

use crate::ServiceInfo;
use crate::metrics::{Registry, Samples};
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tikv_jemalloc_ctl::{epoch, stats};
use tokio::runtime::{Handle, RuntimeMetrics};

crate::metrics! {
    /// CPU time spent in user and system mode.
    pub(crate) static CPU_SECONDS: Counter[] = "process_cpu_seconds_total";
    /// Open file descriptors.
    pub(crate) static OPEN_FDS: Gauge[] = "process_open_fds";
    /// The most file descriptors that may be open; 0 is any number.
    pub(crate) static MAX_FDS: Gauge[] = "process_max_fds";
    /// Virtual memory in use.
    pub(crate) static VIRTUAL_MEMORY: Gauge[] = "process_virtual_memory_bytes";
    /// The most virtual memory that may be in use; 0 is any amount.
    pub(crate) static VIRTUAL_MEMORY_MAX: Gauge[] = "process_virtual_memory_max_bytes";
    /// Memory held in RAM.
    pub(crate) static RESIDENT_MEMORY: Gauge[] = "process_resident_memory_bytes";
    /// When the process started, in seconds since the Unix epoch.
    pub(crate) static START_TIME: Gauge[] = "process_start_time_seconds";
    /// Threads of the operating system.
    pub(crate) static THREADS: Gauge[] = "process_threads";

    /// Heap that the program has allocated and not freed.
    pub(crate) static HEAP_ALLOCATED: Gauge[] = "jemalloc_allocated_bytes";
    /// Heap in pages that hold allocations; what it exceeds the allocated by is fragmentation.
    pub(crate) static HEAP_ACTIVE: Gauge[] = "jemalloc_active_bytes";
    /// Heap in RAM, with the allocator's own data and pages not yet returned.
    pub(crate) static HEAP_RESIDENT: Gauge[] = "jemalloc_resident_bytes";
    /// Address space that the allocator keeps for reuse, without RAM behind it.
    pub(crate) static HEAP_RETAINED: Gauge[] = "jemalloc_retained_bytes";

    /// Worker threads of the Tokio runtime.
    pub(crate) static TOKIO_WORKERS: Gauge[] = "tokio_workers";
    /// Tasks spawned and not ended.
    pub(crate) static TOKIO_ALIVE_TASKS: Gauge[] = "tokio_alive_tasks";
    /// Share of the workers' time since the last scrape that they were busy; 1 is a saturated runtime.
    pub(crate) static TOKIO_BUSY: Gauge[] = "tokio_busy_ratio";
    /// Tasks waiting in the runtime's global queue.
    pub(crate) static TOKIO_GLOBAL_QUEUE_DEPTH: Gauge[] = "tokio_global_queue_depth";

    /// Always 1; the labels tell what runs.
    pub(crate) static BUILD_INFO: Gauge["version"] = "build_info";
}

/// Has all of it sampled at each scrape; Tokio only when called inside a runtime.
pub(crate) fn observe(registry: &Registry, info: ServiceInfo) {
    registry.on_scrape_samples(process);
    registry.on_scrape_samples(heap);
    crate::tasks::observe(registry);
    if let Ok(runtime) = Handle::try_current() {
        let metrics = runtime.metrics();
        let busy = Busy::new(&metrics);
        registry.on_scrape_samples(move |samples| tokio(samples, &metrics, &busy));
    }
    registry.on_scrape_samples(move |samples| samples.push(BUILD_INFO.declaration(), &[info.version], 1.0));
}

fn process(samples: &mut Samples<'_>) {
    let now = metrics_process::collector::collect();
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    let all = [
        (CPU_SECONDS.declaration(), now.cpu_seconds_total),
        (OPEN_FDS.declaration(), whole(now.open_fds)),
        (MAX_FDS.declaration(), whole(now.max_fds)),
        (VIRTUAL_MEMORY.declaration(), whole(now.virtual_memory_bytes)),
        (
            VIRTUAL_MEMORY_MAX.declaration(),
            whole(now.virtual_memory_max_bytes),
        ),
        (RESIDENT_MEMORY.declaration(), whole(now.resident_memory_bytes)),
        (START_TIME.declaration(), whole(now.start_time_seconds)),
        (THREADS.declaration(), whole(now.threads)),
    ];
    for (declaration, value) in all {
        if let Some(value) = value {
            samples.push(declaration, &[], value);
        }
    }
}

fn heap(samples: &mut Samples<'_>) {
    // jemalloc's numbers stand still between epochs.
    if epoch::advance().is_err() {
        return;
    }
    let all = [
        (&HEAP_ALLOCATED, stats::allocated::read()),
        (&HEAP_ACTIVE, stats::active::read()),
        (&HEAP_RESIDENT, stats::resident::read()),
        (&HEAP_RETAINED, stats::retained::read()),
    ];
    for (gauge, value) in all {
        if let Ok(value) = value {
            samples.push(gauge.declaration(), &[], value as f64);
        }
    }
}

fn tokio(samples: &mut Samples<'_>, metrics: &RuntimeMetrics, busy: &Busy) {
    samples.push(TOKIO_WORKERS.declaration(), &[], metrics.num_workers() as f64);
    samples.push(
        TOKIO_ALIVE_TASKS.declaration(),
        &[],
        metrics.num_alive_tasks() as f64,
    );
    samples.push(
        TOKIO_GLOBAL_QUEUE_DEPTH.declaration(),
        &[],
        metrics.global_queue_depth() as f64,
    );
    samples.push(TOKIO_BUSY.declaration(), &[], busy.ratio(metrics));
}

/// The workers' busy time when it was last looked at.
struct Busy(Mutex<(Instant, Duration)>);

impl Busy {
    fn new(metrics: &RuntimeMetrics) -> Self {
        Self(Mutex::new((Instant::now(), busy_time(metrics))))
    }

    /// The share of time spent busy since it was last asked for, 0 to 1.
    fn ratio(&self, metrics: &RuntimeMetrics) -> f64 {
        let mut last = self.0.lock();
        let (then, busy_then) = *last;
        let (now, busy) = (Instant::now(), busy_time(metrics));
        *last = (now, busy);
        let available = (now - then).as_secs_f64() * metrics.num_workers() as f64;
        let spent = busy.saturating_sub(busy_then).as_secs_f64();
        // Tokio adds a worker's time when it parks: one long poll can bring more than passed since.
        if available > 0.0 {
            (spent / available).min(1.0)
        } else {
            0.0
        }
    }
}

fn busy_time(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers())
        .map(|worker| metrics.worker_total_busy_duration(worker))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    fn value(page: &str, name: &str) -> f64 {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn process_heap_and_runtime_are_sampled() {
        let registry = Registry::new("test", &[DECLARATIONS], &settings::Metrics::default()).unwrap();
        observe(
            &registry,
            ServiceInfo {
                name: "test",
                version: "1.2.3",
            },
        );
        let (_, page) = registry.render(None);
        assert!(value(&page, "process_resident_memory_bytes") > 1e6);
        assert!(value(&page, "process_open_fds") > 2.0);
        assert!(value(&page, "jemalloc_resident_bytes") > 0.0);
        assert_eq!(value(&page, "tokio_workers"), 2.0);
        assert!((0.0..=1.0).contains(&value(&page, "tokio_busy_ratio")));
        assert!(page.contains(r#"build_info{service="test",version="1.2.3"} 1"#));
        assert!(page.contains("# TYPE process_cpu_seconds_total counter"));
        let undescribed = DECLARATIONS
            .iter()
            .find(|declaration| !page.contains(&format!("# TYPE {} ", declaration.name)));
        assert_eq!(undescribed, None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_worker_kept_busy_shows() {
        let metrics = Handle::current().metrics();
        let busy = Busy::new(&metrics);
        for _ in 0..10 {
            let spin = tokio::spawn(async {
                let until = Instant::now() + Duration::from_millis(20);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            });
            spin.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(
            busy.ratio(&metrics) > 0.1,
            "most of the time, however loaded the machine is"
        );
    }
}
