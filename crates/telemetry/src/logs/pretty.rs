//! A line for people to read.

use super::{
    json::chain,
    layer::{Buffers, Origin},
    timestamp,
};
use std::{fmt, io::Write, time::SystemTime};
use tracing::{
    Event, Level, Metadata,
    field::{Field, Visit},
};

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

pub(super) fn format(
    buffers: &mut Buffers,
    now: SystemTime,
    colour: bool,
    metadata: &Metadata<'_>,
    origin: &Origin,
    event: &Event<'_>,
) {
    let Buffers {
        line,
        message,
        fields,
    } = buffers;
    event.record(&mut Words { message, fields });
    let (dim, reset) = if colour { (DIM, RESET) } else { ("", "") };
    let level = if colour {
        level_colour(*metadata.level())
    } else {
        ""
    };
    line.extend_from_slice(dim.as_bytes());
    timestamp::push(line, now);
    let _ = write!(
        line,
        "{reset} {level}{:>5}{reset} {dim}{}{reset} ",
        metadata.level(),
        metadata.target()
    );
    line.extend_from_slice(message);
    line.extend_from_slice(fields);
    if let Some(request) = &origin.request {
        let _ = write!(
            line,
            " {dim}request_id={} trace_id={}{reset}",
            request.id(),
            origin.trace_id
        );
    }
    if let Some(tenant) = origin.tenant() {
        let _ = write!(line, " {dim}tenant={tenant}{reset}");
    }
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
