//! What is known about an HTTP request, gathered on its way in.

use crate::context::{Context, Request, RequestId};
use opentelemetry::trace::SpanContext;
use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

/// Who makes a request, once its credential has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant's id, as it stands in log lines and metrics.
    pub tenant: Arc<str>,
    /// The id of the key (never the key).
    pub key_id: String,
    /// Whether the caller may ask for a request to be debugged.
    pub may_debug: bool,
}

/// What is known about the request: an extension of it, put in by [`IdsLayer`](super::IdsLayer).
#[derive(Clone, Debug)]
pub struct RequestScope(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    request: Request,
    arrival: Arrival,
    caller: OnceLock<Caller>,
    route: OnceLock<String>,
    context: OnceLock<Context>,
}

/// What was known when the request arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The span that the client says it belongs to.
    pub(super) remote: Option<SpanContext>,
    pub(super) started: SystemTime,
    /// It asks to be debugged; whether it may is not known yet.
    pub(super) wants_debug: bool,
    /// A probe, a scrape or an operator's page: not measured, not traced.
    pub(super) excluded: bool,
}

impl RequestScope {
    pub(super) fn new(request: Request, arrival: Arrival) -> Self {
        let (caller, route, context) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner {
            request,
            arrival,
            caller,
            route,
            context,
        }))
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> &RequestId {
        self.0.request.id()
    }

    /// The trace's id, sampled or not: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.request.trace_id().to_string()
    }

    /// Says who makes the request. Only an authentication layer may; the first word stands.
    pub fn set_caller(&self, caller: Caller) {
        self.0.request.set_tenant(caller.tenant.clone());
        let _ = self.0.caller.set(caller);
    }

    /// Who makes the request; `None` while that isn't known.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        self.0.caller.get()
    }

    pub(super) fn request(&self) -> &Request {
        &self.0.request
    }

    pub(super) fn arrival(&self) -> &Arrival {
        &self.0.arrival
    }

    pub(super) fn set_route(&self, route: &str) {
        let _ = self.0.route.set(route.to_owned());
    }

    pub(super) fn route(&self) -> Option<&str> {
        self.0.route.get().map(String::as_str)
    }

    /// Why its wish to be debugged was not granted, if it had one: the outcome that it is counted under.
    pub(super) fn debug_refused(&self) -> Option<&'static str> {
        let asked = self.0.arrival.wants_debug && !self.0.arrival.excluded;
        (asked && !self.0.request.is_debug()).then(|| match self.caller() {
            Some(caller) if caller.may_debug => "limited",
            _ => "forbidden",
        })
    }

    /// The context of the server span, for the log line and the exemplars.
    pub(super) fn set_context(&self, cx: Context) {
        let _ = self.0.context.set(cx);
    }

    pub(super) fn context(&self) -> Option<&Context> {
        self.0.context.get()
    }
}
