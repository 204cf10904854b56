//! One call, from its start to its status.

use crate::{
    metrics::{
        CounterHandle, HistogramHandle,
        own::{
            GRPC_CLIENT_REQUEST_DURATION, GRPC_CLIENT_REQUESTS, GRPC_SERVER_REQUEST_DURATION,
            GRPC_SERVER_REQUESTS,
        },
    },
    recent::{self, Description, Entry, Kind},
    span::Open,
};
use http::HeaderMap;
use parking_lot::RwLock;
use std::{collections::HashMap, sync::Arc, time::Instant};
use tonic::Code;

/// Which end of a call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    /// Calling that service.
    Client(&'static str),
}

/// The method of calls that no service has: their paths are the client's to choose.
const UNMATCHED: &str = "unmatched";

/// The codes' names, as in the gRPC specification, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) fn code_name(code: Code) -> &'static str {
    CODES.get(code as usize).copied().unwrap_or("UNKNOWN")
}

/// The status in headers or trailers, if it is there.
pub(super) fn status(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}

#[derive(Clone, Debug)]
struct Handles {
    requests: CounterHandle,
    duration: HistogramHandle,
}

/// Handles to the series of one layer. Methods are those that services have, so they are bounded.
#[derive(Debug)]
pub(super) struct Series {
    side: Side,
    handles: RwLock<HashMap<String, HashMap<&'static str, Handles>>>,
}

impl Series {
    pub(super) fn new(side: Side) -> Arc<Self> {
        Arc::new(Self {
            side,
            handles: RwLock::default(),
        })
    }

    fn handles(&self, method: &str, code: &'static str) -> Handles {
        let known = self
            .handles
            .read()
            .get(method)
            .and_then(|codes| codes.get(code))
            .cloned();
        known.unwrap_or_else(|| {
            let handles = match self.side {
                Side::Server => Handles {
                    requests: GRPC_SERVER_REQUESTS.with([method, code]),
                    duration: GRPC_SERVER_REQUEST_DURATION.with([method, code]),
                },
                Side::Client(peer) => Handles {
                    requests: GRPC_CLIENT_REQUESTS.with([peer, method, code]),
                    duration: GRPC_CLIENT_REQUEST_DURATION.with([peer, method, code]),
                },
            };
            self.handles
                .write()
                .entry(method.to_owned())
                .or_default()
                .insert(code, handles.clone());
            handles
        })
    }
}

/// A call in flight. Dropped before its status is known, it was cancelled.
#[derive(Debug)]
pub(super) struct Call {
    series: Arc<Series>,
    method: String,
    started: Instant,
    open: Option<Open>,
}

impl Call {
    /// `method` without the leading slash: `package.Service/Method`.
    pub(super) fn new(series: &Arc<Series>, method: String, open: Open) -> Self {
        Self {
            series: series.clone(),
            method,
            started: Instant::now(),
            open: Some(open),
        }
    }

    pub(super) fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// Notes how the call ended, once.
    pub(super) fn finish(&mut self, code: Code) {
        let Some(open) = self.open.take() else { return };
        let took = self.started.elapsed();
        let name = code_name(code);
        // Exemplars and the log line take their ids from the context.
        let _call = open.context().clone().attach();
        let unknown = self.series.side == Side::Server && code == Code::Unimplemented;
        let handles = self
            .series
            .handles(if unknown { UNMATCHED } else { &self.method }, name);
        handles.requests.inc();
        handles.duration.record(took);
        open.set("rpc.response.status_code", name);
        let failed = self.is_error(code);
        if failed {
            open.fail(name);
        }
        if self.series.side == Side::Server {
            // What nobody has is its caller's mistake: kept, it would push out what says something.
            recent::finished(open.context(), failed && !unknown, || Description {
                kind: Entry::Grpc,
                name: if unknown { UNMATCHED } else { &self.method }.to_owned(),
                status: name.into(),
                key_id: None,
            });
            let duration_ms = took.as_micros() as f64 / 1000.0;
            tracing::debug!(target: "access", method = self.method, status = name, duration_ms, "rpc");
        } else {
            let method = std::mem::take(&mut self.method);
            recent::child(Kind::Grpc, method, self.started, took, failed);
        }
    }

    /// A server's span has failed only when the server is at fault; the client's when it got no answer.
    fn is_error(&self, code: Code) -> bool {
        match self.series.side {
            Side::Client(_) => code != Code::Ok,
            Side::Server => matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}
