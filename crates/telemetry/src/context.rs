//! What a request carries through a service: its id, its trace, its tenant, and whether it is being debugged.
//!
//! All of it travels in the OpenTelemetry [`Context`], which the layers attach while the request's future is polled.
//! Spawned tasks don't inherit it: wrap them with [`crate::span::in_context`].

use crate::{logs::debug::Live, metrics::own::DEBUG_REQUESTS, recent::Work};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use parking_lot::Mutex;
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

pub use opentelemetry::Context;

/// The id of one request, the same in every service that takes part in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The longest id that is taken from a caller, in bytes.
    pub const MAX_LEN: usize = 128;

    /// A new one: a UUIDv7.
    #[expect(clippy::new_without_default, reason = "two calls give two values")]
    #[must_use]
    pub fn new() -> Self {
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64);
        // The generator of trace ids is seeded once a thread; uuid's own asks the kernel each time.
        let random = RandomIdGenerator::default().new_trace_id().to_bytes();
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random[..10]);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut text)))
    }

    /// A caller's id, when it is well-formed: 1 to [`Self::MAX_LEN`] of `A-Z a-z 0-9 . _ -`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        ((1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(Arc::from(text)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who decides whether a request that enters the service is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Sampling {
    /// The caller, by its `sampled` flag; the head ratio where it sent no trace context.
    Caller,
    /// The head ratio alone: the caller isn't trusted with the flag.
    Head,
    /// Nobody: it is sampled.
    Forced,
}

/// What is known about the request in hand; shared by every clone of its [`Context`].
#[derive(Clone, Debug)]
pub(crate) struct Request(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: RequestId,
    trace_id: TraceId,
    started: Instant,
    tenant: OnceLock<Arc<str>>,
    key_id: OnceLock<Arc<str>>,
    sampling: AtomicU8,
    debug: OnceLock<Live>,
    /// Whoever sent it may not have it debugged, it turned out.
    debug_withdrawn: AtomicBool,
    /// It lasts as long as its caller likes: never slow.
    waits: AtomicBool,
    /// Something inside of it, that says more, is recorded in its place.
    claimed: AtomicBool,
    work: Mutex<Work>,
}

impl Request {
    /// A request of that id, in the trace of `remote`, or else in one of its own.
    pub(crate) fn new(id: RequestId, remote: Option<&SpanContext>, sampling: Sampling) -> Self {
        let trace_id = remote.map_or_else(
            || RandomIdGenerator::default().new_trace_id(),
            SpanContext::trace_id,
        );
        Self(Arc::new(Inner {
            id,
            trace_id,
            started: Instant::now(),
            tenant: OnceLock::new(),
            key_id: OnceLock::new(),
            sampling: AtomicU8::new(sampling as u8),
            debug: OnceLock::new(),
            debug_withdrawn: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            work: Mutex::default(),
        }))
    }

    pub(crate) fn id(&self) -> &RequestId {
        &self.0.id
    }

    /// The trace that the request belongs to, known before any span is made.
    pub(crate) fn trace_id(&self) -> TraceId {
        self.0.trace_id
    }

    /// When it arrived at this process.
    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    pub(crate) fn tenant(&self) -> Option<&Arc<str>> {
        self.0.tenant.get()
    }

    /// The first one stands: a request has one tenant.
    pub(crate) fn set_tenant(&self, tenant: Arc<str>) {
        let _ = self.0.tenant.set(tenant);
    }

    pub(crate) fn key_id(&self) -> Option<&Arc<str>> {
        self.0.key_id.get()
    }

    /// The first one stands.
    pub(crate) fn set_key_id(&self, key_id: Arc<str>) {
        let _ = self.0.key_id.set(key_id);
    }

    /// What was done for it so far.
    pub(crate) fn work(&self) -> &Mutex<Work> {
        &self.0.work
    }

    pub(crate) fn waits(&self) -> bool {
        self.0.waits.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waits(&self) {
        self.0.waits.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.0.claimed.load(Ordering::Relaxed)
    }

    pub(crate) fn claim(&self) {
        self.0.claimed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn sampling(&self) -> Sampling {
        match self.0.sampling.load(Ordering::Relaxed) {
            0 => Sampling::Caller,
            1 => Sampling::Head,
            _ => Sampling::Forced,
        }
    }

    pub(crate) fn set_sampling(&self, sampling: Sampling) {
        self.0.sampling.store(sampling as u8, Ordering::Relaxed);
    }

    /// From now on the request is sampled and logs at debug level, here and in the services it calls.
    pub(crate) fn set_debug(&self) {
        self.set_sampling(Sampling::Forced);
        self.0.debug.get_or_init(Live::new);
    }

    pub(crate) fn is_debug(&self) -> bool {
        self.0.debug.get().is_some() && !self.0.debug_withdrawn.load(Ordering::Relaxed)
    }

    fn withdraw_debug(&self) {
        self.0.debug_withdrawn.store(true, Ordering::Relaxed);
    }

    /// Does `f` with the request of the current context, if there is one.
    pub(crate) fn with_current<T>(f: impl FnOnce(&Self) -> T) -> Option<T> {
        Context::map_current(|cx| cx.get::<Self>().map(f))
    }
}

/// The context of the request in hand, to be handed to a spawned task.
#[must_use]
pub fn current() -> Context {
    Context::current()
}

/// The id of the request in hand.
#[must_use]
pub fn current_request_id() -> Option<RequestId> {
    Request::with_current(|request| request.id().clone())
}

/// The trace id of the request in hand, sampled or not: 32 lower-case hexadecimal digits.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    Context::map_current(|cx| {
        let id = cx.span().span_context().trace_id();
        (id != TraceId::INVALID).then(|| id.to_string())
    })
}

/// The span in hand as a W3C `traceparent`, sampled or not.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    Context::map_current(|cx| {
        let span = cx.span();
        let span = span.span_context();
        let (trace, id) = (span.trace_id(), span.span_id());
        let sampled = u8::from(span.is_sampled());
        span.is_valid().then(|| format!("00-{trace}-{id}-{sampled:02x}"))
    })
}

/// The tenant of the request in hand, once it is known.
#[must_use]
pub fn current_tenant() -> Option<Arc<str>> {
    Request::with_current(|request| request.tenant().cloned()).flatten()
}

/// Whether the request in hand is sampled: only then are spans made.
#[must_use]
pub fn is_sampled() -> bool {
    Context::map_current(|cx| cx.span().span_context().is_sampled())
}

/// Says which tenant the request in hand belongs to, for its log lines and its span. Services that are called by
/// another service use it once they have verified the credential; behind HTTP, the layers do it.
pub fn set_tenant(tenant: &str) {
    Context::map_current(|cx| {
        if let Some(request) = cx.get::<Request>() {
            request.set_tenant(Arc::from(tenant));
        }
        let span = cx.span();
        if span.is_recording() {
            span.set_attribute(opentelemetry::KeyValue::new("tenant.id", tenant.to_owned()));
        }
    });
}

/// Says which key the request in hand was made with (its id, never the key), as [`set_tenant`] does of the tenant.
pub fn set_key_id(key_id: &str) {
    Request::with_current(|request| request.set_key_id(Arc::from(key_id)));
}

/// Says that whoever sent the request in hand may not have it debugged. A service that is called by another believes the
/// caller's wish at first, and looks again once it has verified the credential: a stranger could have got to its port.
pub fn withdraw_debug() {
    let withdrawn = Request::with_current(|request| {
        let debugged = request.is_debug();
        request.withdraw_debug();
        debugged
    });
    if withdrawn == Some(true) {
        DEBUG_REQUESTS.inc(["forbidden"]);
    }
}

/// A context with ids and without a span: what an unsampled request runs in, so that its log lines and what it calls
/// still belong together.
pub(crate) fn spanless(base: &Context, trace_id: TraceId, state: TraceState) -> Context {
    let span_id = RandomIdGenerator::default().new_span_id();
    base.with_remote_span_context(SpanContext::new(
        trace_id,
        span_id,
        TraceFlags::default(),
        false,
        state,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_request_ids_are_taken() {
        assert_eq!(RequestId::parse("a.b_C-1").unwrap().as_str(), "a.b_C-1");
        let long = "x".repeat(RequestId::MAX_LEN + 1);
        for bad in ["", "a b", "a\nb", "é", "a/b", long.as_str()] {
            assert_eq!(RequestId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn made_request_ids_are_uuids_of_version_7_and_differ() {
        let (a, b) = (RequestId::new(), RequestId::new());
        assert_ne!(a, b);
        let id = uuid::Uuid::parse_str(a.as_str()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }

    #[test]
    fn outside_a_request_there_is_nothing() {
        assert_eq!(current_request_id(), None);
        assert_eq!(current_trace_id(), None);
        assert!(!is_sampled());
    }
}
