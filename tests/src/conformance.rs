//! What the official conformance suite asks a server to have: tools, prompts and resources whose names and answers it
//! dictates. They are served through mcp-server's own stack by the `conformance` program, and are in no catalogue.
#![expect(
    deprecated,
    reason = "the suite's legacy era has logging levels, which are on their way out"
)]

mod asking;
mod inputs;
mod prompts;
mod resources;
mod suite;
mod tasks;
mod tools;

pub use suite::{LEGACY, MODERN, Report, Scenario, Suite};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
        CompleteResult, CompletionInfo, GetPromptRequestParams, GetPromptResponse, GetTaskParams,
        GetTaskResult, Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
        RequestStateCodec, ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams,
        SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
    },
    service::{RequestContext, SubscriptionContext},
    task_manager::TaskManager,
};
use tokio::sync::broadcast;

/// How long a client may rely upon what it was listed, milliseconds.
const TTL_MS: u64 = 60_000;
/// What signs the state that clients carry from one round to the next. It guards nothing.
const STATE_KEY: &[u8; 32] = b"conformance-request-state-key-00";

type Answered<T> = Result<T, ErrorData>;

/// What a fixture says has changed.
#[derive(Clone, Copy)]
enum Change {
    Tools,
    Prompts,
}

/// The handler that has everything the suite asks for.
pub struct Fixtures {
    changes: broadcast::Sender<Change>,
    state: RequestStateCodec,
    tasks: TaskManager,
}

impl Default for Fixtures {
    fn default() -> Self {
        Self {
            changes: broadcast::Sender::new(16),
            state: RequestStateCodec::try_new(STATE_KEY).expect("a key of 32 bytes"),
            tasks: TaskManager::new(),
        }
    }
}

impl ServerHandler for Fixtures {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_completions()
            .enable_logging()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("conformance-fixtures", "0"))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::all().into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Answered<ListToolsResult> {
        Ok(ListToolsResult::with_all_items(tools::all())
            .with_ttl_ms(TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Answered<CallToolResponse> {
        if inputs::has(&request.name) {
            inputs::call(&self.state, &request, &cx)
        } else if tasks::has(&request.name) {
            tasks::call(&self.tasks, request, &cx).await
        } else if asking::has(&request.name) {
            asking::call(request, &cx).await.map(Into::into)
        } else {
            tools::call(&self.changes, request, &cx).await.map(Into::into)
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Answered<ListPromptsResult> {
        Ok(prompts::list())
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Answered<GetPromptResponse> {
        prompts::get(&request)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Answered<CompleteResult> {
        let typed = request.argument.value.as_str();
        let known = ["paris", "park", "party", "test-value"];
        let fitting = known.iter().filter(|word| word.starts_with(typed));
        let fitting = CompletionInfo::with_all_values(fitting.map(ToString::to_string).collect());
        let fitting = fitting.map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(fitting))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Answered<ListResourcesResult> {
        Ok(resources::list())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Answered<ListResourceTemplatesResult> {
        Ok(resources::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Answered<ReadResourceResponse> {
        resources::read(&request.uri).map(Into::into)
    }

    /// The suite asks no more than that it is accepted.
    async fn subscribe(&self, _: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Answered<()> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Answered<()> {
        Ok(())
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Answered<()> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, cx: SubscriptionContext) -> Answered<()> {
        let mut changes = self.changes.subscribe();
        loop {
            let change = tokio::select! {
                () = cx.cancelled() => return Ok(()),
                change = changes.recv() => change,
            };
            // A notification that the client did not ask for is refused, which is what is wanted.
            let _ = match change {
                Ok(Change::Tools) => cx.sink().notify_tool_list_changed().await,
                Ok(Change::Prompts) => cx.sink().notify_prompt_list_changed().await,
                Err(_) => return Ok(()),
            };
        }
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Answered<GetTaskResult> {
        self.tasks.get_task(&request.task_id).map(GetTaskResult::new)
    }

    async fn update_task(&self, request: UpdateTaskParams, _: RequestContext<RoleServer>) -> Answered<()> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: RequestContext<RoleServer>) -> Answered<()> {
        self.tasks.cancel_task(&request.task_id)
    }
}
