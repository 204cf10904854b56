//! The batch processor and the exporter, with their losses counted.

use crate::metrics::own::SPANS_DROPPED;
use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfig, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How often a failure that lasts is logged, at most.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A batch processor whose queue is bounded here, where the loss can be counted; its own is then never full.
#[derive(Debug)]
pub(super) struct Bounded {
    batch: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    complaint: Seldom,
}

impl Bounded {
    pub(super) fn new<E: SpanExporter + 'static>(
        exporter: Counting<E>,
        config: BatchConfig,
        capacity: usize,
    ) -> Self {
        let waiting = exporter.waiting.clone();
        Self {
            batch: BatchSpanProcessor::new(exporter, config),
            waiting,
            capacity,
            complaint: Seldom::default(),
        }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.batch.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.capacity {
            return self.batch.on_end(span);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        SPANS_DROPPED.inc(["queue_full"]);
        if self.complaint.is_due() {
            tracing::warn!(
                capacity = self.capacity,
                "spans are dropped: they end faster than they can be sent"
            );
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batch.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batch.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batch.set_resource(resource);
    }
}

/// An exporter that counts what it could not send.
#[derive(Debug)]
pub(super) struct Counting<E> {
    inner: E,
    waiting: Arc<AtomicUsize>,
    complaint: Seldom,
}

impl<E> Counting<E> {
    pub(super) fn new(inner: E) -> Self {
        Self {
            inner,
            waiting: Arc::default(),
            complaint: Seldom::default(),
        }
    }
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let result = self.inner.export(batch).await;
        if let Err(error) = &result {
            SPANS_DROPPED.add(count as u64, ["export_failed"]);
            if self.complaint.is_due() {
                tracing::warn!(%error, count, "spans could not be sent and are lost");
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// True once a minute at most.
#[derive(Debug, Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::{
        error::OTelSdkError,
        trace::{BatchConfigBuilder, SdkTracerProvider},
    };
    use std::sync::atomic::AtomicBool;

    #[derive(Debug, Clone, Default)]
    struct Collector {
        got: Arc<AtomicUsize>,
        down: Arc<AtomicBool>,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if self.down.load(Ordering::Relaxed) {
                return Err(OTelSdkError::InternalFailure("down".to_owned()));
            }
            self.got.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_drops_spans_and_empties_again() {
        let collector = Collector::default();
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(8)
            .with_max_export_batch_size(8)
            .with_scheduled_delay(Duration::from_secs(3600))
            .build();
        let processor = Bounded::new(Counting::new(collector.clone()), config, 4);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .build();
        let tracer = provider.tracer("test");
        for _ in 0..6 {
            tracer.start("x");
        }
        provider.force_flush().unwrap();
        assert_eq!(collector.got.load(Ordering::Relaxed), 4, "two did not fit");
        collector.down.store(true, Ordering::Relaxed);
        tracer.start("lost");
        assert!(provider.force_flush().is_err());
        collector.down.store(false, Ordering::Relaxed);
        for _ in 0..4 {
            tracer.start("y");
        }
        provider.force_flush().unwrap();
        assert_eq!(
            collector.got.load(Ordering::Relaxed),
            8,
            "there is room for four again"
        );
    }

    #[test]
    fn a_complaint_is_not_repeated() {
        let seldom = Seldom::default();
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
    }
}
