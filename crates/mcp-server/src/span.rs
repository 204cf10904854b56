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
use opentelemetry::KeyValue;
use rmcp::{ErrorData, RoleServer, service::RequestContext};
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};
use telemetry::{context::Context, propagate, span};

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
    operation: Operation<'_>,
    cx: &RequestContext<RoleServer>,
    work: impl Future<Output = Result<T, ErrorData>>,
) -> Result<T, ErrorData> {
    let (started, clock) = (SystemTime::now(), Instant::now());
    let open = {
        let ambient = parts(cx).and_then(|parts| parts.extensions.get::<Ambient>());
        let ambient = ambient.map_or_else(Context::new, |ambient| ambient.0.clone());
        let _within = ambient.clone().attach();
        let meta = propagate::extract_meta(&cx.meta.0);
        let parent = meta.as_ref().unwrap_or(&ambient);
        let open = span::server(parent, started, operation.name(), || attributes(operation, cx));
        if meta.is_some() {
            open.link(&ambient);
        }
        open
    };
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
        let tool = operation.tool.unwrap_or_default();
        OPERATION_DURATION.record(clock.elapsed(), [operation.method, tool, error_type]);
    })
    .await;
    answer
}

fn attributes(operation: Operation<'_>, cx: &RequestContext<RoleServer>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("mcp.method.name", operation.method),
        KeyValue::new("jsonrpc.request.id", cx.id.to_string()),
        KeyValue::new("network.transport", "tcp"),
        KeyValue::new("network.protocol.name", "http"),
    ];
    if let Some(tool) = operation.tool {
        attributes.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
        attributes.push(KeyValue::new("gen_ai.tool.name", tool.to_owned()));
    }
    if let Some(uri) = operation.uri {
        attributes.push(KeyValue::new("mcp.resource.uri", uri.to_owned()));
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
            attributes.push(KeyValue::new("mcp.session.id", session.to_owned()));
        }
        if let Some(caller) = parts.extensions.get::<Arc<Caller>>() {
            attributes.push(KeyValue::new("tenant.id", caller.tenant.to_string()));
        }
    }
    attributes
}
