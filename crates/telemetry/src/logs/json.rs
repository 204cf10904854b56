//! A line as one JSON object.

use super::{
    layer::{About, Buffers},
    timestamp,
};
use crate::ServiceInfo;
use opentelemetry::trace::TraceId;
use serde::Serialize;
use std::{
    fmt::{self, Write as _},
    thread,
};
use tracing::field::{Field, Visit};

/// What a line has by itself; an event's field of such a name gets a prefix, for a key must not stand twice.
const RESERVED: [&str; 13] = [
    "timestamp",
    "level",
    "service",
    "version",
    "environment",
    "target",
    "message",
    "trace_id",
    "span_id",
    "request_id",
    "tenant",
    "source",
    "thread",
];

/// The fields that are the same in every line of the process.
pub(super) fn constant_fields(info: &ServiceInfo, environment: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    member(&mut fields, "service", info.name);
    member(&mut fields, "version", info.version);
    member(&mut fields, "environment", environment);
    fields
}

pub(super) fn format(buffers: &mut Buffers, constant: &[u8], about: &About<'_>) {
    let Buffers {
        line,
        message,
        fields,
    } = buffers;
    let About { origin, event, .. } = about;
    event.record(&mut Members { message, fields });
    line.extend_from_slice(b"{\"timestamp\":\"");
    timestamp::push(line, about.now);
    line.push(b'"');
    member(line, "level", event.metadata().level().as_str());
    line.extend_from_slice(constant);
    member(line, "target", event.metadata().target());
    line.extend_from_slice(b",\"message\":");
    line.extend_from_slice(if message.is_empty() { b"\"\"" } else { message });
    if origin.trace_id != TraceId::INVALID {
        hex(line, "trace_id", &origin.trace_id.to_bytes());
        hex(line, "span_id", &origin.span_id.to_bytes());
    }
    if let Some(request) = &origin.request {
        member(line, "request_id", request.id().as_str());
    }
    if let Some(tenant) = about.tenant() {
        member(line, "tenant", tenant);
    }
    if let Some((file, number)) = about.source() {
        member(line, "source", &format!("{file}:{number}"));
    }
    if about.fields.thread {
        member(line, "thread", thread::current().name().unwrap_or_default());
    }
    line.extend_from_slice(fields);
    line.extend_from_slice(b"}\n");
}

/// `,"name":value`
fn member<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) {
    out.push(b',');
    push(out, name);
    out.push(b':');
    push(out, value);
}

fn push<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn hex(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.push(b'"');
}

/// Collects an event's fields, the message apart.
struct Members<'a> {
    message: &'a mut Vec<u8>,
    fields: &'a mut Vec<u8>,
}

impl Members<'_> {
    fn record<T: Serialize + ?Sized>(&mut self, field: &Field, value: &T) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        if name == "message" {
            self.message.clear();
            push(self.message, value);
        } else if RESERVED.contains(&name) {
            member(self.fields, &format!("event.{name}"), value);
        } else {
            member(self.fields, name, value);
        }
    }
}

impl Visit for Members<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record(field, &chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, &Printed(value));
    }
}

/// An error with its causes, from the last to the first: `read config: no such file`.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Serialises as text what can be printed, without a copy in between.
struct Printed<'a>(&'a dyn fmt::Debug);

impl Serialize for Printed<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}
