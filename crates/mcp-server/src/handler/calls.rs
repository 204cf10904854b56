//! Calls of tools: those over contexts run here, all others through rest-api, some after a person agreed, some as tasks.

use super::{Answered, Handler, Shared, lists::toolsets};
use crate::{
    caller::Caller,
    catalogue::Shown,
    confirm::{Confirmations, Consent},
    error::{Error, Result},
    execute::{self, Confirmed, Reporter, Run},
    logging::Log,
    rules,
    span::caller,
    tasks::{self, modern},
    tenants::CALLER,
};
use domain::{Scope, execution::ExecutionStatus, tool::built_in::is_built_in};
use proto::v1::Execution;
use rmcp::{
    RoleServer,
    model::{CallToolRequestParams, CallToolResponse, CreateTaskResult, Tool},
    service::RequestContext,
};
use std::sync::Arc;

/// A registered tool's call, as far as it may go.
pub(super) enum Ready {
    /// It may run, and a person may have agreed to it.
    Go(Option<Confirmed>),
    /// A person is to be asked first.
    Ask(CallToolResponse),
}

impl Handler {
    /// Calls a tool.
    pub(super) async fn run(
        &self,
        request: CallToolRequestParams,
        cx: &RequestContext<RoleServer>,
    ) -> Answered<CallToolResponse> {
        let caller = caller(cx)?;
        let answer = match self.shared.built_in.get(&*request.name) {
            Some(_) if !toolsets(cx).hold(&request.name) => Err(Error::UnknownTool(request.name.into())),
            Some(tool) => {
                let result = tool.call(self.call(&caller), request.arguments.unwrap_or_default());
                result.await.map(CallToolResponse::from)
            }
            None => self.run_elsewhere(&caller, request, cx).await,
        };
        answer.or_else(|error| error.into_tool_result().map(CallToolResponse::from))
    }

    /// Has rest-api run a registered tool, or one of the product's own that workers run.
    async fn run_elsewhere(
        &self,
        caller: &Arc<Caller>,
        request: CallToolRequestParams,
        cx: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse> {
        let confirmed = match self.ready(caller, &request, cx).await? {
            Ready::Go(confirmed) => confirmed,
            Ready::Ask(question) => return Ok(question),
        };
        let reporter = Reporter::new(&cx.peer, cx.meta.get_progress_token());
        let run = Run {
            scope: self.scope_of(caller, &request.name),
            tool: &request.name,
            arguments: request.arguments.unwrap_or_default(),
            confirmed,
        };
        let log = Log::of(&self.levels, cx);
        log.began(&request.name).await;
        if cx
            .client_capabilities()
            .is_some_and(|client| client.supports_tasks())
        {
            return self.run_or_task(caller, run, &reporter, &log).await;
        }
        let execution = execute::run(caller, &self.shared.upstream, run, &reporter).await?;
        log.ended(&execution, &self.shared.results).await;
        Ok(execute::result(&execution, &self.shared.results)?.into())
    }

    /// The scope that calling a tool elsewhere needs. By a name of the product's own a caller may mean one that is not
    /// there for him, or not yet known here: rest-api says so.
    pub(super) fn scope_of(&self, caller: &Caller, tool: &str) -> Option<Scope> {
        let Shown { registered, built_in } = self.shared.catalogue.shown(self.tenant);
        match built_in.get(tool) {
            Some(ours) if ours.is_for(caller) => Some(ours.scope),
            _ if registered.contains_key(tool) => Some(Scope::ToolsExecute),
            Some(ours) if ours.is_open_to(caller) => Some(ours.scope),
            _ if is_built_in(tool) => None,
            _ => Some(Scope::ToolsExecute),
        }
    }

    /// Whether a call may go on, by the sets of tools that the client asked for. Asks a person where the tool wants that and
    /// somebody can be asked. What rest-api would refuse anyway is refused
    /// first: nobody is asked for nothing.
    pub(super) async fn ready(
        &self,
        caller: &Caller,
        request: &CallToolRequestParams,
        cx: &RequestContext<RoleServer>,
    ) -> Result<Ready> {
        if !toolsets(cx).hold(&request.name) {
            return Err(Error::UnknownTool(request.name.clone().into()));
        }
        let Shown { registered, built_in } = self.shared.catalogue.shown(self.tenant);
        let ours = built_in
            .get(&*request.name)
            .is_some_and(|tool| tool.is_for(caller));
        let needed = registered.get(&*request.name).filter(|tool| {
            !ours && caller.principal.tools.allow(&request.name) && Confirmations::needed(caller, tool)
        });
        let (Some(tool), Some(confirmations)) = (needed, &self.shared.confirmations) else {
            return Ok(Ready::Go(None));
        };
        caller.require(Scope::ToolsExecute)?;
        let nothing = Default::default();
        let arguments = request.arguments.as_ref().unwrap_or(&nothing);
        rules::check(&caller.principal, &request.name, arguments)?;
        rules::fits(&tool.definition.input_schema, arguments)?;
        let _room = self.room_to_wait()?;
        let stopping = &self.shared.shutdown;
        Ok(
            match confirmations.ask(caller, tool, request, cx, stopping).await? {
                Consent::Given(confirmed) => Ready::Go(Some(confirmed)),
                Consent::Asked(question) => Ready::Ask(question.into()),
                Consent::NobodyThere => Ready::Go(None),
            },
        )
    }

    /// Queues the run and waits a moment: what has not ended then is a task.
    async fn run_or_task(
        &self,
        caller: &Arc<Caller>,
        run: Run<'_>,
        reporter: &Reporter<'_>,
        log: &Log<'_>,
    ) -> Result<CallToolResponse> {
        let Shared { upstream, tasks, .. } = &*self.shared;
        let execution = execute::enqueue(caller, upstream, run).await?;
        let mut abandoned = Abandoned {
            shared: &self.shared,
            caller,
            id: Some(execution.id.clone()),
        };
        let execution = self.first_moments(caller, execution, reporter).await;
        abandoned.id = None;
        log.ended(&execution, &self.shared.results).await;
        if tasks::is_over(&execution) {
            return Ok(execute::result(&execution, &self.shared.results)?.into());
        }
        Ok(CreateTaskResult::new(modern::created(&execution, tasks)?).into())
    }

    /// The execution as it stands when it is over, when a person must approve it, or when its first moments are. Whatever
    /// breaks is no harm: the client goes on with a task.
    async fn first_moments(
        &self,
        caller: &Caller,
        execution: Execution,
        reporter: &Reporter<'_>,
    ) -> Execution {
        let mut seen = execution;
        let follow = async {
            let Ok(mut changes) = execute::follow(caller, &self.shared.upstream, &seen.id).await else {
                return;
            };
            while let Ok(Some(now)) = changes.message().await {
                report(&seen, &now, reporter).await;
                seen = now;
                if tasks::is_over(&seen) || seen.status == ExecutionStatus::AwaitingApproval.as_str() {
                    return;
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = tokio::time::sleep(self.shared.tasks.after) => {}
            () = self.shared.shutdown.cancelled() => {}
        }
        seen
    }

    /// The tool's name as it may stand in a label: of a tool that the caller does not see nothing is known.
    pub(super) fn label<'a>(&self, cx: &RequestContext<RoleServer>, name: &'a str) -> &'a str {
        let allowed = caller(cx).is_ok_and(|caller| caller.principal.tools.allow(name));
        let known = || {
            let Shown { registered, built_in } = self.shared.catalogue.shown(self.tenant);
            self.shared.built_in.contains_key(name)
                || built_in.contains_key(name)
                || registered.contains_key(name)
        };
        if allowed && known() { name } else { "other" }
    }

    /// A registered tool, if who sends the request that is being read may see it.
    pub(super) fn seen(&self, name: &str) -> Option<Tool> {
        let allowed = |caller: &Arc<Caller>| caller.principal.tools.allow(name);
        if !CALLER.try_with(allowed).unwrap_or(false) {
            return None;
        }
        let tools = self.shared.catalogue.tools(self.tenant);
        tools.get(name).map(|tool| tool.definition.clone())
    }
}

/// Tells new words of progress.
pub(super) async fn report(before: &Execution, now: &Execution, reporter: &Reporter<'_>) {
    if let Some(words) = now.progress.as_ref().filter(|_| before.progress != now.progress) {
        reporter.say(words.clone()).await;
    }
}

/// A queued run whose client does not know of it yet: when it goes away, the run ends.
struct Abandoned<'a> {
    shared: &'a Arc<Shared>,
    caller: &'a Arc<Caller>,
    id: Option<String>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let (shared, caller) = (self.shared.clone(), self.caller.clone());
        let cancel = telemetry::tasks::track("cancel an abandoned run", async move {
            if let Err(error) = execute::cancel(&caller, &shared.upstream, &id).await {
                tracing::warn!(execution = id, %error, "a run that its client left could not be cancelled");
            }
        });
        self.shared.calls.spawn(cancel);
    }
}
