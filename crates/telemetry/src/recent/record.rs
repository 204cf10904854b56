//! A request that is over.

use super::work::Child;
use crate::context::RequestId;
use chrono::{DateTime, SecondsFormat, Utc};
use opentelemetry::trace::TraceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The way a request comes into a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// Over HTTP. A streamed response is timed to its headers, as in the metrics.
    Http,
    /// From another of our services. Timed to the end of the response.
    Grpc,
    /// As an MCP message.
    Mcp,
    /// From the queue.
    Execution,
}

impl Entry {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Mcp => "mcp",
            Self::Execution => "execution",
        }
    }
}

/// Why a request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It took as long as the setting says, or longer.
    Slow,
    /// The service was at fault: a 5xx, a gRPC code that says so, an internal MCP error, an execution that failed.
    Failed,
    /// Somebody had it debugged.
    Debug,
}

impl Reason {
    /// All of them, in the order of their rings.
    pub const ALL: [Self; 3] = [Self::Slow, Self::Failed, Self::Debug];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::Debug => "debug",
        }
    }
}

/// What is known of a request that is over.
#[derive(Clone, Debug)]
pub struct Record {
    /// In the order in which they were kept.
    pub(super) number: u64,
    /// The request's id, the same in all services.
    pub request_id: RequestId,
    /// Its trace.
    pub trace_id: TraceId,
    /// Whether its spans were made.
    pub sampled: bool,
    /// The way it came in.
    pub kind: Entry,
    /// What it was.
    pub name: Cow<'static, str>,
    /// How it ended.
    pub status: Cow<'static, str>,
    /// When it arrived.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Whose it was.
    pub tenant: Option<Arc<str>>,
    /// The id of the key that it was made with.
    pub key_id: Option<Arc<str>>,
    /// Why it is kept.
    pub reasons: Vec<Reason>,
    /// What was done for it, in the order in which that began.
    pub children: Vec<Child>,
    /// How many children more there were.
    pub children_dropped: u32,
}

impl Record {
    /// A record of a request that took no time and for which nothing was done, to be filled; for tests of who shows them.
    #[must_use]
    pub fn sample(request_id: RequestId, kind: Entry, name: &'static str) -> Self {
        Self {
            number: 0,
            request_id,
            trace_id: TraceId::INVALID,
            sampled: false,
            kind,
            name: name.into(),
            status: "200".into(),
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            tenant: None,
            key_id: None,
            reasons: Vec::new(),
            children: Vec::new(),
            children_dropped: 0,
        }
    }

    /// Whether it is the request, or of the trace, of that id.
    #[must_use]
    pub fn is(&self, id: &str) -> bool {
        self.request_id.as_str() == id
            || (id.len() == 32 && TraceId::from_hex(id).is_ok_and(|id| id == self.trace_id))
    }

    /// How much of its time no child accounts for: the service's own work, and waiting for what is not measured. Children
    /// that ran at the same time count once.
    #[must_use]
    pub fn own_time(&self) -> Duration {
        let (mut own, mut until) = (Duration::ZERO, Duration::ZERO);
        for child in &self.children {
            own += child.offset.min(self.duration).saturating_sub(until);
            until = until.max(child.offset + child.took);
        }
        own + self.duration.saturating_sub(until)
    }

    /// As JSON: times in milliseconds, offsets after the request's arrival.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let children: Vec<_> = self.children.iter().map(child).collect();
        json!({
            "request_id": self.request_id.as_str(),
            "trace_id": self.trace_id.to_string(),
            "sampled": self.sampled,
            "kind": self.kind,
            "name": self.name,
            "status": self.status,
            "started": rfc3339(self.started),
            "duration_ms": millis(self.duration),
            "own_ms": millis(self.own_time()),
            "tenant": self.tenant.as_deref(),
            "key_id": self.key_id.as_deref(),
            "reasons": self.reasons,
            "children": children,
            "children_dropped": self.children_dropped,
        })
    }
}

fn child(child: &Child) -> Value {
    json!({
        "kind": child.kind,
        "name": child.name,
        "offset_ms": millis(child.offset),
        "duration_ms": millis(child.took),
        "failed": child.failed,
    })
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}
