//! What clients ask of tasks, in both forms.

use super::{Answered, Handler, calls, calls::Ready};
use crate::{
    caller::Caller,
    error::{Error, Result},
    execute::{self, Reporter, Run},
    span::{Operation, caller, observed},
    tasks::{self, legacy, modern},
};
use proto::v1::Execution;
use rmcp::{
    ErrorData, RoleServer,
    model::{CallToolRequestParams, CustomRequest, CustomResult, ErrorCode, GetTaskResult, ProtocolVersion},
    service::RequestContext,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::SemaphorePermit;

/// How many tasks a page lists.
const PAGE: u32 = 50;
/// The pause before a lost rest-api is asked again how a task stands.
const AGAIN: Duration = Duration::from_secs(1);

impl Handler {
    /// How a task stands.
    pub(super) async fn task(&self, id: &str, cx: &RequestContext<RoleServer>) -> Answered<GetTaskResult> {
        let execution = tasks::find(&*caller(cx)?, &self.shared.upstream, id).await?;
        Ok(modern::detailed(
            &execution,
            &self.shared.tasks,
            &self.shared.results,
        )?)
    }

    /// Has a task end.
    pub(super) async fn end_task(&self, id: &str, cx: &RequestContext<RoleServer>) -> Answered<Execution> {
        let caller = caller(cx)?;
        let execution = tasks::find(&caller, &self.shared.upstream, id).await?;
        if tasks::is_over(&execution) {
            return Ok(execution);
        }
        Ok(execute::cancel(&caller, &self.shared.upstream, &execution.id).await?)
    }

    /// A request that the SDK does not know: one about tasks in the form of 2025-11-25, or nothing.
    pub(super) async fn custom(
        &self,
        request: CustomRequest,
        cx: RequestContext<RoleServer>,
    ) -> Answered<CustomResult> {
        let wishes = &self.shared.wishes;
        if let Some(legacy::TaskCall(call)) = cx.extensions.get().cloned() {
            let operation = Operation::call(self.label(&cx, &call.name));
            let mut entry = self.shared.trail.call(&call, &cx);
            let work = async {
                entry.traced();
                self.call_as_task(&call, &cx).await
            };
            let answer = observed(wishes, operation, &cx, work).await;
            entry.became_task(&answer);
            return answer.map(CustomResult::new);
        }
        let legacy = cx.protocol_version() == Some(ProtocolVersion::V_2025_11_25);
        let method = ["tasks/get", "tasks/result", "tasks/list", "tasks/cancel"]
            .into_iter()
            .find(|method| legacy && *method == request.method);
        // A method of the client's own is no label.
        let operation = Operation::of(method.unwrap_or("other"));
        let work = async {
            match method {
                Some("tasks/get") => self.legacy_task(&request, &cx).await,
                Some("tasks/result") => self.legacy_result(&request, &cx).await,
                Some("tasks/list") => self.legacy_list(&request, &cx).await,
                Some(_) => self.legacy_cancel(&request, &cx).await,
                None => Err(ErrorData::new(
                    ErrorCode::METHOD_NOT_FOUND,
                    request.method.clone(),
                    None,
                )),
            }
        };
        observed(wishes, operation, &cx, work)
            .await
            .map(CustomResult::new)
    }

    async fn call_as_task(
        &self,
        request: &CallToolRequestParams,
        cx: &RequestContext<RoleServer>,
    ) -> Answered<Value> {
        if !legacy::can_be_task(&request.name) {
            let message = "this tool answers at once and cannot be called as a task";
            return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None));
        }
        let caller = caller(cx)?;
        let confirmed = match self.ready(&caller, request, cx).await? {
            Ready::Go(confirmed) => confirmed,
            // Only later versions are asked by an answer.
            Ready::Ask(_) => {
                return Err(Error::internal("a question that this version cannot be asked").into());
            }
        };
        let run = Run {
            scope: self.scope_of(&caller, &request.name),
            tool: &request.name,
            arguments: request.arguments.clone().unwrap_or_default(),
            confirmed,
        };
        let execution = execute::enqueue(&caller, &self.shared.upstream, run).await?;
        Ok(json!({"task": legacy::shown(&execution, &self.shared.tasks)?}))
    }

    async fn legacy_task(&self, request: &CustomRequest, cx: &RequestContext<RoleServer>) -> Answered<Value> {
        let id = legacy::task_id(request)?;
        // A client may have taken up the extension before its version had it.
        if cx
            .client_capabilities()
            .is_some_and(|client| client.supports_tasks())
        {
            return value(&self.task(&id, cx).await?);
        }
        let execution = tasks::find(&*caller(cx)?, &self.shared.upstream, &id).await?;
        value(&legacy::shown(&execution, &self.shared.tasks)?)
    }

    async fn legacy_result(
        &self,
        request: &CustomRequest,
        cx: &RequestContext<RoleServer>,
    ) -> Answered<Value> {
        let caller = caller(cx)?;
        let execution = tasks::find(&caller, &self.shared.upstream, &legacy::task_id(request)?).await?;
        let _room = self.room_to_wait()?;
        telemetry::recent::waits();
        let reporter = Reporter::new(&cx.peer, cx.meta.get_progress_token());
        let execution = self.until_over(&caller, execution, &reporter).await?;
        value(&legacy::result(&execution, &self.shared.results)?)
    }

    async fn legacy_list(&self, request: &CustomRequest, cx: &RequestContext<RoleServer>) -> Answered<Value> {
        let caller = caller(cx)?;
        let cursor = request
            .params
            .as_ref()
            .and_then(|params| params["cursor"].as_str());
        let page = execute::list(&caller, &self.shared.upstream, PAGE, cursor.map(str::to_owned)).await?;
        let seen = page
            .executions
            .iter()
            .filter(|execution| caller.principal.tools.allow(&execution.tool));
        let shown = seen.map(|execution| legacy::shown(execution, &self.shared.tasks));
        let mut list = json!({"tasks": shown.collect::<Result<Vec<_>>>()?});
        if !page.next_cursor.is_empty() {
            list["nextCursor"] = json!(page.next_cursor);
        }
        Ok(list)
    }

    async fn legacy_cancel(
        &self,
        request: &CustomRequest,
        cx: &RequestContext<RoleServer>,
    ) -> Answered<Value> {
        let id = legacy::task_id(request)?;
        if cx
            .client_capabilities()
            .is_some_and(|client| client.supports_tasks())
        {
            self.end_task(&id, cx).await?;
            return Ok(json!({"resultType": "complete"}));
        }
        let execution = tasks::find(&*caller(cx)?, &self.shared.upstream, &id).await?;
        if tasks::is_over(&execution) {
            let message = format!("the task is over: {}", execution.status);
            return Err(ErrorData::invalid_params(
                message,
                Some(json!({"code": "task_is_over"})),
            ));
        }
        let execution = self.end_task(&id, cx).await?;
        value(&legacy::shown(&execution, &self.shared.tasks)?)
    }

    /// Room for one more client that waits for long.
    pub(super) fn room_to_wait(&self) -> Result<SemaphorePermit<'_>> {
        self.waits.try_acquire().map_err(|_| Error::Refused {
            code: "too_many_waits".into(),
            message: "as many clients of this tenant wait as may".to_owned(),
            not_found: false,
        })
    }

    /// Waits for the end, through restarts of rest-api. The client may go and ask again, here or elsewhere.
    async fn until_over(
        &self,
        caller: &Caller,
        execution: Execution,
        reporter: &Reporter<'_>,
    ) -> Result<Execution> {
        let mut seen = execution;
        let stopping = || {
            let message = "the server stops; ask again, the task goes on".to_owned();
            Error::Unavailable(message)
        };
        while !tasks::is_over(&seen) {
            let follow = async {
                let mut changes = execute::follow(caller, &self.shared.upstream, &seen.id).await?;
                while let Some(now) = changes.message().await? {
                    calls::report(&seen, &now, reporter).await;
                    seen = now;
                }
                Ok(())
            };
            let followed = tokio::select! {
                followed = follow => followed,
                () = self.shared.shutdown.cancelled() => return Err(stopping()),
            };
            match followed {
                _ if tasks::is_over(&seen) => break,
                Ok(()) | Err(Error::Unavailable(_)) => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = self.shared.shutdown.cancelled() => return Err(stopping()),
            }
        }
        Ok(seen)
    }
}

fn value(answer: &impl serde::Serialize) -> Answered<Value> {
    Ok(serde_json::to_value(answer).map_err(Error::internal)?)
}
