//! Events into lines.

use super::{json, pretty, writer::Writer};
use crate::{
    ServiceInfo,
    context::Request,
    metrics::{CounterHandle, own::LOG_EVENTS},
    settings::Field,
};
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use std::{cell::Cell, sync::OnceLock, time::SystemTime};
use tracing::{Event, Level, Subscriber};
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

/// Which of the optional fields a line has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) trace_id: bool,
    pub(super) span_id: bool,
    pub(super) request_id: bool,
    pub(super) tenant: bool,
    pub(super) source: bool,
    pub(super) thread: bool,
}

impl Fields {
    pub(super) fn of(listed: &[Field]) -> Self {
        let has = |field| listed.contains(&field);
        Self {
            trace_id: has(Field::TraceId),
            span_id: has(Field::SpanId),
            request_id: has(Field::RequestId),
            tenant: has(Field::Tenant),
            source: has(Field::Source),
            thread: has(Field::Thread),
        }
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
}

/// What goes into a line.
pub(super) struct About<'a> {
    pub(super) now: SystemTime,
    pub(super) origin: Origin,
    pub(super) fields: Fields,
    pub(super) event: &'a Event<'a>,
}

impl About<'_> {
    /// The tenant, if it is known and wanted.
    pub(super) fn tenant(&self) -> Option<&str> {
        let request = self.origin.request.as_ref().filter(|_| self.fields.tenant)?;
        request.tenant().map(|tenant| &**tenant)
    }

    /// The code's file and line, if they are wanted.
    pub(super) fn source(&self) -> Option<(&'static str, u32)> {
        let metadata = self.event.metadata();
        self.fields
            .source
            .then(|| metadata.file().zip(metadata.line()))
            .flatten()
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
    fields: Fields,
    writer: Writer,
    events: [OnceLock<CounterHandle>; 5],
}

impl Lines {
    pub(super) fn new(shape: Shape, fields: Fields, writer: Writer) -> Self {
        Self {
            shape,
            fields,
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

    fn format(&self, buffers: &mut Buffers, event: &Event<'_>) {
        let about = About {
            now: SystemTime::now(),
            origin: Origin::current(),
            fields: self.fields,
            event,
        };
        match &self.shape {
            Shape::Json(constant) => json::format(buffers, constant, &about),
            Shape::Pretty { colour } => pretty::format(buffers, *colour, &about),
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.count(event.metadata().level());
        let mut buffers = BUFFERS.take().unwrap_or_default();
        buffers.line.clear();
        buffers.message.clear();
        buffers.fields.clear();
        self.format(&mut buffers, event);
        self.writer.write(&buffers.line);
        BUFFERS.set(Some(buffers));
    }
}
