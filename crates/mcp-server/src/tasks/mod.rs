//! MCP tasks: executions, as clients that do tasks see them. The task's id is the execution's, and nothing is kept here:
//! any replica answers, after any restart.
//!
//! There are two forms. Since 2026-07-28 tasks are an extension ([`modern`]), in which the server decides what becomes
//! one; in 2025-11-25 they were part of the protocol ([`legacy`], which the SDK does not know), and the client asks.
//! A task belongs to its tenant: all keys see it that may see executions and its tool.

pub(crate) mod legacy;
pub(crate) mod modern;

use crate::{
    caller::{Caller, Upstream},
    error::{Error, Result},
    execute,
    settings::Tasks,
};
use domain::{ExecutionId, execution::ExecutionStatus};
use proto::v1::Execution;
use std::time::Duration;

/// Some execution as a task, in neither form yet.
pub(crate) struct Task {
    /// Where the execution stands.
    pub(crate) status: ExecutionStatus,
    /// In words.
    pub(crate) message: Option<String>,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// RFC 3339; what came last of its beginning and its end.
    pub(crate) updated_at: String,
    /// For how long it can be asked for, milliseconds.
    pub(crate) ttl_ms: u64,
    /// How long to wait between two questions, milliseconds.
    pub(crate) poll_ms: u64,
}

/// The execution as a task.
pub(crate) fn task(execution: &Execution, settings: &Tasks) -> Result<Task> {
    let status: ExecutionStatus = execution.status.parse().map_err(Error::internal)?;
    let created = execution.created_at;
    let updated = execution.finished_at.or(execution.started_at).or(created);
    Ok(Task {
        status,
        message: message(execution, status),
        created_at: stamp(created)?,
        updated_at: stamp(updated)?,
        ttl_ms: millis(settings.kept),
        poll_ms: millis(settings.poll),
    })
}

/// The caller's own execution, if it may see it.
pub(crate) async fn find(caller: &Caller, upstream: &Upstream, id: &str) -> Result<Execution> {
    let missing = || Error::Refused {
        code: "not_found".into(),
        message: "no such task".to_owned(),
        not_found: false,
    };
    let id: ExecutionId = id.parse().map_err(|_| missing())?;
    let execution = execute::get(caller, upstream, id)
        .await
        .map_err(|error| match error {
            Error::Refused { not_found: true, .. } => missing(),
            error => error,
        })?;
    if caller.principal.tools.allow(&execution.tool) {
        Ok(execution)
    } else {
        Err(missing())
    }
}

/// Whether nothing more will happen to it by itself.
pub(crate) fn is_over(execution: &Execution) -> bool {
    let status = execution.status.parse::<ExecutionStatus>();
    status.is_ok_and(ExecutionStatus::is_final)
}

fn message(execution: &Execution, status: ExecutionStatus) -> Option<String> {
    let words = match status {
        _ if execution.cancel_requested && !status.is_final() => "is asked to end",
        ExecutionStatus::Queued if execution.attempts > 0 => "failed for now and waits to be tried again",
        ExecutionStatus::Queued => "waits for a worker",
        ExecutionStatus::AwaitingApproval => {
            return Some(format!(
                "waits for a person's approval: POST /api/v1/executions/{}/approve with {{\"digest\": \"{}\"}}, by \
                 another key that has executions:approve",
                execution.id, execution.digest
            ));
        }
        ExecutionStatus::Running => match execution.progress.as_deref() {
            Some(words) if !words.is_empty() => words,
            _ => "runs",
        },
        _ => return execution.error.as_ref().map(|error| error.message.clone()),
    };
    Some(words.to_owned())
}

fn stamp(stamp: Option<prost_types::Timestamp>) -> Result<String> {
    let stamp = stamp.ok_or_else(|| Error::internal("an execution without a time"))?;
    let time = proto::convert::time("created_at", &stamp).map_err(Error::internal)?;
    Ok(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
