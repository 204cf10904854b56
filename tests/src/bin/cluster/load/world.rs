//! What the load works with: a tenant of its own, a key, tools, and contexts to begin with.

use super::{
    Args,
    endpoint::ONCE,
    ledger::{Ledger, Wrong},
    wire::{Answer, Peer},
};
use anyhow::{Context, ensure};
use axum::body::Bytes;
use e2e::{Era, Json, raw::META};
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::json;
use std::{
    collections::VecDeque,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::process::Command;

/// A connection is given up after this.
pub(crate) const CONNECTION_AGE: Duration = Duration::from_secs(10);
/// Contexts that are there before the load begins.
const CONTEXTS: usize = 40;
/// What both tools are called, with the name of the pod behind it.
const TOOLS: [(&str, &str, &str); 2] = [("load-echo", "GET", "echo"), ("load-once", "POST", "once")];

/// A context that is there.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Its id.
    pub(crate) id: String,
    /// Its name, which no other has.
    pub(crate) name: String,
}

/// What all requests share.
pub(crate) struct World {
    /// rest-api.
    pub(crate) rest: Peer,
    /// mcp-server, any replica of it.
    pub(crate) mcp: Peer,
    /// The account of what comes of them.
    pub(crate) ledger: Arc<Ledger>,
    key: String,
    known: Mutex<VecDeque<Known>>,
}

/// Makes a tenant by the command that operators use, and gives a key of it with all scopes.
///
/// # Errors
/// When `rest-api` is not here or cannot reach the database.
pub(crate) async fn tenant(name: &str) -> anyhow::Result<String> {
    rest_api(&["tenants", "create", "--if-missing", name]).await?;
    let key = rest_api(&["keys", "create", "--tenant", name, "--scopes", "all", "--json"]).await?;
    let key: Json = serde_json::from_str(&key).context("the new key")?;
    let key = key["secret"].as_str().context("a key without a secret")?;
    Ok(key.to_owned())
}

async fn rest_api(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("rest-api")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .context("running rest-api")?;
    ensure!(
        output.status.success(),
        "rest-api {}: {}",
        arguments[..2].join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

impl World {
    /// Nothing is sent yet.
    pub(crate) fn new(args: &Args, key: String, ledger: Arc<Ledger>) -> Self {
        let peer = |address: &str| Peer::new(address, args.connections, CONNECTION_AGE);
        Self {
            rest: peer(&args.rest),
            mcp: peer(&args.mcp),
            ledger,
            key,
            known: Mutex::default(),
        }
    }

    /// Registers the tools, makes the first contexts, and waits until replicas know the tools.
    ///
    /// # Errors
    /// When any of it fails: the load has not begun yet, so nothing may.
    pub(crate) async fn prepare(&self, advertise: &str, pod: &str) -> anyhow::Result<()> {
        for (tool, method, path) in TOOLS {
            let name = format!("{tool}-{pod}");
            let tool = json!({
                "name": name, "description": "Gives back a word", "method": method, "timeout_ms": 20_000,
                "url": format!("http://{advertise}/{path}/{{word}}"), "read_only": method == "GET",
                "input_schema": {"type": "object", "required": ["word"], "properties": {"word": {"type": "string"}}},
            });
            let path = format!("/api/v1/tools/{name}");
            self.rest(Method::DELETE, &path, None).await?;
            let made = self.rest(Method::POST, "/api/v1/tools", Some(&tool)).await;
            expect(made, 201)?;
        }
        for _ in 0..CONTEXTS {
            ensure!(self.create().await.is_some(), "making the first contexts");
        }
        e2e::wait_for("the tools to be known to replicas", async || {
            for (tool, ..) in TOOLS {
                self.run(&format!("{tool}-{pod}"), &word()).await.ok()?;
            }
            Some(())
        })
        .await
    }

    /// Contexts from before this load began, which nobody but an earlier load can have made.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub(crate) async fn sweep(&self) -> anyhow::Result<()> {
        loop {
            let page = self
                .rest(Method::GET, "/api/v1/contexts?limit=100&status=active", None)
                .await;
            let page = json_of(&expect(page, 200)?);
            let ids: Vec<_> = page["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|one| one["id"].as_str())
                .collect();
            if ids.is_empty() {
                return Ok(());
            }
            for id in ids {
                let gone = self
                    .rest(Method::DELETE, &format!("/api/v1/contexts/{id}"), None)
                    .await;
                expect(gone, 204)?;
            }
        }
    }

    /// Makes a context, and keeps account of it.
    pub(crate) async fn create(&self) -> Option<Known> {
        let name = format!("load {}", word());
        let new = json!({"name": name, "items": [{"role": "user", "content": format!("haystack {name}")}]});
        self.ledger.adds(false);
        let started = Instant::now();
        let answer = expect(self.rest(Method::POST, "/api/v1/contexts", Some(&new)).await, 201);
        let made = answer.and_then(|answer| {
            let id = json_of(&answer)["id"].as_str().map(str::to_owned);
            id.ok_or_else(|| Wrong::answer(201, "no id", &answer.text))
        });
        let id = self.ledger.note("rest create", started.elapsed(), made)?;
        self.ledger.adds(true);
        let known = Known { id, name };
        self.lock().push_back(known.clone());
        Some(known)
    }

    /// Removes the oldest context, and keeps account of it.
    pub(crate) async fn remove_oldest(&self) {
        let Some(oldest) = self.lock().pop_front() else {
            return;
        };
        self.ledger.removes(false);
        let started = Instant::now();
        let gone = self
            .rest(Method::DELETE, &format!("/api/v1/contexts/{}", oldest.id), None)
            .await;
        let gone = expect(gone, 204);
        if self.ledger.note("rest delete", started.elapsed(), gone).is_some() {
            self.ledger.removes(true);
        }
    }

    /// One of the newer half of the contexts: it will be there for a while yet.
    pub(crate) fn any(&self, turn: usize) -> Option<Known> {
        let known = self.lock();
        let half = known.len() / 2;
        known.get(half + turn % half.max(1)).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks rest-api.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn rest(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> Result<Answer, Wrong> {
        let request = self.request(method, path, &self.rest, body);
        Ok(self.rest.send(request.map_err(unmade)?).await?)
    }

    /// Calls a registered tool with a word that it must give back, as clients of the newer protocol do.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn run(&self, tool: &str, word: &str) -> Result<(), Wrong> {
        let params = json!({"name": tool, "arguments": {"word": word}});
        let result = self.modern("tools/call", params).await?;
        gave_back(&result, word)
    }

    /// Makes a call of the newer protocol, and gives its result.
    ///
    /// # Errors
    /// When there is none, or the tool says that it failed.
    pub(crate) async fn modern(&self, method: &str, mut params: Json) -> Result<Json, Wrong> {
        let version = Era::Modern.version();
        params["_meta"] = json!({
            format!("{META}protocolVersion"): version, format!("{META}clientCapabilities"): {},
            format!("{META}clientInfo"): {"name": "load", "version": "0"},
        });
        let name = params["name"].as_str().unwrap_or_default().to_owned();
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut request = self.mcp_request(&self.mcp, version, &body)?;
        let headers = request.headers_mut();
        for (header, value) in [("mcp-method", method), ("mcp-name", &name)] {
            if let (false, Ok(value)) = (value.is_empty(), value.parse()) {
                headers.insert(header, value);
            }
        }
        result(&self.mcp.send(request).await?)
    }

    /// A request to mcp-server.
    pub(crate) fn mcp_request(
        &self,
        peer: &Peer,
        version: &str,
        body: &Json,
    ) -> Result<Request<Full<Bytes>>, Wrong> {
        let mut request = self
            .request(Method::POST, "/mcp", peer, Some(body))
            .map_err(unmade)?;
        let headers = request.headers_mut();
        headers.insert(
            header::ACCEPT,
            header::HeaderValue::from_static("application/json, text/event-stream"),
        );
        headers.insert("mcp-protocol-version", version.parse().map_err(unmade)?);
        Ok(request)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        peer: &Peer,
        body: Option<&Json>,
    ) -> http::Result<Request<Full<Bytes>>> {
        let body = body.map(Json::to_string).unwrap_or_default();
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &peer.address)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
    }
}

/// A word that was never used before.
pub(crate) fn word() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// An answer of this status.
pub(crate) fn expect(answer: Result<Answer, Wrong>, status: u16) -> Result<Answer, Wrong> {
    let answer = answer?;
    let got = answer.status.as_u16();
    if got == status {
        return Ok(answer);
    }
    Err(Wrong::answer(got, &format!("expected {status}"), &answer.text))
}

/// The body as JSON; `null` where it is none.
pub(crate) fn json_of(answer: &Answer) -> Json {
    serde_json::from_str(&answer.text).unwrap_or_default()
}

/// The result of a JSON-RPC call, be it answered as JSON or as a stream of events.
pub(crate) fn result(answer: &Answer) -> Result<Json, Wrong> {
    let wrong = |what: &str| Wrong::answer(answer.status.as_u16(), what, &answer.text);
    if !answer.status.is_success() {
        return Err(wrong("expected 200"));
    }
    let events = answer.text.lines().filter_map(|line| line.strip_prefix("data:"));
    let result = std::iter::once(answer.text.as_str())
        .chain(events)
        .filter_map(|text| serde_json::from_str::<Json>(text.trim()).ok())
        .find_map(|mut message| message.get_mut("result").map(Json::take))
        .ok_or_else(|| wrong("no result"))?;
    if result["isError"] == true {
        return Err(wrong("the tool failed"));
    }
    Ok(result)
}

/// Whether a tool's result holds the word that it was given.
pub(crate) fn gave_back(result: &Json, word: &str) -> Result<(), Wrong> {
    let text = result.to_string();
    if text.contains(word) {
        return Ok(());
    }
    Err(Wrong::answer(200, &format!("{word} was not given back"), &text))
}

fn unmade(error: impl std::fmt::Display) -> Wrong {
    Wrong {
        status: None,
        error: format!("not a request: {error}"),
    }
}

/// The kinds of tool and what calls of them are counted as.
pub(crate) fn tool(pod: &str, once: bool) -> (&'static str, String) {
    let (prefix, kind) = if once {
        (TOOLS[1].0, ONCE)
    } else {
        (TOOLS[0].0, "mcp tool")
    };
    (kind, format!("{prefix}-{pod}"))
}
