//! The real mcp-server on port 0 over a fake rest-api, and clients of both eras.

use crate::fake::{Fake, SERVICE_TOKEN};
use chassis::{Configuration, Service, lifecycle::Running};
use domain::TenantId;
use mcp_server::{McpServer, Settings};
use parking_lot::Mutex;
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt,
    model::{
        CallToolRequestParams, ProgressNotificationParam, ProtocolVersion, ResourceUpdatedNotificationParam,
    },
    service::{NotificationContext, RoleClient, RunningService},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub(crate) const ALL: &str = "contexts:read,contexts:write,tools:read,tools:execute";
/// How long to wait for what must come about, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const LEGACY: &str = "2025-11-25";

/// One for the whole process, on a runtime that outlives each test's.
static TELEMETRY: LazyLock<(tokio::runtime::Runtime, telemetry::Telemetry)> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let telemetry = {
        let _entered = runtime.enter();
        let mut settings = telemetry::Settings::default();
        settings.logging.level = "warn,rmcp=off".into();
        telemetry::init(McpServer::INFO, "test", &settings, McpServer::declarations()).unwrap()
    };
    (runtime, telemetry)
});

pub(crate) struct House {
    pub(crate) rest: Fake,
    pub(crate) rest_address: SocketAddr,
    pub(crate) mcp: Running,
    pub(crate) url: String,
    pub(crate) tenant: TenantId,
    pub(crate) key: String,
    pub(crate) http: reqwest::Client,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let (rest, rest_address) = Fake::start().await;
        let tenant = TenantId::new();
        let key = rest.key(tenant, ALL);
        let mcp = replica(rest_address, change).await;
        let url = format!("http://{}/mcp", mcp.http);
        Self {
            rest,
            rest_address,
            mcp,
            url,
            tenant,
            key,
            http: reqwest::Client::new(),
        }
    }

    pub(crate) async fn client(&self, mode: ClientLifecycleMode) -> RunningService<RoleClient, Listener> {
        self.client_of(&self.key, mode).await
    }

    pub(crate) async fn client_of(
        &self,
        key: &str,
        mode: ClientLifecycleMode,
    ) -> RunningService<RoleClient, Listener> {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.clone()).auth_header(key);
        let transport = StreamableHttpClientTransport::from_config(config);
        Listener::default()
            .serve_with_lifecycle(transport, mode)
            .await
            .unwrap()
    }

    /// A request of 2026-07-28, by hand.
    pub(crate) async fn modern(&self, key: &str, method: &str, params: Value) -> (u16, Value) {
        let answer = self.post(&self.url, key, method, params).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) fn post(
        &self,
        url: &str,
        key: &str,
        method: &str,
        mut params: Value,
    ) -> reqwest::RequestBuilder {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
        let capabilities = &mut params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        if capabilities.is_null() {
            *capabilities = json!({});
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut request = self
            .http
            .post(url)
            .bearer_auth(key)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", method);
        if let Some(name) = ["name", "uri", "taskId"]
            .iter()
            .find_map(|name| params[name].as_str())
        {
            request = request.header("mcp-name", name);
        }
        request.body(body.to_string())
    }

    /// A request of 2026-07-28 from a client that can do something.
    pub(crate) async fn able(&self, key: &str, can: &Value, method: &str, mut params: Value) -> Value {
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = can.clone();
        self.modern(key, method, params).await.1
    }

    pub(crate) async fn call(&self, key: &str, tool: &str, arguments: Value) -> Value {
        let (status, answer) = self
            .modern(key, "tools/call", json!({"name": tool, "arguments": arguments}))
            .await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Waits until that many tools are listed for the house's tenant.
    pub(crate) async fn until_tools(&self, count: usize) {
        until(&format!("{count} tools"), async || {
            let (_, list) = self.modern(&self.key, "tools/list", json!({})).await;
            list["result"]["tools"].as_array().map(Vec::len) == Some(count)
        })
        .await;
    }

    pub(crate) fn metrics(&self) -> String {
        self.mcp.host.telemetry.render(None).1
    }
}

/// Another mcp-server over the same rest-api.
pub(crate) async fn replica(rest_api: SocketAddr, change: impl FnOnce(&mut Settings)) -> Running {
    let telemetry = tokio::task::spawn_blocking(|| TELEMETRY.1.handle())
        .await
        .unwrap();
    let mut configuration = Configuration::<Settings>::defaults();
    configuration.common.http.address.set_port(0);
    configuration.common.service_token = Some(SecretString::from(SERVICE_TOKEN));
    configuration.service.rest_api.url = format!("http://{rest_api}");
    change(&mut configuration.service);
    chassis::lifecycle::start::<McpServer>(configuration, telemetry)
        .await
        .unwrap()
}

pub(crate) fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    }
}

pub(crate) fn legacy() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

pub(crate) fn call(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    let Value::Object(arguments) = arguments else {
        panic!("an object")
    };
    CallToolRequestParams::new(tool).with_arguments(arguments)
}

/// Counts what the server tells.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    pub(crate) progress: Arc<AtomicUsize>,
    pub(crate) changes: Arc<AtomicUsize>,
    /// The resources that it was told of.
    pub(crate) updates: Arc<Mutex<Vec<String>>>,
    /// What it was told of its calls.
    pub(crate) messages: Arc<Mutex<Vec<String>>>,
}

impl ClientHandler for Listener {
    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.fetch_add(1, Ordering::SeqCst);
    }

    async fn on_resource_updated(
        &self,
        told: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.updates.lock().push(told.uri);
    }

    #[expect(deprecated, reason = "clients of older versions are told so")]
    async fn on_logging_message(
        &self,
        told: rmcp::model::LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.messages.lock().push(told.data.to_string());
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    until(what, async || condition()).await;
}

/// Waits until `condition`, which asks somebody, holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
