//! Spans caught in memory. The provider is the process's own, as in a service, so that tests share it: a test asks for
//! the spans of its own trace. Its head ratio is 0: only what is trusted, or forced, is sampled.

use crate::sampling;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use parking_lot::Mutex;
use std::sync::{Arc, LazyLock};

#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Memory {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

static PROVIDER: LazyLock<(SdkTracerProvider, Memory)> = LazyLock::new(|| {
    let memory = Memory::default();
    let provider = SdkTracerProvider::builder()
        .with_id_generator(sampling::Ids::default())
        .with_sampler(sampling::Sampler::new(0.0))
        .with_simple_exporter(memory.clone())
        .build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    (provider, memory)
});

pub(crate) fn tracer() -> SdkTracer {
    PROVIDER.0.tracer("test")
}

/// The ended spans of a trace, in the order in which they ended.
pub(crate) fn spans(trace_id: &str) -> Vec<SpanData> {
    let spans = PROVIDER.1.0.lock();
    spans
        .iter()
        .filter(|span| span.span_context.trace_id().to_string() == trace_id)
        .cloned()
        .collect()
}

/// Lets the runtime's other tasks end what they are at. By turns rather than by time: a machine that was busy for long
/// may find a long sleep over before it has given them one.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
