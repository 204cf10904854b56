//! One span and one measurement for every MCP operation, by OpenTelemetry's conventions for MCP.
//!
//! Handlers run in a task of their own, and those of a session in the session's: none of them is inside the HTTP
//! request's context. It is taken from the request ([`Ambient`]), and the trace context in the message's `_meta`, where
//! the client put one, goes before it.

use crate::{
    caller::{Ambient, Caller},
    error::Error,
    metrics::OPERATION_DURATION,
};
use http::request::Parts;
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, TraceContextExt, TraceFlags},
};
use parking_lot::Mutex;
use rmcp::{ErrorData, RoleServer, model::ErrorCode, service::RequestContext};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use telemetry::{
    context::Context,
    propagate,
    recent::{self, Description, Entry},
    span::{self, Open},
};

/// What is being done.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    /// The MCP method.
    pub(crate) method: &'static str,
    /// For tools/call: the tool, or `other` when it is not registered.
    pub(crate) tool: Option<&'a str>,
    /// For resources/read: the resource.
    pub(crate) uri: Option<&'a str>,
}

impl<'a> Operation<'a> {
    /// A method that is about nothing in particular.
    pub(crate) fn of(method: &'static str) -> Self {
        Self {
            method,
            tool: None,
            uri: None,
        }
    }

    /// A call of `tool`.
    pub(crate) fn call(tool: &'a str) -> Self {
        Self {
            tool: Some(tool),
            ..Self::of("tools/call")
        }
    }

    fn name(&self) -> String {
        self.tool.map_or_else(
            || self.method.to_owned(),
            |tool| format!("{} {tool}", self.method),
        )
    }
}

/// What an answer says about how it went.
pub(crate) trait Answer {
    /// The error that it carries within a success, if any.
    fn error_type(&self) -> Option<&'static str> {
        None
    }
}

/// The HTTP request that a message came with.
pub(crate) fn parts(cx: &RequestContext<RoleServer>) -> Option<&Parts> {
    cx.extensions.get::<Parts>()
}

/// Who sent the message. The middleware put it there, so it is missing only by a defect.
pub(crate) fn caller(cx: &RequestContext<RoleServer>) -> Result<Arc<Caller>, Error> {
    let caller = parts(cx).and_then(|parts| parts.extensions.get::<Arc<Caller>>());
    caller
        .cloned()
        .ok_or_else(|| Error::internal("an MCP message without a caller"))
}

/// Does `work` within the operation's span and measures it. The client's cancellation drops it where it stands.
pub(crate) async fn observed<T: Answer>(
    wishes: &Wishes,
    operation: Operation<'_>,
    cx: &RequestContext<RoleServer>,
    work: impl Future<Output = Result<T, ErrorData>>,
) -> Result<T, ErrorData> {
    let clock = Instant::now();
    let open = open(wishes, operation, cx);
    recent::claim(open.context());
    let answer = open
        .run(async {
            tokio::select! {
                answer = work => answer,
                () = cx.ct.cancelled() => Err(Error::Cancelled.into()),
            }
        })
        .await;
    let code;
    let error_type = match &answer {
        Ok(answer) => answer.error_type().unwrap_or_default(),
        Err(error) => {
            code = error.code.0.to_string();
            open.set("rpc.response.status_code", code.clone());
            &code
        }
    };
    if !error_type.is_empty() {
        open.fail(error_type.to_owned());
    }
    open.run(async {
        let (method, tool) = (operation.method, operation.tool.unwrap_or_default());
        let took = clock.elapsed();
        OPERATION_DURATION.record(took, [method, tool, error_type]);
        let duration_ms = took.as_micros() as f64 / 1000.0;
        tracing::debug!(target: "access", method, tool, error_type, duration_ms, "operation");
    })
    .await;
    let failed = answer
        .as_ref()
        .is_err_and(|error| error.code == ErrorCode::INTERNAL_ERROR);
    recent::finished(open.context(), failed, || Description {
        kind: Entry::Mcp,
        name: operation.name(),
        status: if error_type.is_empty() {
            "ok".into()
        } else {
            error_type.to_owned().into()
        },
        key_id: caller(cx).ok().map(|caller| caller.principal.key_id.to_string()),
    });
    answer
}

/// The span, under the trace context in `_meta` where there is one, else under the HTTP request's.
fn open(wishes: &Wishes, operation: Operation<'_>, cx: &RequestContext<RoleServer>) -> Open {
    let started = SystemTime::now();
    let ambient = parts(cx).and_then(|parts| parts.extensions.get::<Ambient>());
    let ambient = ambient.map_or_else(Context::new, |ambient| ambient.0.clone());
    let _within = ambient.clone().attach();
    let meta = propagate::extract_meta(&cx.meta.0).map(|meta| wishes.hold(meta, &ambient));
    let parent = meta.as_ref().unwrap_or(&ambient);
    let open = span::server(parent, started, operation.name(), || attributes(operation, cx));
    if meta.is_some() {
        open.link(&ambient);
    }
    open
}

/// How many operations a second may be sampled because `_meta` says so, where the HTTP request is not.
#[derive(Debug)]
pub(crate) struct Wishes(Mutex<(Instant, u32)>);

/// As many as telemetry grants the `traceparent` header.
const SAMPLED_PER_SECOND: u32 = 50;

impl Default for Wishes {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), 0)))
    }
}

impl Wishes {
    fn grant(&self) -> bool {
        let mut window = self.0.lock();
        if window.0.elapsed() >= Duration::from_secs(1) {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        window.1 <= SAMPLED_PER_SECOND
    }

    /// The context as it is, or without its wish to be sampled when there were too many.
    fn hold(&self, meta: Context, ambient: &Context) -> Context {
        let remote = meta.span().span_context().clone();
        if !remote.is_sampled() || ambient.span().span_context().is_sampled() || self.grant() {
            return meta;
        }
        let (trace, span, state) = (remote.trace_id(), remote.span_id(), remote.trace_state().clone());
        meta.with_remote_span_context(SpanContext::new(trace, span, TraceFlags::default(), true, state))
    }
}

/// How much of a text of the client's own a span keeps, bytes: spans wait in memory.
const TEXT_MAX: usize = 256;

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

fn attributes(operation: Operation<'_>, cx: &RequestContext<RoleServer>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("mcp.method.name", operation.method),
        KeyValue::new("jsonrpc.request.id", bounded(&cx.id.to_string())),
        KeyValue::new("network.transport", "tcp"),
        KeyValue::new("network.protocol.name", "http"),
    ];
    if let Some(tool) = operation.tool {
        attributes.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
        attributes.push(KeyValue::new("gen_ai.tool.name", tool.to_owned()));
    }
    if let Some(uri) = operation.uri {
        attributes.push(KeyValue::new("mcp.resource.uri", bounded(uri)));
    }
    if let Some(version) = cx.protocol_version() {
        attributes.push(KeyValue::new("mcp.protocol.version", version.to_string()));
    }
    if let Some(parts) = parts(cx) {
        if let Some(session) = parts
            .headers
            .get("mcp-session-id")
            .and_then(|id| id.to_str().ok())
        {
            attributes.push(KeyValue::new("mcp.session.id", bounded(session)));
        }
        if let Some(caller) = parts.extensions.get::<Arc<Caller>>() {
            attributes.push(KeyValue::new("tenant.id", caller.tenant.to_string()));
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_the_beginning_of_a_clients_texts() {
        assert_eq!(bounded("context://1"), "context://1");
        assert_eq!(bounded(&format!("a{}", "é".repeat(1000))).len(), TEXT_MAX - 1);
    }

    #[test]
    fn wishes_to_be_sampled_are_granted_so_often_only() {
        let wishes = Wishes::default();
        let meta =
            serde_json::json!({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"});
        let sampled = || {
            let meta = propagate::extract_meta(meta.as_object().expect("an object")).expect("a context");
            let held = wishes.hold(meta, &Context::new());
            let span = held.span().span_context().clone();
            assert_eq!(span.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            span.is_sampled()
        };
        let granted = (0..100).filter(|_| sampled()).count();
        assert_eq!(granted, 50);
    }
}
