//! The `monitoring:` section of a service's settings.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What a service logs, traces and measures, and where that goes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Log lines.
    pub logging: Logging,
    /// Spans.
    pub tracing: Tracing,
    /// Metrics.
    pub metrics: Metrics,
    /// The last slow, failed and debugged requests, kept in memory.
    pub recent_requests: RecentRequests,
    /// Profiles of memory and CPU.
    pub profiling: Profiling,
    /// Tasks of the runtime.
    pub tasks: Tasks,
    /// Directories whose free space is measured, by name, beside those that the service knows itself (`logs`,
    /// `database`).
    pub data_directories: BTreeMap<String, PathBuf>,
}

/// What is logged, how and where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// A level (`info`) or directives as in `RUST_LOG` (`info,sqlx=warn`). What no directive names is logged at info.
    pub level: String,
    /// The shape of a line.
    pub format: Format,
    /// Where lines go.
    pub output: Output,
    /// Which fields a line holds beside its time, level, target, message and the event's own.
    pub fields: Vec<Field>,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Auto,
            output: Output::Stdout,
            fields: Field::DEFAULT.to_vec(),
        }
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people to read.
    Pretty,
    /// `pretty` on a terminal, otherwise `json`.
    Auto,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

impl From<String> for Output {
    fn from(output: String) -> Self {
        match output.as_str() {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            _ => Self::File(output.into()),
        }
    }
}

impl From<Output> for String {
    fn from(output: Output) -> Self {
        match output {
            Output::Stdout => "stdout".to_owned(),
            Output::Stderr => "stderr".to_owned(),
            Output::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// A field of log lines. JSON lines hold the first six in any case, for whoever collects them relies on them; lines for
/// people never hold the first three. The others stand in either when they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The service's name.
    Service,
    /// The service's version.
    Version,
    /// Where it is deployed.
    Environment,
    /// The trace the line belongs to.
    TraceId,
    /// The span the line was written in.
    SpanId,
    /// The request the line belongs to.
    RequestId,
    /// The tenant whose request it is.
    Tenant,
    /// The file and line of the code that wrote it.
    Source,
    /// The thread that wrote it.
    Thread,
}

impl Field {
    /// Those that stand in a line when the settings don't say.
    pub const DEFAULT: [Self; 7] = [
        Self::Service,
        Self::Version,
        Self::Environment,
        Self::TraceId,
        Self::SpanId,
        Self::RequestId,
        Self::Tenant,
    ];
}

/// Which spans are made and where they are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// Whether spans are made at all. Requests have trace ids in any case.
    pub enabled: bool,
    /// The OTLP/gRPC endpoint, for example `http://localhost:4317`. Without it,
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`; without these nothing is sent.
    pub endpoint: Option<String>,
    /// The share of traces started here that is sampled, 0 to 1.
    pub sample_ratio: f64,
    /// How many ended spans may wait to be sent; beyond it they are dropped, and counted.
    pub queue_size: usize,
    /// How many spans are sent at once, at most.
    pub batch_size: usize,
    /// How long an ended span waits for a batch to fill, in milliseconds.
    pub export_interval_ms: u64,
    /// Where people look at traces: Jaeger's pages (`http://localhost:16686`). Without it, traces are not linked to.
    pub ui_url: Option<String>,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: None,
            sample_ratio: 1.0,
            queue_size: 2048,
            batch_size: 512,
            export_interval_ms: 1000,
            ui_url: None,
        }
    }
}

/// How much is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Whether anything is measured. When not, `/metrics` is empty.
    pub enabled: bool,
    /// How many series one metric may have; what would need another one is not recorded, and counted.
    pub max_series_per_metric: usize,
    /// How many values of each label that clients can choose (`tenant_id`, `tool`, `type`) are told apart; the
    /// rest is `other`.
    pub max_label_values: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: true,
            max_series_per_metric: 2000,
            max_label_values: 200,
        }
    }
}

/// What is kept of requests that were slow, failed or were debugged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecentRequests {
    /// Whether anything is kept.
    pub enabled: bool,
    /// How many requests of each kind (slow, failed, debugged) are kept.
    pub capacity: usize,
    /// From which duration on a request is slow, in milliseconds.
    pub slow_ms: u64,
}

impl Default for RecentRequests {
    fn default() -> Self {
        Self {
            enabled: true,
            capacity: 64,
            slow_ms: 500,
        }
    }
}

/// What profiles cost while nobody asks for one, and at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profiling {
    /// Whether allocations are sampled from the start: a leak can only be found among those that were. Reading and
    /// writing JSON, which does little else than allocate, takes 5 % more CPU time with it (the bench `profiles`).
    pub heap: bool,
    /// One allocation is sampled every so many bytes; rounded up to a power of two. Four times as many save 1 % of the
    /// 5 %, and show a quarter.
    pub heap_sample_bytes: u64,
    /// The longest CPU profile that may be asked for, in seconds.
    pub max_seconds: u64,
}

impl Default for Profiling {
    fn default() -> Self {
        Self {
            heap: true,
            heap_sample_bytes: 512 << 10,
            max_seconds: 120,
        }
    }
}

/// What is known about the runtime's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tasks {
    /// Whether tasks are tracked.
    pub enabled: bool,
    /// From which duration on one poll of a task, or of a request, blocks the runtime, in milliseconds.
    pub long_poll_ms: u64,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            enabled: true,
            long_poll_ms: 100,
        }
    }
}

/// A value that no deserialiser can refuse by its type alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}")]
pub struct Invalid {
    /// The key, from `monitoring` down.
    pub key: &'static str,
    /// What would have been right.
    pub expected: &'static str,
}

impl Settings {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Invalid`] names the first key whose value cannot be.
    pub fn validate(&self) -> Result<(), Invalid> {
        check(
            crate::logs::is_level(&self.logging.level),
            "monitoring.logging.level",
            "off, error, warn, info, debug or trace, alone or for a part of the program: info,sqlx=warn",
        )?;
        self.tracing.validate()?;
        self.metrics.validate()?;
        self.validate_debugging()
    }

    fn validate_debugging(&self) -> Result<(), Invalid> {
        check(
            (1..=10_000).contains(&self.recent_requests.capacity),
            "monitoring.recent_requests.capacity",
            "1 to 10000",
        )?;
        check(
            (1 << 12..=1 << 40).contains(&self.profiling.heap_sample_bytes),
            "monitoring.profiling.heap_sample_bytes",
            "4096 (4 KiB) to 1099511627776 (1 TiB)",
        )?;
        check(
            (1..=600).contains(&self.profiling.max_seconds),
            "monitoring.profiling.max_seconds",
            "1 to 600",
        )?;
        check(
            self.tasks.long_poll_ms > 0,
            "monitoring.tasks.long_poll_ms",
            "at least 1",
        )
    }
}

impl Tracing {
    fn validate(&self) -> Result<(), Invalid> {
        check(
            (0.0..=1.0).contains(&self.sample_ratio),
            "monitoring.tracing.sample_ratio",
            "a number from 0 to 1",
        )?;
        check(self.queue_size > 0, "monitoring.tracing.queue_size", "at least 1")?;
        check(
            (1..=self.queue_size).contains(&self.batch_size),
            "monitoring.tracing.batch_size",
            "at least 1 and at most monitoring.tracing.queue_size",
        )?;
        check(
            self.export_interval_ms > 0,
            "monitoring.tracing.export_interval_ms",
            "at least 1",
        )?;
        let is_page = |url: &String| {
            let host = url.strip_prefix("http://").or(url.strip_prefix("https://"));
            host.is_some_and(|host| !host.is_empty())
                && url.parse::<http::Uri>().is_ok_and(|url| url.query().is_none())
        };
        check(
            self.ui_url.as_ref().is_none_or(is_page),
            "monitoring.tracing.ui_url",
            "where a browser finds Jaeger: http://localhost:16686",
        )
    }
}

impl Metrics {
    fn validate(&self) -> Result<(), Invalid> {
        check(
            self.max_series_per_metric > 0,
            "monitoring.metrics.max_series_per_metric",
            "at least 1",
        )?;
        check(
            self.max_label_values > 0,
            "monitoring.metrics.max_label_values",
            "at least 1",
        )
    }
}

fn check(ok: bool, key: &'static str, expected: &'static str) -> Result<(), Invalid> {
    if ok {
        Ok(())
    } else {
        Err(Invalid { key, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_section_is_read_and_defaults_fill_the_rest() {
        let section = serde_json::json!({ "logging": {
            "level": "info", "format": "json", "output": "stdout",
            "fields": ["service", "version", "environment", "trace_id"],
        }});
        let settings: Settings = serde_json::from_value(section).unwrap();
        assert_eq!(settings.logging.format, Format::Json);
        assert_eq!(settings.logging.fields.len(), 4);
        assert_eq!(settings.metrics, Metrics::default());
        settings.validate().unwrap();
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        let unknown = serde_json::json!({ "tracing": { "sampling": 1 } });
        assert!(serde_json::from_value::<Settings>(unknown).is_err());
        let mut settings = Settings::default();
        settings.logging.level = "loud".into();
        assert_eq!(settings.validate().unwrap_err().key, "monitoring.logging.level");
        settings.logging.level = "info,sqlx=warn".into();
        settings.tracing.sample_ratio = 1.5;
        assert_eq!(
            settings.validate().unwrap_err().key,
            "monitoring.tracing.sample_ratio"
        );
        settings.tracing.sample_ratio = 1.0;
        settings.tracing.ui_url = Some("http://localhost:16686/jaeger".into());
        settings.validate().unwrap();
        for bad in ["localhost:16686", "javascript:alert(1)", "http://", "http://a b/"] {
            settings.tracing.ui_url = Some(bad.into());
            let refused = settings.validate().unwrap_err();
            assert_eq!(refused.key, "monitoring.tracing.ui_url", "{bad}");
        }
    }

    #[test]
    fn an_output_survives_a_round_trip() {
        for output in [
            Output::Stdout,
            Output::Stderr,
            Output::File("/var/log/x.log".into()),
        ] {
            let json = serde_json::to_value(&output).unwrap();
            assert_eq!(serde_json::from_value::<Output>(json).unwrap(), output);
        }
    }
}
