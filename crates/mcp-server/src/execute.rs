//! Runs of registered tools: rest-api runs them in the caller's name, progress goes to the client as it comes, and
//! when the client cancels or goes away, the call to rest-api is dropped, which cancels the run.

use crate::{
    caller::{Caller, Upstream},
    error::{Error, Result, tool_error},
    settings::Results,
};
use domain::{JsonObject, Scope, execution::ExecutionStatus};
use proto::v1::{Execution, Progress, RunExecutionRequest, run_execution_event::Event};
use rmcp::{
    RoleServer,
    model::{CallToolResult, ContentBlock, MetaObject, ProgressNotificationParam, ProgressToken},
    service::Peer,
};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Status;

/// How long the status of a finished run is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// Under which key of a result's `_meta` the execution stands.
const EXECUTION: &str = "devops-mcp/execution";
/// How much of a result that is too large is shown.
const PREVIEW: usize = 8 * 1024;

/// Where a run's progress goes.
pub(crate) struct Reporter<'a> {
    /// The client.
    pub(crate) peer: &'a Peer<RoleServer>,
    /// What it calls this run; without one it does not want to know.
    pub(crate) token: Option<ProgressToken>,
}

/// Runs the tool `name` and waits for it.
pub(crate) async fn run(
    caller: &Caller,
    upstream: &Upstream,
    results: &Results,
    name: &str,
    arguments: Option<JsonObject>,
    reporter: Reporter<'_>,
) -> Result<CallToolResult> {
    caller.require(Scope::ToolsExecute)?;
    if domain::validate::word("name", name, 64).is_err() {
        return Err(Error::UnknownTool(name.to_owned()));
    }
    let request = caller.request(RunExecutionRequest {
        tool: name.to_owned(),
        arguments_json: proto::convert::object_text(&arguments.unwrap_or_default()),
        ..Default::default()
    });
    // The catalogue here may be a moment behind: whether the tool exists is rest-api's to say.
    let unknown = |error| match error {
        Error::Refused { not_found: true, .. } => Error::UnknownTool(name.to_owned()),
        error => error,
    };
    let mut events = upstream
        .executions
        .clone()
        .run(request)
        .await
        .map_err(|s| unknown(s.into()))?
        .into_inner();
    let mut began = false;
    loop {
        let event = events
            .message()
            .await
            .map_err(|status| unknown(ended(status, began)))?;
        match event.and_then(|event| event.event) {
            Some(Event::Progress(progress)) => reporter.report(progress).await,
            Some(Event::Execution(execution)) => {
                // The status follows the last message; dropping the stream before it would count as a cancellation.
                let _ = tokio::time::timeout(GRACE, events.message()).await;
                return result(&execution, results);
            }
            None => return Err(Error::Lost),
        }
        began = true;
    }
}

/// Once a run has begun, the loss of rest-api leaves its outcome open.
fn ended(status: Status, began: bool) -> Error {
    let told = status.metadata().contains_key(proto::CODE_KEY);
    match Error::from(status) {
        Error::Unavailable(_) if began && !told => Error::Lost,
        error => error,
    }
}

impl Reporter<'_> {
    async fn report(&self, progress: Progress) {
        let Some(token) = self.token.clone() else { return };
        let mut param = ProgressNotificationParam::new(token, progress.progress);
        param.total = progress.total;
        param.message = Some(progress.message).filter(|message| !message.is_empty());
        if let Err(error) = self.peer.notify_progress(param).await {
            tracing::debug!(%error, "progress was not delivered");
        }
    }
}

fn result(execution: &Execution, results: &Results) -> Result<CallToolResult> {
    let status: ExecutionStatus = execution.status.parse().map_err(Error::internal)?;
    let about = json!({"id": execution.id, "status": execution.status, "attempts": execution.attempts});
    let mut result = if status == ExecutionStatus::Succeeded {
        succeeded(execution, results)?
    } else {
        failed(execution, results)?
    };
    let mut meta = MetaObject::new();
    meta.insert(EXECUTION.to_owned(), about);
    result.meta = Some(meta);
    Ok(result)
}

fn succeeded(execution: &Execution, results: &Results) -> Result<CallToolResult> {
    let text = execution.result_json.as_deref().unwrap_or("null");
    if text.len() > results.max_bytes {
        return Ok(cut(execution, text));
    }
    // Clients of older versions take objects only.
    let value = match serde_json::from_str(text).map_err(Error::internal)? {
        value @ Value::Object(_) => value,
        other => json!({"result": other}),
    };
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(value);
    Ok(result)
}

/// A result that is too large to be passed on: its beginning, and where the rest is.
fn cut(execution: &Execution, text: &str) -> CallToolResult {
    let note = format!(
        "the result has {} bytes, more than is passed on; GET /api/v1/executions/{} has all of it",
        text.len(),
        execution.id
    );
    let preview = &text[..text.floor_char_boundary(PREVIEW)];
    let mut result = CallToolResult::success(vec![
        ContentBlock::text(preview),
        ContentBlock::text(note.as_str()),
    ]);
    let value = json!({"truncated": true, "size_bytes": text.len(), "preview": preview, "note": note});
    result.structured_content = Some(value);
    result
}

fn failed(execution: &Execution, results: &Results) -> Result<CallToolResult> {
    let error = execution.error.clone().unwrap_or_default();
    let code = if error.code.is_empty() {
        execution.status.as_str()
    } else {
        error.code.as_str()
    };
    let message = if error.message.is_empty() {
        "the tool did not succeed"
    } else {
        error.message.as_str()
    };
    let mut value = json!({
        "error": {"code": code, "message": message},
        "status": execution.status,
        "execution_id": execution.id,
    });
    // What the endpoint answered helps an agent more than that it answered badly.
    if let Some(text) = execution
        .result_json
        .as_deref()
        .filter(|text| text.len() <= results.max_bytes)
    {
        value["result"] = serde_json::from_str(text).map_err(Error::internal)?;
    }
    Ok(tool_error(format!("{code}: {message}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::ExecutionError;

    fn execution(status: &str, result: Option<&str>, error: Option<&str>) -> Execution {
        Execution {
            id: "e1".into(),
            status: status.into(),
            result_json: result.map(Into::into),
            error: error.map(|code| ExecutionError {
                code: code.into(),
                message: "m".into(),
            }),
            attempts: 1,
            ..Default::default()
        }
    }

    #[test]
    fn results_keep_their_shape_and_scalars_get_one() {
        let results = Results::default();
        let shown = |text| {
            let result = result(&execution("succeeded", Some(text), None), &results).expect("a result");
            assert_eq!(result.is_error, Some(false));
            result.structured_content.expect("structure")
        };
        assert_eq!(
            shown(r#"{"a":12345678901234567}"#),
            json!({"a": 12345678901234567_i64})
        );
        assert_eq!(shown("[1]"), json!({"result": [1]}));
    }

    #[test]
    fn failures_are_for_the_agent_with_a_stable_code() {
        let failed = execution("failed", Some(r#"{"status":500}"#), Some("http_status"));
        let result = result(&failed, &Results::default()).expect("a result");
        assert_eq!(result.is_error, Some(true));
        let value = result.structured_content.expect("structure");
        assert_eq!(
            (&value["error"]["code"], &value["result"]["status"]),
            (&json!("http_status"), &json!(500))
        );
        assert_eq!(result.meta.expect("meta")[EXECUTION]["id"], json!("e1"));
    }

    #[test]
    fn too_large_a_result_is_cut_and_says_where_the_rest_is() {
        let results = Results {
            default_bytes: 1024,
            max_bytes: 1024,
        };
        let text = json!("é".repeat(5000)).to_string();
        let value = result(&execution("succeeded", Some(&text), None), &results)
            .expect("a result")
            .structured_content
            .expect("structure");
        assert_eq!(
            (&value["truncated"], &value["size_bytes"]),
            (&json!(true), &json!(text.len()))
        );
        assert!(
            value["note"]
                .as_str()
                .is_some_and(|note| note.contains("/api/v1/executions/e1"))
        );
    }

    #[test]
    fn losing_rest_api_in_a_run_leaves_the_outcome_open() {
        assert_eq!(ended(Status::unavailable("gone"), true), Error::Lost);
        assert_eq!(ended(Status::unavailable("gone"), false).code(), "unavailable");
    }
}
