//! A line for people to read.

use super::{
    json::chain,
    layer::{About, Buffers},
    timestamp,
};
use opentelemetry::trace::{SpanId, TraceId};
use std::{fmt, io::Write, thread};
use tracing::{
    Level,
    field::{Field, Visit},
};

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

pub(super) fn format(buffers: &mut Buffers, colour: bool, about: &About<'_>) {
    let Buffers {
        line,
        message,
        fields,
    } = buffers;
    let About {
        origin,
        event,
        fields: wanted,
        ..
    } = about;
    event.record(&mut Words { message, fields });
    let (dim, reset) = if colour { (DIM, RESET) } else { ("", "") };
    let metadata = event.metadata();
    let level = if colour {
        level_colour(*metadata.level())
    } else {
        ""
    };
    line.extend_from_slice(dim.as_bytes());
    timestamp::push(line, about.now);
    let _ = write!(
        line,
        "{reset} {level}{:>5}{reset} {dim}{}{reset} ",
        metadata.level(),
        metadata.target()
    );
    line.extend_from_slice(message);
    line.extend_from_slice(fields);
    line.extend_from_slice(dim.as_bytes());
    if let Some(request) = origin.request.as_ref().filter(|_| wanted.request_id) {
        let _ = write!(line, " request_id={}", request.id());
    }
    if wanted.trace_id && origin.trace_id != TraceId::INVALID {
        let _ = write!(line, " trace_id={}", origin.trace_id);
    }
    if wanted.span_id && origin.span_id != SpanId::INVALID {
        let _ = write!(line, " span_id={}", origin.span_id);
    }
    if let Some(tenant) = about.tenant() {
        let _ = write!(line, " tenant={tenant}");
    }
    if let Some((file, number)) = about.source() {
        let _ = write!(line, " {file}:{number}");
    }
    if wanted.thread {
        let _ = write!(line, " thread={}", thread::current().name().unwrap_or_default());
    }
    line.extend_from_slice(reset.as_bytes());
    line.push(b'\n');
}

fn level_colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

struct Words<'a> {
    message: &'a mut Vec<u8>,
    fields: &'a mut Vec<u8>,
}

impl Words<'_> {
    fn record(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // What comes from outside must not move a terminal's cursor or start a line of its own.
        let text = value.to_string().replace(|c: char| c.is_control(), "\u{fffd}");
        let name = field.name();
        let _ = match name.strip_prefix("r#").unwrap_or(name) {
            "message" => self.message.write_all(text.as_bytes()),
            name => write!(self.fields, " {name}={text}"),
        };
    }
}

impl Visit for Words<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record(field, format_args!("{}", chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format_args!("{value:?}"));
    }
}
