//! The `/mcp` endpoint. Every tenant has an MCP server of its own behind it: sessions, their stored state and the list
//! of tools are a tenant's by construction, and no check can be forgotten.

use crate::{
    caller::{Ambient, Caller},
    catalogue::Catalogue,
    handler::Handler,
    refusal,
    sessions::{Initializations, Sessions},
    settings,
    tasks::legacy,
    toolsets::Toolsets,
};
use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use chassis::Problem;
use coordination::Cache;
use domain::TenantId;
use parking_lot::RwLock;
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// All tenants' MCP servers, made when first needed. There are as many as tenants have called.
pub(crate) struct Tenants<H> {
    make: Make<H>,
    config: StreamableHttpServerConfig,
    cache: Arc<dyn Cache>,
    sessions: settings::Sessions,
    legacy_tasks: bool,
    draining: CancellationToken,
    open_sessions: Arc<AtomicUsize>,
    tenants: RwLock<HashMap<TenantId, Arc<Tenant<H>>>>,
}

tokio::task_local! {
    /// Who sent the HTTP request that is being read: the SDK asks for a tool's schema before it has a request of its own.
    pub(crate) static CALLER: Arc<Caller>;
}

/// Makes a tenant's handler.
type Make<H> = Box<dyn Fn(TenantId) -> H + Send + Sync>;

struct Tenant<H> {
    handler: Arc<H>,
    mcp: StreamableHttpService<Arc<H>, Sessions>,
}

impl<H: ServerHandler> Tenants<H> {
    /// No tenant yet; each gets the SDK's `config`. `legacy_tasks`: the handlers do tasks in the form of 2025-11-25.
    /// `draining`: ends clients' standing streams.
    pub(crate) fn new(
        make: Make<H>,
        config: StreamableHttpServerConfig,
        cache: Arc<dyn Cache>,
        sessions: settings::Sessions,
        legacy_tasks: bool,
        draining: CancellationToken,
    ) -> Self {
        Self {
            make,
            config,
            cache,
            sessions,
            legacy_tasks,
            draining,
            open_sessions: Arc::default(),
            tenants: RwLock::default(),
        }
    }

    /// Sessions of all tenants.
    pub(crate) fn open_sessions(&self) -> usize {
        self.open_sessions.load(Ordering::Relaxed)
    }

    fn of(&self, id: TenantId) -> Arc<Tenant<H>> {
        if let Some(tenant) = self.tenants.read().get(&id) {
            return tenant.clone();
        }
        self.tenants
            .write()
            .entry(id)
            .or_insert_with(|| Arc::new(self.open(id)))
            .clone()
    }

    fn open(&self, id: TenantId) -> Tenant<H> {
        let handler = Arc::new((self.make)(id));
        let open = self.open_sessions.clone();
        let sessions = Sessions::new(&self.sessions, open, self.legacy_tasks, self.draining.clone());
        let mut config = self.config.clone();
        let store = Initializations::new(self.cache.clone(), id, self.sessions.resumable);
        config.session_store = Some(Arc::new(store));
        let serve = handler.clone();
        Tenant {
            handler,
            mcp: StreamableHttpService::new(move || Ok(serve.clone()), Arc::new(sessions), config),
        }
    }
}

impl Tenants<Handler> {
    /// Tells clients in sessions of changes to their tools, for ever.
    pub(crate) async fn tell_sessions(self: Arc<Self>, catalogue: Catalogue) {
        let mut changes = catalogue.changes();
        while changes.changed().await.is_ok() {
            let tenants: Vec<_> = self.tenants.read().values().cloned().collect();
            for tenant in tenants {
                tenant.handler.tell_sessions().await;
            }
        }
    }
}

/// Serves one HTTP request to `/mcp`. It has been authenticated.
pub(crate) async fn serve<H: ServerHandler>(
    State(tenants): State<Arc<Tenants<H>>>,
    request: Request,
) -> Response {
    let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() else {
        tracing::error!("a request to /mcp without a caller");
        return refusal::refuse(Problem::internal());
    };
    let toolsets = match Toolsets::of(request.uri()) {
        Ok(toolsets) => toolsets,
        Err(problem) => return refusal::refuse(problem),
    };
    let tenant = tenants.of(caller.principal.tenant_id);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(toolsets);
    // The SDK reads all of it anyway; read here, it is known whether a body that the SDK refuses was JSON at all.
    let body = match to_bytes(body, tenants.config.max_request_body_bytes).await {
        Ok(body) => body,
        Err(error) => return refusal::unread(&error, tenants.config.max_request_body_bytes),
    };
    parts.extensions.insert(Ambient(telemetry::context::current()));
    if tenants.legacy_tasks
        && let Some(wish) = legacy::wish(&parts.headers, &body)
    {
        parts.extensions.insert(wish);
    }
    let request = Request::from_parts(parts, Body::from(body.clone()));
    let response = CALLER.scope(caller, tenant.mcp.handle(request)).await;
    refusal::explained(response.map(Body::new), &body).await
}
