//! MCP itself: what one tenant's clients are answered. The SDK calls it from tasks of its own.

mod calls;
mod lists;
mod notices;

use crate::{
    caller::{Caller, Upstream, in_time},
    catalogue::{Catalogue, Tools},
    resources,
    settings::Results,
    span::{Answer, Operation, Wishes, caller, observed},
    tools::{self, Call},
};
use domain::TenantId;
use http::request::Parts;
use parking_lot::Mutex;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, CustomRequest, CustomResult, DiscoverResult,
        ErrorCode, Implementation, InitializeRequestParams, InitializeResult, ListResourceTemplatesResult,
        ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
        ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, SubscriptionFilter, Tool,
    },
    service::{NotificationContext, Peer, RequestContext, SubscriptionContext},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicUsize},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const INSTRUCTIONS: &str = "Keep what you learn in contexts: shared working memory that survives you and that other \
    agents and engineers of this tenant read. Search before you create. The other tools are this tenant's own.";

type Answered<T> = Result<T, ErrorData>;

/// What all tenants' handlers share.
pub(crate) struct Shared {
    /// rest-api.
    pub(crate) upstream: Upstream,
    /// Registered tools.
    pub(crate) catalogue: Catalogue,
    /// Built-in tools, by name.
    pub(crate) built_in: BTreeMap<&'static str, tools::Tool>,
    /// How large answers may be.
    pub(crate) results: Results,
    /// How many notification streams a tenant may have open.
    pub(crate) max_subscriptions: usize,
    /// What the server says about itself.
    pub(crate) info: ServerConfig,
    /// Operations that want to be sampled.
    pub(crate) wishes: Wishes,
    /// Ends notification streams.
    pub(crate) shutdown: CancellationToken,
    /// Tool calls in flight, which are not cut when the service stops.
    pub(crate) calls: TaskTracker,
}

/// What the server says about itself.
pub(crate) fn info() -> ServerConfig {
    let capabilities = ServerCapabilities::builder()
        .enable_tools()
        .enable_tool_list_changed()
        .enable_resources()
        .build();
    let server = Implementation::new("devops-mcp", env!("CARGO_PKG_VERSION")).with_title("DevOps MCP");
    ServerConfig::new(capabilities)
        .with_server_info(server)
        .with_instructions(INSTRUCTIONS)
}

/// One tenant's MCP server.
pub(crate) struct Handler {
    shared: Arc<Shared>,
    tenant: TenantId,
    /// Clients in sessions, by their ids: they are told of changes through them.
    sessions: Mutex<HashMap<Box<str>, Peer<RoleServer>>>,
    /// The list that those clients know of.
    told: Mutex<Arc<Tools>>,
    subscriptions: AtomicUsize,
}

impl Handler {
    /// The server of `tenant`.
    pub(crate) fn new(shared: Arc<Shared>, tenant: TenantId) -> Self {
        let told = Mutex::new(shared.catalogue.tools(tenant));
        Self {
            shared,
            tenant,
            sessions: Mutex::default(),
            told,
            subscriptions: AtomicUsize::new(0),
        }
    }

    fn call<'a>(&'a self, caller: &'a Caller) -> Call<'a> {
        Call {
            caller,
            upstream: &self.shared.upstream,
            results: &self.shared.results,
        }
    }
}

fn session_id(parts: &Parts) -> Option<&str> {
    parts.headers.get("mcp-session-id")?.to_str().ok()
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        self.shared.info.clone()
    }

    async fn ping(&self, cx: RequestContext<RoleServer>) -> Answered<()> {
        observed(&self.shared.wishes, Operation::of("ping"), &cx, async { Ok(()) }).await
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<InitializeResult> {
        observed(&self.shared.wishes, Operation::of("initialize"), &cx, async {
            let result = self.negotiate_initialize(&request);
            cx.peer.set_peer_info(request);
            result
        })
        .await
    }

    async fn discover(&self, cx: RequestContext<RoleServer>) -> Answered<DiscoverResult> {
        let versions = self.supported_protocol_versions().into_owned();
        let result = DiscoverResult::from_server_info(versions, self.get_info());
        observed(
            &self.shared.wishes,
            Operation::of("server/discover"),
            &cx,
            async { Ok(result) },
        )
        .await
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Answered<ListToolsResult> {
        observed(&self.shared.wishes, Operation::of("tools/list"), &cx, async {
            self.list(&*caller(&cx)?, request)
        })
        .await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<CallToolResponse> {
        let _in_flight = self.shared.calls.token();
        let name = request.name.clone();
        let label = self.label(&self.shared.catalogue.tools(self.tenant), &name);
        observed(
            &self.shared.wishes,
            Operation::call(label),
            &cx,
            self.run(request, &cx),
        )
        .await
        .map(CallToolResponse::from)
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Answered<ListResourcesResult> {
        let cursor = request.and_then(|request| request.cursor);
        observed(&self.shared.wishes, Operation::of("resources/list"), &cx, async {
            Ok(in_time(resources::list(self.call(&*caller(&cx)?), cursor)).await?)
        })
        .await
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Answered<ListResourceTemplatesResult> {
        observed(
            &self.shared.wishes,
            Operation::of("resources/templates/list"),
            &cx,
            async { Ok(resources::templates()) },
        )
        .await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<ReadResourceResponse> {
        let operation = Operation {
            uri: Some(&request.uri),
            ..Operation::of("resources/read")
        };
        let work = async { Ok(in_time(resources::read(self.call(&*caller(&cx)?), &request.uri)).await?) };
        observed(&self.shared.wishes, operation, &cx, work)
            .await
            .map(|result: ReadResourceResult| result.into())
    }

    /// Called for every tools/call. Only a schema that asks for arguments in headers is of interest there, and the
    /// product's own have none.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.shared.catalogue.tools(self.tenant).get(name).cloned()
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        cx: RequestContext<RoleServer>,
    ) -> Answered<CustomResult> {
        // The method is the client's own word, so it is no label.
        let unknown = ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None);
        observed(&self.shared.wishes, Operation::of("other"), &cx, async {
            Err(unknown)
        })
        .await
    }

    async fn on_initialized(&self, cx: NotificationContext<RoleServer>) {
        self.forget_closed();
        // A client may say it again and again: one session stays one entry.
        let id = cx
            .extensions
            .get::<Parts>()
            .and_then(session_id)
            .unwrap_or_default();
        self.sessions.lock().insert(id.into(), cx.peer);
    }

    fn accepted_subscription_filter(&self, _requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(SubscriptionFilter::builder().tools_list_changed().build())
    }

    /// A notification stream of protocol version 2026-07-28: told of every change until the client has enough. It is
    /// not measured as an operation, for it lasts as long as the client likes.
    async fn listen(&self, cx: SubscriptionContext) -> Answered<()> {
        let _open = self.subscribed()?;
        let mut changes = self.shared.catalogue.changes();
        let mut told = self.shared.catalogue.tools(self.tenant);
        loop {
            tokio::select! {
                () = cx.cancelled() => return Ok(()),
                () = self.shared.shutdown.cancelled() => return Ok(()),
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
            }
            let now = self.shared.catalogue.tools(self.tenant);
            let changed = !Arc::ptr_eq(&std::mem::replace(&mut told, now.clone()), &now);
            let wanted = cx.accepted().tools_list_changed == Some(true);
            if changed && wanted && cx.sink().notify_tool_list_changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Answer for () {}
impl Answer for InitializeResult {}
impl Answer for DiscoverResult {}
impl Answer for ListToolsResult {}
impl Answer for ListResourcesResult {}
impl Answer for ListResourceTemplatesResult {}
impl Answer for ReadResourceResult {}
impl Answer for CustomResult {}

impl Answer for CallToolResult {
    fn error_type(&self) -> Option<&'static str> {
        (self.is_error == Some(true)).then_some("tool_error")
    }
}
