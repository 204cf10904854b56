//! Log lines: one JSON object each, or for people to read; written by a thread of their own.
//!
//! Their ids come from the request's context, so no `tracing` span is needed for them. The level can be changed while
//! the service runs, and a single request can log at debug level.

pub(crate) mod debug;
mod filter;
mod json;
mod layer;
mod pretty;
mod timestamp;
mod writer;

use crate::{ServiceInfo, settings, traces::Traces};
use anyhow::Context as _;
use filter::{Directives, Events, Spans};
use layer::{Fields, Lines, Shape};
use settings::{Format, Output};
use std::{
    io::{IsTerminal, Write},
    sync::Arc,
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt};
use writer::{Guard, Writer};

pub use filter::InvalidDirective;

/// Running logs: writes what still waits when dropped.
#[derive(Debug)]
pub struct Logs {
    directives: Arc<Directives>,
    _writes: Guard,
}

impl Logs {
    /// What is logged: a level or directives, as they were given.
    #[must_use]
    pub fn level(&self) -> String {
        self.directives.text()
    }

    /// Changes what is logged, at once.
    ///
    /// # Errors
    /// [`InvalidDirective`] when these are neither a level nor directives; then nothing changes.
    pub fn set_level(&self, directives: &str) -> Result<(), InvalidDirective> {
        self.directives.set(directives)
    }
}

/// Whether a text is a level or directives.
pub(crate) fn is_level(text: &str) -> bool {
    Directives::new(text).is_ok()
}

/// Starts logging, for the whole process; spans that are begun with the `tracing` crate go to `traces`.
///
/// # Errors
/// When the level is none, the file cannot be opened, or the process logs already.
pub fn init_subscriber(
    info: &ServiceInfo,
    environment: &str,
    settings: &settings::Logging,
    traces: &Traces,
) -> anyhow::Result<Logs> {
    let directives = Directives::new(&settings.level).context("monitoring.logging.level")?;
    let (output, terminal) = open(&settings.output)?;
    let (writer, guard) = Writer::new(output).context("a thread for the log lines")?;
    let shape = match settings.format {
        Format::Pretty => Shape::Pretty { colour: terminal },
        Format::Auto if terminal => Shape::Pretty { colour: true },
        Format::Json | Format::Auto => Shape::json(info, environment),
    };
    let subscriber = subscriber(
        directives.clone(),
        Lines::new(shape, Fields::of(&settings.fields), writer),
        traces.tracer(),
    );
    tracing::subscriber::set_global_default(subscriber).context("the process logs already")?;
    Ok(Logs {
        directives,
        _writes: guard,
    })
}

/// The two halves have filters of their own: a WARN level must not take the spans away.
fn subscriber(
    directives: Arc<Directives>,
    lines: Lines,
    tracer: opentelemetry_sdk::trace::SdkTracer,
) -> impl Subscriber + Send + Sync {
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    Registry::default()
        .with(lines.with_filter(Events(directives)))
        .with(spans.with_filter(Spans))
}

/// Where the lines go, and whether a person reads them there.
fn open(output: &Output) -> anyhow::Result<(Box<dyn Write + Send>, bool)> {
    Ok(match output {
        Output::Stdout => (Box::new(std::io::stdout()), std::io::stdout().is_terminal()),
        Output::Stderr => (Box::new(std::io::stderr()), std::io::stderr().is_terminal()),
        Output::File(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let file = file.with_context(|| format!("monitoring.logging.output: {}", path.display()))?;
            (Box::new(file), false)
        }
    })
}

#[cfg(test)]
pub(crate) mod tests;
