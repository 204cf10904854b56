//! What recording and rendering cost: `cargo bench -p telemetry`.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use std::hint::black_box;
use std::time::Instant;
use telemetry::metrics::{Registry, buckets};
use telemetry::settings;

telemetry::metrics! {
    /// Counted.
    pub static COUNTED: Counter["method", "path", "status"] = "bench_counted_total";
    /// Measured.
    pub static MEASURED: Histogram["method", "path", "status"] = "bench_measured_seconds", buckets: &buckets::DURATION;
    /// Many.
    pub static MANY: Counter["number"] = "bench_many_total";
    /// Many measured.
    pub static MANY_MEASURED: Histogram["number"] = "bench_many_seconds", buckets: &buckets::DURATION;
}

const LABELS: [&str; 3] = ["GET", "/api/v1/contexts/{id}", "200"];

fn time(what: &str, rounds: u32, mut f: impl FnMut()) {
    let start = Instant::now();
    for _ in 0..rounds {
        f();
    }
    println!(
        "{what:<44} {:>10.1} ns",
        start.elapsed().as_nanos() as f64 / f64::from(rounds)
    );
}

fn recording(registry: &Registry) {
    let (counter, histogram) = (COUNTED.with(LABELS), MEASURED.with(LABELS));
    // Upkeep is part of what an observation costs.
    let observe = |what: &str| {
        let start = Instant::now();
        for _ in 0..100 {
            for _ in 0..10_000 {
                histogram.record(black_box(0.02));
            }
            let _page = registry.render(None);
        }
        println!("{what:<44} {:>10.1} ns", start.elapsed().as_nanos() as f64 / 1e6);
    };
    time("counter, held", 10_000_000, || counter.inc());
    time("counter, by labels", 1_000_000, || COUNTED.inc(black_box(LABELS)));
    time("histogram, held", 1_000_000, || histogram.record(black_box(0.02)));
    time("histogram, by labels", 1_000_000, || {
        MEASURED.record(black_box(0.02), black_box(LABELS))
    });
    observe("histogram, held, with upkeep");
    let (trace, span) = (TraceId::from(1_u128), SpanId::from(1_u64));
    let span = SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE);
    let _attached = Context::new().with_remote_span_context(span).attach();
    time("counter, held, sampled", 1_000_000, || counter.inc());
    observe("histogram, held, with upkeep, sampled");
}

fn rendering(registry: &Registry) {
    for number in 0..10_000_u32 {
        MANY.inc([&number.to_string()]);
        MANY_MEASURED.record(number % 7, [&number.to_string()]);
    }
    let _page = registry.render(None);
    time("page of 10k counters and 10k histograms", 5, || {
        _ = black_box(registry.render(None))
    });
    let accept = Some("application/openmetrics-text");
    time("the same with exemplars", 5, || {
        _ = black_box(registry.render(accept))
    });
}

fn main() -> anyhow::Result<()> {
    let limits = settings::Metrics {
        max_series_per_metric: 20_000,
        ..settings::Metrics::default()
    };
    let registry = Registry::new("bench", &[DECLARATIONS], &limits)?;
    metrics::with_local_recorder(registry.recorder(), || {
        recording(&registry);
        rendering(&registry);
    });
    Ok(())
}
