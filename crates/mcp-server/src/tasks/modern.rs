//! Tasks since 2026-07-28: the extension `io.modelcontextprotocol/tasks`.

use super::task;
use crate::{
    error::{Error, Result},
    execute,
    settings::{Results, Tasks},
};
use domain::{JsonObject, execution::ExecutionStatus};
use proto::v1::Execution;
use rmcp::model::{DetailedTask, GetTaskResult, Task, TaskPayload, TaskStatus};
use serde_json::Value;

/// The task that a call became.
pub(crate) fn created(execution: &Execution, settings: &Tasks) -> Result<Task> {
    let task = task(execution, settings)?;
    let mut shown = Task::new(
        &execution.id,
        status(task.status),
        task.created_at,
        task.updated_at,
    )
    .with_ttl_ms(task.ttl_ms)
    .with_poll_interval_ms(task.poll_ms);
    shown.status_message = task.message;
    Ok(shown)
}

/// How the task stands, with the call's result once it is over.
pub(crate) fn detailed(execution: &Execution, settings: &Tasks, results: &Results) -> Result<GetTaskResult> {
    let shown = created(execution, settings)?;
    let payload = match shown.status {
        TaskStatus::Completed => TaskPayload::Completed {
            result: object(&execute::result(execution, results)?)?,
        },
        TaskStatus::Cancelled => TaskPayload::Cancelled,
        _ => TaskPayload::Working,
    };
    Ok(GetTaskResult::new(DetailedTask::new(shown, payload)))
}

/// A tool's error is a result like any other; `failed` is for errors of the protocol. What waits for a person's approval
/// wants nothing of the client that the protocol could ask for, so it works.
fn status(status: ExecutionStatus) -> TaskStatus {
    match status {
        ExecutionStatus::Queued | ExecutionStatus::AwaitingApproval | ExecutionStatus::Running => {
            TaskStatus::Working
        }
        ExecutionStatus::Cancelled => TaskStatus::Cancelled,
        ExecutionStatus::Succeeded
        | ExecutionStatus::Failed
        | ExecutionStatus::Dead
        | ExecutionStatus::OutcomeUnknown => TaskStatus::Completed,
    }
}

fn object(value: &impl serde::Serialize) -> Result<JsonObject> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Error::internal("a result is no object")),
    }
}
