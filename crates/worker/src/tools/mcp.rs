//! Tools of other MCP servers: a client of Streamable HTTP that speaks both eras of the protocol, behind the same guard as
//! HTTP tools.

mod answer;
mod breaker;
mod cancel;
mod listing;
mod peers;
mod result;
mod wire;

pub use listing::Listing;

use super::{
    Call, Departed, ToolKind,
    http::{self, HttpTool},
};
use crate::{
    outcome::{Code, Failure},
    progress::Reporter,
    settings::Outbound,
};
use answer::{Limits, Reply};
use async_trait::async_trait;
use cancel::Cancel;
use domain::tool::Credentials;
use http::Hop;
use opentelemetry::KeyValue;
use peers::{Era, Link, Peer, Peers};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use telemetry::span::Open;
use wire::Message;

/// How long it may take to learn which era a server is of, and to begin a session.
const GREETING: Duration = Duration::from_secs(10);
/// The largest answer to anything but a call, bytes. A server's tools come in several.
const MAX_ANSWER_BYTES: usize = 2 << 20;
/// What there is between a failed session and giving up: one more, new one.
const ATTEMPTS: usize = 2;

/// Another MCP server, as a tenant registered it. Has no `Debug`: credentials are nobody's to print.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    /// The server's name there.
    pub name: &'a str,
    /// Its endpoint.
    pub url: &'a str,
    /// What it is shown.
    pub credentials: Option<&'a Credentials>,
}

/// Calls other MCP servers.
pub(super) struct McpTool {
    http: Arc<HttpTool>,
    peers: Peers,
    max_response_bytes: usize,
    max_timeout: Duration,
}

/// A message that is being answered.
struct Asked<'a> {
    departed: Departed,
    runs_twice: bool,
    limits: Limits,
    progress: Option<&'a Reporter>,
}

impl McpTool {
    /// On the connections of the HTTP tools.
    pub(super) fn new(http: Arc<HttpTool>, settings: &Outbound) -> Self {
        Self {
            http,
            peers: Peers::default(),
            max_response_bytes: settings.max_response_bytes,
            max_timeout: settings.max_timeout,
        }
    }

    /// Whether servers are left alone: the samples of [`crate::metrics::UPSTREAM_CIRCUIT_OPEN`].
    pub(super) fn circuits(&self) -> Vec<([String; 1], f64)> {
        self.peers.circuits(Instant::now())
    }

    /// How the server is spoken with: as last time, or as it turns out now.
    async fn link(&self, server: &Server<'_>, peer: &Peer) -> Result<Link, Failure> {
        let mut known = peer.link.lock().await;
        let print = self.peers.fingerprint(server);
        if let Some(link) = known.as_ref().filter(|link| link.is_good(print)) {
            return Ok(link.clone());
        }
        *known = None;
        let greeted = tokio::time::timeout(GREETING, self.greet(server, print)).await;
        let late = |_| Failure::new(Code::Timeout, "the server does not answer in time");
        let link = greeted.map_err(late)??;
        Ok(known.insert(link).clone())
    }

    /// Asks the server what it is: in the newer way first. What does not understand that is asked in the older one.
    async fn greet(&self, server: &Server<'_>, print: u64) -> Result<Link, Failure> {
        let discover = Message::new(1, "server/discover", json!({}));
        let reply = self
            .send(server, &Era::Modern, &discover, &Asked::plain())
            .await?;
        if let Some(Ok(found)) = &reply.message
            && wire::is_modern(found)
        {
            return Ok(Link::new(print, Era::Modern, wire::about(found)));
        }
        if reply.is_refusal_for_good() {
            return Err(reply.failure());
        }
        let initialize = Message::new(1, "initialize", wire::initialize());
        let newcomer = Era::Legacy {
            version: None,
            session: None,
        };
        let reply = self.send(server, &newcomer, &initialize, &Asked::plain()).await?;
        let session = reply.session.clone();
        let begun = reply.into_result()?;
        let version = Some(wire::agreed(&begun)?);
        let link = Link::new(print, Era::Legacy { version, session }, wire::about(&begun));
        let initialized = Message::notification("notifications/initialized", json!({}));
        self.send(server, &link.era, &initialized, &Asked::plain())
            .await?;
        Ok(link)
    }

    /// Sends a request over a link that holds; a session that the server knows no more is begun anew, once.
    async fn ask(
        &self,
        server: &Server<'_>,
        peer: &Peer,
        message: &Message<'_>,
        asked: &Asked<'_>,
    ) -> Result<(Value, Link), Failure> {
        for attempt in 1.. {
            let link = self.link(server, peer).await?;
            let cancel = Cancel::new(&self.http, server, &link.era, message, &asked.departed);
            let reply = self.send(server, &link.era, message, asked).await;
            cancel.disarm();
            let reply = reply?;
            if link.is_lost(&reply) {
                peer.forget(&link).await;
                if attempt < ATTEMPTS {
                    continue;
                }
            }
            return Ok((reply.into_result()?, link));
        }
        unreachable!("the last attempt answers")
    }

    /// One message, up to the end of its answer, in a span of its own.
    async fn send(
        &self,
        server: &Server<'_>,
        era: &Era,
        message: &Message<'_>,
        asked: &Asked<'_>,
    ) -> Result<Reply, Failure> {
        let span = telemetry::span::client(message.span_name(), || attributes(server, era, message));
        let hop = wire::hop(server, era, message, span.context())?;
        let answered = span
            .run(async {
                let answer = self
                    .http
                    .exchange(hop, &asked.departed, asked.runs_twice, |_| ())
                    .await?;
                answer::read(answer, message.id, &asked.limits, asked.progress).await
            })
            .await;
        note(&span, &answered);
        answered
    }

    async fn call(
        &self,
        server: &Server<'_>,
        peer: &Peer,
        call: &Call,
        progress: &Reporter,
    ) -> Result<Value, Failure> {
        let tool = call.tool.options.upstream.as_ref().map(|u| u.tool.as_str());
        let tool = tool.unwrap_or_default();
        let params = json!({
            "name": tool,
            "arguments": call.arguments,
            "_meta": {"progressToken": call.execution_id.to_string()},
        });
        let message = Message {
            name: Some(tool),
            headers: wire::param_headers(&call.tool.input_schema, &call.arguments),
            idempotency_key: Some(call.execution_id.to_string()),
            ..Message::new(peer.next_id(), "tools/call", params)
        };
        progress.report("calling the server");
        let asked = Asked {
            departed: call.departed.clone(),
            runs_twice: call.tool.runs_twice(),
            limits: Limits::of(self.max_response_bytes),
            progress: Some(progress),
        };
        let (answer, _) = self.ask(server, peer, &message, &asked).await?;
        result::of(answer)
    }
}

impl Asked<'_> {
    /// What may be asked twice and is nobody's call.
    fn plain() -> Asked<'static> {
        Asked {
            departed: Departed::default(),
            runs_twice: true,
            limits: Limits::of(MAX_ANSWER_BYTES),
            progress: None,
        }
    }
}

#[async_trait]
impl ToolKind for McpTool {
    async fn run(&self, call: &Call, progress: &Reporter) -> Result<Value, Failure> {
        let Some(origin) = &call.tool.options.upstream else {
            return Err(Failure::new(Code::InvalidTool, "the tool names no server"));
        };
        let server = Server {
            tenant: &call.tenant,
            name: &origin.server,
            url: &call.tool.url,
            credentials: call.credentials.as_ref(),
        };
        let peer = self.peers.of(&server);
        let time = Duration::from_millis(call.tool.timeout_ms.into()).min(self.max_timeout);
        let visit = peer.enter(time)?;
        let result = self.call(&server, &peer, call, progress).await;
        visit.end(result.as_ref().err());
        result
    }
}

/// Takes a member out of what a server sent, which may be anything: null where there is none.
fn take(value: &mut Value, member: &str) -> Value {
    value.get_mut(member).map(Value::take).unwrap_or_default()
}

fn attributes(server: &Server<'_>, era: &Era, message: &Message<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("mcp.method.name", message.method),
        KeyValue::new("mcp.protocol.version", era.version().to_owned()),
        KeyValue::new("devops_mcp.upstream", server.name.to_owned()),
    ];
    if let Some(id) = message.id {
        attributes.push(KeyValue::new("jsonrpc.request.id", id.to_string()));
    }
    if let Some(tool) = message.name {
        attributes.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
        attributes.push(KeyValue::new("gen_ai.tool.name", tool.to_owned()));
    }
    attributes
}

/// Tells the span how its message was answered.
fn note(span: &Open, answered: &Result<Reply, Failure>) {
    match answered {
        Err(failure) => span.fail(failure.code.as_str()),
        Ok(reply) => match &reply.message {
            Some(Err(error)) => span.fail(error.code.to_string()),
            Some(Ok(result)) if result["isError"] == Value::Bool(true) => span.fail(Code::ToolError.as_str()),
            None if !reply.status.is_success() => span.fail(reply.status.as_str().to_owned()),
            _ => {}
        },
    }
}
