//! Spans on their way to the collector: OTLP over gRPC, in batches, from a thread of their own.
//!
//! Ending a span never waits: what finds the queue full is dropped, and counted like what could not be sent.

mod export;
#[cfg(test)]
pub(crate) mod testing;

use crate::{ServiceInfo, sampling, settings};
use anyhow::Context as _;
use export::{Bounded, Counting};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, Sampler as Builtin, SdkTracer, SdkTracerProvider},
};
use std::{env, time::Duration};

/// How long one batch may take to be sent.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last batches may take. Shorter than what [`Telemetry::shutdown`](crate::Telemetry::shutdown) waits.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// The variables that name a collector where the settings name none, the more special one first.
const ENDPOINT_VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// What makes the process's spans.
#[derive(Clone, Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

/// Starts tracing, for the whole process. Without a collector to send to, nothing is sampled: requests then have ids
/// only.
///
/// # Errors
/// When the endpoint is none, or outside of a Tokio runtime (when there is an endpoint).
pub fn init(info: &ServiceInfo, environment: &str, settings: &settings::Tracing) -> anyhow::Result<Traces> {
    let builder = SdkTracerProvider::builder()
        .with_id_generator(sampling::Ids::default())
        .with_resource(resource(info, environment));
    let provider = match endpoint(settings) {
        Some(endpoint) => builder
            .with_sampler(sampling::Sampler::new(settings.sample_ratio))
            .with_span_processor(processor(&endpoint, settings)?)
            .build(),
        None => builder.with_sampler(Builtin::AlwaysOff).build(),
    };
    opentelemetry::global::set_tracer_provider(provider.clone());
    Ok(Traces { provider })
}

impl Traces {
    /// Makes spans that were begun with the `tracing` crate.
    #[must_use]
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer(env!("CARGO_PKG_NAME"))
    }

    /// Sends what still waits, in bounded time. Later spans are lost.
    pub async fn shutdown(&self) {
        let provider = self.provider.clone();
        // It blocks its thread while the exporter needs this runtime's.
        let sent =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The collector to send to, if any.
fn endpoint(settings: &settings::Tracing) -> Option<String> {
    let disabled = env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if !settings.enabled || disabled {
        return None;
    }
    let named = |text: &String| !text.is_empty();
    let from_environment = || {
        ENDPOINT_VARIABLES
            .iter()
            .filter_map(|name| env::var(name).ok())
            .find(named)
    };
    settings.endpoint.clone().filter(named).or_else(from_environment)
}

fn processor(endpoint: &str, settings: &settings::Tracing) -> anyhow::Result<Bounded> {
    tokio::runtime::Handle::try_current().context("spans are sent from inside a Tokio runtime")?;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .with_context(|| format!("monitoring.tracing.endpoint: {endpoint:?} is no OTLP/gRPC endpoint"))?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue_size)
        .with_max_export_batch_size(settings.batch_size)
        .with_scheduled_delay(Duration::from_millis(settings.export_interval_ms))
        .build();
    Ok(Bounded::new(Counting::new(exporter), config, settings.queue_size))
}

/// Who sends the spans: what `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` say, over what the service says.
fn resource(info: &ServiceInfo, environment: &str) -> Resource {
    let detected = Resource::builder().build();
    let own = [
        KeyValue::new("service.version", info.version),
        KeyValue::new("deployment.environment.name", environment.to_owned()),
    ];
    let attributes = own.into_iter().filter(|own| detected.get(&own.key).is_none());
    let builder = Resource::builder().with_attributes(attributes);
    let is_named = env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|list| list.contains("service.name="));
    if is_named {
        builder.build()
    } else {
        builder.with_service_name(info.name).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::Key;

    #[test]
    fn the_resource_names_service_version_and_environment() {
        let resource = resource(
            &ServiceInfo {
                name: "rest-api",
                version: "1.2.3",
            },
            "staging",
        );
        let value = |key| resource.get(&Key::new(key)).map(|value| value.to_string());
        assert_eq!(value("service.name").as_deref(), Some("rest-api"));
        assert_eq!(value("service.version").as_deref(), Some("1.2.3"));
        assert_eq!(value("deployment.environment.name").as_deref(), Some("staging"));
    }

    #[test]
    fn nothing_is_sent_unless_somewhere_is_named() {
        let named = settings::Tracing {
            endpoint: Some("http://c:4317".to_owned()),
            ..Default::default()
        };
        assert_eq!(endpoint(&named).as_deref(), Some("http://c:4317"));
        assert_eq!(
            endpoint(&settings::Tracing {
                enabled: false,
                ..named
            }),
            None
        );
    }
}
