//! Events into lines.

use super::{json, pretty, writer::Writer};
use crate::{
    ServiceInfo,
    context::Request,
    metrics::{CounterHandle, own::LOG_EVENTS},
};
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use std::{
    cell::Cell,
    sync::{Arc, OnceLock},
    time::SystemTime,
};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// How a line looks.
#[derive(Debug)]
pub(super) enum Shape {
    /// One JSON object; with the fields that are the same in every line, ready made.
    Json(Vec<u8>),
    Pretty {
        colour: bool,
    },
}

impl Shape {
    pub(super) fn json(info: &ServiceInfo, environment: &str) -> Self {
        Self::Json(json::constant_fields(info, environment))
    }
}

/// Whose line it is.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) request: Option<Request>,
}

impl Origin {
    pub(super) fn current() -> Self {
        opentelemetry::Context::map_current(|cx| {
            let span = cx.span();
            let ids = span.span_context();
            Self {
                trace_id: ids.trace_id(),
                span_id: ids.span_id(),
                request: cx.get::<Request>().cloned(),
            }
        })
    }

    pub(super) fn tenant(&self) -> Option<&Arc<str>> {
        self.request.as_ref().and_then(Request::tenant)
    }
}

/// Buffers of a thread, kept from line to line.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) line: Vec<u8>,
    pub(super) message: Vec<u8>,
    pub(super) fields: Vec<u8>,
}

thread_local! {
    // Taken while in use: to print a value may itself log.
    static BUFFERS: Cell<Option<Buffers>> = const { Cell::new(None) };
}

/// Writes a line for each event, and counts it.
#[derive(Debug)]
pub(super) struct Lines {
    shape: Shape,
    writer: Writer,
    events: [OnceLock<CounterHandle>; 5],
}

impl Lines {
    pub(super) fn new(shape: Shape, writer: Writer) -> Self {
        Self {
            shape,
            writer,
            events: Default::default(),
        }
    }

    fn count(&self, level: &Level) {
        let (index, name) = match *level {
            Level::ERROR => (0, "error"),
            Level::WARN => (1, "warn"),
            Level::INFO => (2, "info"),
            Level::DEBUG => (3, "debug"),
            Level::TRACE => (4, "trace"),
        };
        self.events[index].get_or_init(|| LOG_EVENTS.with([name])).inc();
    }

    fn format(&self, buffers: &mut Buffers, metadata: &Metadata<'_>, event: &Event<'_>) {
        let (now, origin) = (SystemTime::now(), Origin::current());
        match &self.shape {
            Shape::Json(constant) => json::format(buffers, now, constant, metadata, &origin, event),
            Shape::Pretty { colour } => pretty::format(buffers, now, *colour, metadata, &origin, event),
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        self.count(metadata.level());
        let mut buffers = BUFFERS.take().unwrap_or_default();
        buffers.line.clear();
        buffers.message.clear();
        buffers.fields.clear();
        self.format(&mut buffers, metadata, event);
        self.writer.write(&buffers.line);
        BUFFERS.set(Some(buffers));
    }
}
