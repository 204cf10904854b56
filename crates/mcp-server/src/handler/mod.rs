//! MCP itself: what one tenant's clients are answered. The SDK calls it from tasks of its own.
#![expect(
    deprecated,
    reason = "clients of older versions subscribe one by one and set logging levels"
)]

mod calls;
mod lists;
mod notices;
mod tasks;

use crate::{
    audit::Trail,
    auth::Door,
    caller::{Caller, Upstream, in_time},
    catalogue::{Catalogue, Shown},
    completion,
    confirm::Confirmations,
    logging::{self, Levels},
    prompts, resources,
    settings::{self, Results, Tasks},
    span::{Answer, Operation, Wishes, caller, observed},
    subscriptions::Subscriptions,
    tools::{self, Call},
};
use domain::TenantId;
use http::request::Parts;
use lists::toolsets;
use parking_lot::Mutex;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
        CustomRequest, CustomResult, DiscoverResult, GetPromptRequestParams, GetPromptResponse,
        GetPromptResult, GetTaskParams, GetTaskResult, Implementation, InitializeRequestParams,
        InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
        ReadResourceResult, ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams,
        SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
    },
    service::{NotificationContext, Peer, RequestContext, SubscriptionContext},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicUsize},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const INSTRUCTIONS: &str = "Keep what you learn in contexts: shared working memory that survives you and that other \
    agents and engineers of this tenant read. Search before you create. When an alert fires, begin with the resource \
    incidents://open and explain_alert; runbooks are at runbook://{alert}, and the prompt investigate_alert says how to go \
    on. Answers say what they left out. The other tools are this tenant's own.";

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
    /// Which calls become tasks.
    pub(crate) tasks: Tasks,
    /// What asks a person before a destructive tool runs; without it nobody is asked.
    pub(crate) confirmations: Option<Confirmations>,
    /// How many notification streams a tenant may have open, and how many of its clients may wait for a person's word or
    /// a task's end.
    pub(crate) max_subscriptions: usize,
    /// How many resources a client may be told of.
    pub(crate) subscriptions: settings::Subscriptions,
    /// Who may still call.
    pub(crate) door: Door,
    /// The audit log.
    pub(crate) trail: Trail,
    /// Runs what outlives a request.
    pub(crate) background: chassis::Tasks,
    /// What the server says about itself.
    pub(crate) info: ServerConfig,
    /// Operations that want to be sampled.
    pub(crate) wishes: Wishes,
    /// Ends notification streams.
    pub(crate) draining: CancellationToken,
    /// Ends waits that a client can take up again.
    pub(crate) shutdown: CancellationToken,
    /// Tool calls in flight, which are not cut when the service stops.
    pub(crate) calls: TaskTracker,
}

/// What the server says about itself.
pub(crate) fn info() -> ServerConfig {
    let capabilities = ServerCapabilities::builder()
        .enable_tools()
        .enable_tool_list_changed()
        .enable_tasks()
        .enable_prompts()
        .enable_resources()
        .enable_resources_subscribe()
        .enable_completions()
        .enable_logging()
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
    told: Mutex<Shown>,
    /// Open notification streams.
    streams: AtomicUsize,
    /// Room for clients that wait for a person's word or a task's end.
    waits: Semaphore,
    subscriptions: Subscriptions,
    levels: Levels,
}

impl Handler {
    /// The server of `tenant`.
    pub(crate) fn new(shared: Arc<Shared>, tenant: TenantId) -> Self {
        let told = Mutex::new(shared.catalogue.shown(tenant));
        Self {
            subscriptions: Subscriptions::new(shared.subscriptions.clone()),
            waits: Semaphore::new(shared.max_subscriptions),
            levels: Levels::default(),
            shared,
            tenant,
            sessions: Mutex::default(),
            told,
            streams: AtomicUsize::new(0),
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
            self.list(&*caller(&cx)?, &toolsets(&cx), request)
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
        let operation = Operation::call(self.label(&cx, &name));
        let mut entry = self.shared.trail.call(&request, &cx);
        let work = async {
            entry.traced();
            self.run(request, &cx).await
        };
        let answer = observed(&self.shared.wishes, operation, &cx, work).await;
        entry.ended(&answer);
        answer
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<GetTaskResult> {
        let work = self.task(&request.task_id, &cx);
        observed(&self.shared.wishes, Operation::of("tasks/get"), &cx, work).await
    }

    /// No task of ours asks its client anything, so no answer is waited for: those that come are taken and forgotten.
    async fn update_task(&self, request: UpdateTaskParams, cx: RequestContext<RoleServer>) -> Answered<()> {
        let work = async { self.task(&request.task_id, &cx).await.map(drop) };
        observed(&self.shared.wishes, Operation::of("tasks/update"), &cx, work).await
    }

    async fn cancel_task(&self, request: CancelTaskParams, cx: RequestContext<RoleServer>) -> Answered<()> {
        let work = async { self.end_task(&request.task_id, &cx).await.map(drop) };
        observed(&self.shared.wishes, Operation::of("tasks/cancel"), &cx, work).await
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

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Answered<ListPromptsResult> {
        observed(&self.shared.wishes, Operation::of("prompts/list"), &cx, async {
            Ok(prompts::list())
        })
        .await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<GetPromptResponse> {
        let work = async { Ok(in_time(prompts::get(self.call(&*caller(&cx)?), &request)).await?) };
        observed(&self.shared.wishes, Operation::of("prompts/get"), &cx, work)
            .await
            .map(|result: GetPromptResult| result.into())
    }

    /// Called for every tools/call. Only a schema that asks for arguments in headers is of interest there, and the
    /// product's own have none.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.seen(name)
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        cx: RequestContext<RoleServer>,
    ) -> Answered<CustomResult> {
        self.custom(request, cx).await
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

    async fn complete(
        &self,
        request: CompleteRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<CompleteResult> {
        observed(
            &self.shared.wishes,
            Operation::of("completion/complete"),
            &cx,
            async { Ok(in_time(completion::complete(self.call(&*caller(&cx)?), &request)).await?) },
        )
        .await
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<()> {
        observed(
            &self.shared.wishes,
            Operation::of("logging/setLevel"),
            &cx,
            async {
                self.levels.set(&cx, request.level);
                Ok(())
            },
        )
        .await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<()> {
        let operation = Operation {
            uri: Some(&request.uri),
            ..Operation::of("resources/subscribe")
        };
        let work = async { Ok(self.subscribe_session(&request.uri, &cx).await?) };
        observed(&self.shared.wishes, operation, &cx, work).await
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<()> {
        let operation = Operation {
            uri: Some(&request.uri),
            ..Operation::of("resources/unsubscribe")
        };
        let work = async {
            self.subscriptions
                .sessions
                .remove(logging::session(&cx), &request.uri);
            Ok(())
        };
        observed(&self.shared.wishes, operation, &cx, work).await
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(self.subscriptions.accepted(requested))
    }

    /// A notification stream of protocol version 2026-07-28: told of every change until the client has enough. It is
    /// not measured as an operation, for it lasts as long as the client likes.
    async fn listen(&self, cx: SubscriptionContext) -> Answered<()> {
        let _open = self.subscribed()?;
        let caller = caller(cx.request_context())?;
        let upstream = &self.shared.upstream;
        let resources = self
            .subscriptions
            .follow_all(upstream, &caller, cx.accepted())
            .await?;
        tokio::select! {
            () = cx.cancelled() => {}
            () = self.shared.draining.cancelled() => {}
            () = self.tell_of_tools(&cx) => {}
            () = notices::tell_of_resources(&cx, resources) => {}
        }
        Ok(())
    }
}

impl Answer for () {}
impl Answer for InitializeResult {}
impl Answer for DiscoverResult {}
impl Answer for ListToolsResult {}
impl Answer for ListResourcesResult {}
impl Answer for ListResourceTemplatesResult {}
impl Answer for ReadResourceResult {}
impl Answer for ListPromptsResult {}
impl Answer for GetPromptResult {}
impl Answer for CompleteResult {}

impl Answer for GetTaskResult {}
impl Answer for serde_json::Value {}

impl Answer for CallToolResponse {
    fn error_type(&self) -> Option<&'static str> {
        let Self::Complete(result) = self else { return None };
        (result.is_error == Some(true)).then_some("tool_error")
    }
}
