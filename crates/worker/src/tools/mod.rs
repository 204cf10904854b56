//! The kinds of tools, one file each, and the product's own tools.

pub mod built_in;
mod http;
mod mcp;
pub mod observe;

pub use mcp::{Listing, Server};

use crate::{outcome::Failure, progress::Reporter, settings::Settings, sources::Sources};
use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    ExecutionId, JsonObject, Scopes,
    tool::{Credentials, ToolSpec},
};
use proto::v1;
use serde_json::Value;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What a run is to do. Has no `Debug`: arguments and credentials are nobody's to print.
pub struct Call {
    /// The execution, which is also the idempotency key that the endpoint gets.
    pub execution_id: ExecutionId,
    /// Whose run it is: the tenant's name.
    pub tenant: String,
    /// The tool as it is registered.
    pub tool: ToolSpec,
    /// What it is called with.
    pub arguments: JsonObject,
    /// What its endpoint is shown.
    pub credentials: Option<Credentials>,
    /// Raised by the tool.
    pub departed: Departed,
    /// Which attempt this is, where that is known: 1, 2, …
    pub attempt: Option<i32>,
    /// It is one of the product's own tools, not one that a tenant registered.
    pub built_in: bool,
    /// Whose key asked for it.
    pub caller: Caller,
}

/// The key that asked for a run. Only the product's own tools are told of it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Its identifier.
    pub key_id: String,
    /// A person's name for it.
    pub key_name: String,
    /// What it may do.
    pub scopes: Scopes,
}

impl Call {
    /// Whether the run may have had an effect that a second run would have again.
    pub fn may_have_acted(&self) -> bool {
        self.departed.is_raised() && !self.tool.runs_twice()
    }
}

/// Raised as soon as anything of a run may have reached the endpoint.
#[derive(Clone, Debug, Default)]
pub struct Departed(Arc<AtomicBool>);

impl Departed {
    /// From here on the endpoint may act.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the endpoint may have acted.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A kind of tool. Its future is dropped when the caller leaves or the tool's time is over: whatever it holds open
/// must close by that.
#[async_trait]
pub trait ToolKind: Send + Sync {
    /// Runs it. Raises `call.departed` before anything leaves.
    ///
    /// # Errors
    /// [`Failure`], with the answer where there was one.
    async fn run(&self, call: &Call, progress: &Reporter) -> Result<Value, Failure>;
}

/// All kinds of tools. What is neither built in nor another MCP server's is an HTTP tool.
pub struct Tools {
    http: Arc<http::HttpTool>,
    mcp: mcp::McpTool,
    observe: observe::Observe,
}

impl Tools {
    /// Prepares what the kinds share: clients, their pools and certificates.
    ///
    /// # Errors
    /// When the system's certificates, or those of a source, cannot be read.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let sources = Sources::new(&settings.sources, &settings.outbound.user_agent)?;
        let http = Arc::new(http::HttpTool::new(&settings.outbound)?);
        Ok(Self {
            mcp: mcp::McpTool::new(Arc::clone(&http), &settings.outbound),
            http,
            observe: observe::Observe::new(sources),
        })
    }

    /// The kind that a call needs.
    pub fn kind(&self, call: &Call) -> &dyn ToolKind {
        if call.built_in {
            &self.observe
        } else if call.tool.options.upstream.is_some() {
            &self.mcp
        } else {
            &*self.http
        }
    }

    /// The product's own tools that somebody may call, as rest-api is told of them.
    pub fn manifest(&self) -> Vec<v1::BuiltInTool> {
        self.observe.manifest()
    }

    /// Whether other MCP servers are left alone: the samples of [`crate::metrics::UPSTREAM_CIRCUIT_OPEN`].
    pub fn circuits(&self) -> Vec<([String; 1], f64)> {
        self.mcp.circuits()
    }

    /// Asks another MCP server for its tools.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn list_upstream(&self, server: &Server<'_>) -> Result<Listing, Failure> {
        self.mcp.list(server).await
    }

    /// Asks for a document by GET, behind the same guard. `limit` in bytes; what comes is for the caller to count.
    ///
    /// # Errors
    /// [`Failure`], also when the answer is not 2xx.
    pub async fn document(&self, url: &str, limit: u64) -> Result<Document, Failure> {
        self.http.document(url, limit).await.map(|answer| Document {
            answer,
            limit,
            seen: 0,
        })
    }
}

/// A document on its way.
pub struct Document {
    answer: reqwest::Response,
    limit: u64,
    seen: u64,
}

impl Document {
    /// What comes next of it; `None` at its end.
    ///
    /// # Errors
    /// When it is larger than the limit, or the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(part) = http::part(&mut self.answer).await? else {
            return Ok(None);
        };
        self.seen += part.len() as u64;
        if self.seen > self.limit {
            return Err(http::document_too_large(self.limit));
        }
        Ok(Some(part))
    }
}
