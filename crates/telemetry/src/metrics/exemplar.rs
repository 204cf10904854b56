//! Exemplars: for a counter and for each bucket of a histogram, the last sampled trace that was counted there.

use opentelemetry::trace::{SpanId, TraceContextExt as _, TraceId};
use opentelemetry::{Context, trace::SpanContext};
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace_id: TraceId,
    span_id: SpanId,
    value: f64,
    at: SystemTime,
}

/// Room for the last exemplar.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<Exemplar>>);

impl Slot {
    /// Keeps the current trace when it is sampled: only then is there something to look at.
    fn note(&self, value: f64) {
        let Some((trace_id, span_id)) = Context::map_current(|cx| sampled(cx.span().span_context())) else {
            return;
        };
        // When two record at once, either is as good an example.
        if let Some(mut slot) = self.0.try_lock() {
            *slot = Some(Exemplar {
                trace_id,
                span_id,
                value,
                at: SystemTime::now(),
            });
        }
    }

    /// Appends the exemplar to a line of OpenMetrics, when there is one.
    pub(super) fn write(&self, line: &mut String) {
        let Some(Exemplar {
            trace_id,
            span_id,
            value,
            at,
        }) = *self.0.lock()
        else {
            return;
        };
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        // Writing to a String does not fail.
        let _ = write!(
            line,
            " # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {value} {at:.3}"
        );
    }
}

fn sampled(span: &SpanContext) -> Option<(TraceId, SpanId)> {
    (span.is_sampled() && span.is_valid()).then(|| (span.trace_id(), span.span_id()))
}

/// A counter that keeps its last exemplar.
pub(super) struct Counter {
    pub(super) inner: ::metrics::Counter,
    pub(super) last: Arc<Slot>,
}

impl ::metrics::CounterFn for Counter {
    fn increment(&self, value: u64) {
        self.inner.increment(value);
        if value > 0 {
            self.last.note(value as f64);
        }
    }

    fn absolute(&self, value: u64) {
        self.inner.absolute(value);
    }
}

/// A histogram's slots, one a bucket.
#[derive(Debug)]
pub(super) struct Buckets {
    bounds: &'static [f64],
    slots: Box<[Slot]>,
}

impl Buckets {
    /// Slots for the given bounds and for what lies beyond the last.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            slots: (0..=bounds.len()).map(|_| Slot::default()).collect(),
        }
    }

    /// The slot of the bucket that a value falls in; of a bucket, by its bound.
    pub(super) fn slot(&self, value: f64) -> &Slot {
        &self.slots[self.bounds.partition_point(|bound| *bound < value)]
    }
}

/// A histogram that keeps an exemplar a bucket.
pub(super) struct Histogram {
    pub(super) inner: ::metrics::Histogram,
    pub(super) buckets: Arc<Buckets>,
}

impl ::metrics::HistogramFn for Histogram {
    fn record(&self, value: f64) {
        self.inner.record(value);
        self.buckets.slot(value).note(value);
    }
}
