//! Spans, made only when the request in hand is sampled.
//!
//! An unsampled request costs no span at all: it runs in a context that has ids and nothing else. The layers and the
//! functions here make OpenTelemetry spans directly; [`child`] is for a `tracing` span inside them.

use crate::context::{self, Request, RequestId, Sampling};
use opentelemetry::{
    Context, KeyValue, Value,
    context::{FutureExt, WithContext},
    global,
    trace::{Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer},
};
use std::{borrow::Cow, time::SystemTime};

/// The name under which spans are made.
const SCOPE: &str = "devops-mcp";

/// An open span, or what stands for it in an unsampled request: every method then does nothing. Ends when dropped.
#[derive(Debug)]
pub struct Open {
    cx: Context,
}

impl Open {
    /// The context to run the spanned work in, and to inject into what it sends.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// Whether anything that is set is kept. Ask before computing costly attributes.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.cx.span().is_recording()
    }

    /// Sets an attribute.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        let span = self.cx.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Renames the span.
    pub fn rename(&self, name: impl Into<Cow<'static, str>>) {
        self.cx.span().update_name(name);
    }

    /// Links to the span of another context.
    pub fn link(&self, other: &Context) {
        let other = other.span().span_context().clone();
        if other.is_valid() {
            self.cx.span().add_link(other, Vec::new());
        }
    }

    /// Marks it as failed. `error_type` is one of few values: a status code, a class of errors, never a message.
    pub fn fail(&self, error_type: impl Into<Value>) {
        let span = self.cx.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new("error.type", error_type));
            span.set_status(Status::error(""));
        }
    }

    /// Runs `future` inside the span.
    pub fn run<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.cx.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Clones of the context may outlive the work; the span must not.
        self.cx.span().end();
    }
}

/// Starts a server span under a given parent, back to when the work arrived. The parent's trace context decides, as
/// the request's sampling rule says, whether it is sampled. What the parent lacks of the request in hand is taken from
/// the current context.
pub fn server(
    parent: &Context,
    started: SystemTime,
    name: impl Into<Cow<'static, str>>,
    attributes: impl FnOnce() -> Vec<KeyValue>,
) -> Open {
    let base = match (parent.get::<Request>(), Request::with_current(Clone::clone)) {
        (None, Some(request)) => parent.with_value(request),
        (None, None) => {
            let span = parent.span();
            let remote = Some(span.span_context()).filter(|s| s.is_valid());
            parent.with_value(Request::new(RequestId::new(), remote, Sampling::Caller))
        }
        (Some(_), _) => parent.clone(),
    };
    entry(&base, SpanKind::Server, Some(started), None, || {
        (name.into(), attributes())
    })
}

/// Starts a trace of its own for work that was enqueued earlier, linked to the trace that enqueued it. Request id,
/// tenant and debug flag are those of `origin`; where that was sampled, so is this.
pub fn linked(
    origin: &Context,
    name: impl Into<Cow<'static, str>>,
    attributes: impl FnOnce() -> Vec<KeyValue>,
) -> Open {
    let from = origin.get::<Request>();
    let link = origin.span().span_context().clone();
    let sampling = if link.is_sampled() {
        Sampling::Forced
    } else {
        Sampling::Head
    };
    let request = Request::new(
        from.map_or_else(RequestId::new, |r| r.id().clone()),
        None,
        sampling,
    );
    if let Some(tenant) = from.and_then(Request::tenant) {
        request.set_tenant(tenant.clone());
    }
    if from.is_some_and(Request::is_debug) {
        request.set_debug();
    }
    let base = Context::new().with_value(request);
    let link = Some(link).filter(SpanContext::is_valid);
    entry(&base, SpanKind::Consumer, None, link, || {
        (name.into(), attributes())
    })
}

/// Starts a client span under the current one; when the request in hand isn't sampled, makes none and stays in its
/// context.
pub fn client(name: impl Into<Cow<'static, str>>, attributes: impl FnOnce() -> Vec<KeyValue>) -> Open {
    let parent = Context::current();
    if !parent.span().span_context().is_sampled() {
        // It records nothing, so that ending it when this is dropped does nothing either.
        return Open { cx: parent };
    }
    let tracer = global::tracer(SCOPE);
    let builder = tracer
        .span_builder(name)
        .with_kind(SpanKind::Client)
        .with_attributes(attributes());
    let span = builder.start_with_context(&tracer, &parent);
    Open {
        cx: parent.with_span(span),
    }
}

/// A `tracing` span under the current one, or none when the request in hand isn't sampled.
pub fn child(make: impl FnOnce() -> tracing::Span) -> tracing::Span {
    if context::is_sampled() {
        make()
    } else {
        tracing::Span::none()
    }
}

/// Runs `future` in the context `cx`: what a spawned task needs to stay in its request.
pub fn in_context<F: Future>(future: F, cx: Context) -> WithContext<F> {
    future.with_context(cx)
}

/// Starts a span where a trace enters the service, or a context with ids when it isn't sampled. `base` holds the
/// request.
fn entry(
    base: &Context,
    kind: SpanKind,
    started: Option<SystemTime>,
    link: Option<SpanContext>,
    describe: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
) -> Open {
    sampled(base, kind, started, link, describe).unwrap_or_else(|| {
        let parent = base.span().span_context().clone();
        let trace_id = match base.get::<Request>() {
            Some(request) if !parent.is_valid() => request.trace_id(),
            _ => parent.trace_id(),
        };
        Open {
            cx: context::spanless(base, trace_id, parent.trace_state().clone()),
        }
    })
}

/// Starts a span where a trace enters the service, if it is to be sampled; only then is it named and described.
pub(crate) fn sampled(
    base: &Context,
    kind: SpanKind,
    started: Option<SystemTime>,
    link: Option<SpanContext>,
    describe: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
) -> Option<Open> {
    let tracer = global::tracer(SCOPE);
    let mut builder = tracer.span_builder("").with_kind(kind);
    builder.start_time = started;
    builder.links = link.map(|link| vec![Link::with_context(link)]);
    let mut span = {
        // A root span gets the trace id of the request, which the generator finds in the current context.
        let _request = base.clone().attach();
        builder.start_with_context(&tracer, base)
    };
    if !span.is_recording() {
        return None;
    }
    let (name, attributes) = describe();
    span.update_name(name);
    span.set_attributes(attributes);
    if let Some(request) = base.get::<Request>() {
        span.set_attribute(KeyValue::new("request.id", request.id().as_str().to_owned()));
        if request.is_debug() {
            // For a collector that samples by the whole trace: what somebody asked to see is kept.
            span.set_attribute(KeyValue::new("devops_mcp.debug", true));
        }
    }
    Some(Open {
        cx: base.with_span(span),
    })
}
