//! W3C trace context, as a client writes it.

use uuid::Uuid;

/// A trace that a client starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// The client's own span, 16 hexadecimal digits.
    pub span_id: String,
}

impl Trace {
    /// A new one.
    pub fn start() -> Self {
        let text = |uuid: Uuid| uuid.simple().to_string();
        // The random end of a UUIDv7: its beginning is the time, the same for all of a moment.
        Self {
            trace_id: text(Uuid::now_v7()),
            span_id: text(Uuid::now_v7())[16..].to_owned(),
        }
    }

    /// The `traceparent` header, sampled.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }
}
