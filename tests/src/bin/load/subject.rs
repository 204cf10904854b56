//! One server, and the requests that it is driven with.

use anyhow::{Context, ensure};
use e2e::{Era, Json, raw::Raw, rest::Answer};
use reqwest::{Request, RequestBuilder};
use serde_json::json;
use std::{net::SocketAddr, sync::Arc};

/// One server and what to drive it with.
pub(crate) struct Subject {
    /// What to call it.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// One request for each connection, as it goes over the wire.
    pub(crate) requests: Vec<Arc<[u8]>>,
    /// The processes that take part, the one that is called first.
    pub(crate) processes: Vec<u32>,
    /// The size of the answer's body, bytes.
    pub(crate) answer: usize,
}

impl Subject {
    /// Asks once, to see that the answer is the expected one, then keeps the requests as bytes.
    pub(crate) async fn new(
        name: String,
        requests: Vec<RequestBuilder>,
        processes: Vec<u32>,
        expected: impl Fn(&Answer) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Self> {
        let first = requests.first().context("at least one connection")?;
        let answer = Answer::read(first.try_clone().context("a body in memory")?.send().await?).await?;
        let answered = expected(&answer).with_context(|| name.clone())?;
        ensure!(answered, "{name}: {}", answer.text);
        let requests = requests
            .into_iter()
            .map(|request| Ok(request.build()?))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let address = *requests[0]
            .url()
            .socket_addrs(|| None)?
            .first()
            .context("an address")?;
        Ok(Self {
            name,
            address,
            requests: requests.iter().map(wire).collect(),
            processes,
            answer: answer.text.len(),
        })
    }
}

/// The same request so many times.
pub(crate) fn repeated(request: &RequestBuilder, count: usize) -> anyhow::Result<Vec<RequestBuilder>> {
    (0..count)
        .map(|_| request.try_clone().context("a body in memory"))
        .collect()
}

/// The same call for each connection, in a session of its own where the era has sessions.
pub(crate) async fn calls(
    mcp: &Raw,
    era: Era,
    call: &Json,
    count: usize,
) -> anyhow::Result<Vec<RequestBuilder>> {
    let mut requests = Vec::new();
    for _ in 0..count {
        requests.push(match era {
            Era::Modern => mcp.modern("tools/call", call.clone()),
            Era::Legacy => Session::open(mcp).await?.request("tools/call", call),
        });
    }
    Ok(requests)
}

/// A session of the legacy era.
pub(crate) struct Session {
    mcp: Raw,
    id: String,
}

impl Session {
    /// Opens one.
    pub(crate) async fn open(mcp: &Raw) -> anyhow::Result<Self> {
        let client = json!({"name": "load", "version": "0"});
        let hello =
            json!({"protocolVersion": Era::Legacy.version(), "capabilities": {}, "clientInfo": client});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
        let answer = Answer::read(mcp.post().json(&hello).send().await?).await?;
        let id = answer.header("mcp-session-id").to_owned();
        ensure!(!id.is_empty(), "no session: {} {}", answer.status, answer.text);
        let session = Self { mcp: mcp.clone(), id };
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let sent = session.within(mcp.post()).json(&ready).send().await?;
        sent.error_for_status()?;
        Ok(session)
    }

    fn within(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .header("mcp-session-id", &self.id)
            .header("mcp-protocol-version", Era::Legacy.version())
    }

    /// A request within it, yet to be sent.
    pub(crate) fn request(&self, method: &str, params: &Json) -> RequestBuilder {
        self.within(self.mcp.post())
            .json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    }

    /// Ends it.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let ended = self.within(self.mcp.delete()).send().await?;
        ended.error_for_status()?;
        Ok(())
    }
}

/// A request as HTTP/1.1 writes it.
fn wire(request: &Request) -> Arc<[u8]> {
    let (url, body) = (
        request.url(),
        request
            .body()
            .and_then(|body| body.as_bytes())
            .unwrap_or_default(),
    );
    let line = format!(
        "{} {} HTTP/1.1\r\nhost: {}\r\n",
        request.method(),
        url.path(),
        url.authority()
    );
    let mut bytes = line.into_bytes();
    for (name, value) in request.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    if !body.is_empty() {
        bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes.into()
}
