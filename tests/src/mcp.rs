//! A real MCP client, in both eras of the protocol.

use crate::Json;
use anyhow::Context;
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient,
    model::{
        CallToolRequestParams, CallToolResult, ProgressNotificationParam, ProtocolVersion, RequestMetaObject,
        ResourceUpdatedNotificationParam, Tool,
    },
    service::{ClientCacheConfig, ClientInitializeError, NotificationContext, RunningService, ServiceError},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Which revision of the protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25: `initialize`, sessions.
    Legacy,
    /// 2026-07-28: `server/discover`, stateless.
    Modern,
}

impl Era {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Modern];

    /// The revision's name on the wire.
    pub fn version(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

/// What the server told the client unasked.
#[derive(Clone, Default)]
pub struct Heard {
    progress: Arc<Mutex<Vec<ProgressNotificationParam>>>,
    tool_list_changes: Arc<AtomicUsize>,
    updates: Arc<Mutex<Vec<String>>>,
    messages: Arc<Mutex<Vec<Json>>>,
}

impl Heard {
    /// Progress so far.
    pub fn progress(&self) -> Vec<ProgressNotificationParam> {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often the list of tools was said to have changed.
    pub fn tool_list_changes(&self) -> usize {
        self.tool_list_changes.load(Ordering::SeqCst)
    }

    /// The resources that were said to have changed, by their URIs.
    pub fn updates(&self) -> Vec<String> {
        self.updates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What was said about the client's calls.
    pub fn messages(&self) -> Vec<Json> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientHandler for Heard {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(params);
    }

    async fn on_resource_updated(
        &self,
        told: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.updates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told.uri);
    }

    #[expect(deprecated, reason = "servers tell clients of older versions so")]
    async fn on_logging_message(
        &self,
        told: rmcp::model::LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told.data);
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tool_list_changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A connected client.
pub struct Client {
    running: RunningService<RoleClient, Heard>,
    /// What it was told unasked.
    pub heard: Heard,
}

impl std::ops::Deref for Client {
    type Target = rmcp::Peer<RoleClient>;
    fn deref(&self) -> &Self::Target {
        self.running.peer()
    }
}

/// Connects to `url` (`…/mcp`) with an API key.
///
/// # Errors
/// When the server refuses.
pub async fn connect(url: &str, key: &str, era: Era) -> Result<Client, ClientInitializeError> {
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(key);
    let transport = StreamableHttpClientTransport::with_client(crate::http_client(), config);
    let lifecycle = match era {
        Era::Legacy => ClientLifecycleMode::Initialize,
        Era::Modern => ClientLifecycleMode::Discover {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        },
    };
    let heard = Heard::default();
    let running = heard.clone().serve_with_lifecycle(transport, lifecycle).await?;
    // The server lets clients keep a list of tools for a minute; tests ask what it says now.
    running
        .set_response_cache_config(ClientCacheConfig::disabled())
        .await;
    Ok(Client { running, heard })
}

/// The parameters of a tool call.
///
/// # Panics
/// When `arguments` is not an object.
pub fn params(tool: &str, arguments: &Json) -> CallToolRequestParams {
    let arguments = arguments.as_object().cloned().expect("arguments are an object");
    CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments)
}

impl Client {
    /// Calls a tool.
    ///
    /// # Errors
    /// What the server answers with an error.
    pub async fn call(&self, tool: &str, arguments: &Json) -> Result<CallToolResult, ServiceError> {
        self.call_tool(params(tool, arguments)).await
    }

    /// Calls a tool as part of a trace.
    ///
    /// # Errors
    /// What the server answers with an error.
    pub async fn call_traced(
        &self,
        tool: &str,
        arguments: &Json,
        traceparent: &str,
    ) -> Result<CallToolResult, ServiceError> {
        let mut params = params(tool, arguments);
        let mut meta = RequestMetaObject::new();
        meta.set_traceparent(traceparent);
        params.meta = Some(meta);
        self.call_tool(params).await
    }

    /// Calls a tool that must succeed, and gives its structured result.
    ///
    /// # Errors
    /// When the call fails, or the tool says that it did.
    pub async fn structured(&self, tool: &str, arguments: &Json) -> anyhow::Result<Json> {
        let result = self
            .call(tool, arguments)
            .await
            .with_context(|| format!("calling {tool}"))?;
        anyhow::ensure!(result.is_error != Some(true), "{tool} failed: {}", text(&result));
        result
            .structured_content
            .with_context(|| format!("{tool} gave no structured content"))
    }

    /// Waits until the server lists a tool: one that was just registered takes a moment to reach every replica.
    ///
    /// # Errors
    /// When it never does.
    pub async fn wait_for_tool(&self, name: &str) -> anyhow::Result<Tool> {
        crate::wait_for(&format!("{name} to be listed"), async || {
            let listed = self.list_all_tools().await.unwrap_or_default();
            listed.into_iter().find(|tool| tool.name == name)
        })
        .await
    }

    /// Ends the session.
    pub async fn close(self) {
        // A server that is gone already cannot be told.
        let _ = self.running.cancel().await;
    }
}

/// The text of a result.
pub fn text(result: &CallToolResult) -> String {
    result
        .content
        .iter()
        .filter_map(|block| block.as_text())
        .map(|text| text.text.as_str())
        .collect()
}
