//! How an execution stands in a tool's result.

use crate::{
    error::{Error, Result, tool_error},
    settings::Results,
};
use domain::execution::ExecutionStatus;
use proto::v1::Execution;
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::{Value, json};

/// Under which key of a result's `_meta` the execution stands.
pub(crate) const EXECUTION: &str = "devops-mcp/execution";
/// How much of a result that is too large is shown.
const PREVIEW: usize = 8 * 1024;

/// The execution as a resource.
fn resource(id: &str) -> String {
    format!("execution://{id}")
}

/// What the tool answered, or why it did not, or that it is not over.
pub(crate) fn result(execution: &Execution, results: &Results) -> Result<CallToolResult> {
    let status: ExecutionStatus = execution.status.parse().map_err(Error::internal)?;
    let about = json!({
        "id": execution.id,
        "status": execution.status,
        "attempts": execution.attempts,
        "resource": resource(&execution.id),
    });
    let mut result = match status {
        ExecutionStatus::Succeeded => succeeded(execution, limit(execution, results))?,
        ExecutionStatus::AwaitingApproval => awaiting(execution),
        status if !status.is_final() => still_running(execution),
        _ => failed(execution, limit(execution, results))?,
    };
    let mut meta = MetaObject::new();
    meta.insert(EXECUTION.to_owned(), about);
    result.meta = Some(meta);
    Ok(result)
}

/// The most that is shown of the result, bytes: as much as passes here, and no more than the tool says.
pub(crate) fn limit(execution: &Execution, results: &Results) -> usize {
    let own = execution
        .max_result_bytes
        .and_then(|own| usize::try_from(own).ok());
    own.map_or(results.max_bytes, |own| own.min(results.max_bytes))
}

fn succeeded(execution: &Execution, limit: usize) -> Result<CallToolResult> {
    let text = execution.result_json.as_deref().unwrap_or("null");
    if text.len() > limit {
        return Ok(cut(execution, text, limit));
    }
    // Clients of older versions take objects only.
    let value = match serde_json::from_str(text).map_err(Error::internal)? {
        value @ Value::Object(_) => value,
        other => json!({"result": other}),
    };
    let mut content = vec![ContentBlock::text(text)];
    if execution.selected {
        content.push(ContentBlock::text(format!(
            "this was selected from {} bytes; the resource {}/result has all of it",
            execution.result_bytes,
            resource(&execution.id)
        )));
    } else if let Some(why) = &execution.not_selected {
        content.push(ContentBlock::text(format!(
            "the tool's selection was not applied: {why}"
        )));
    }
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(value);
    Ok(result)
}

/// A result that is too large to be passed on: its beginning, and where the rest is.
fn cut(execution: &Execution, text: &str, limit: usize) -> CallToolResult {
    let whole = execution.result_bytes.max(text.len() as u64);
    let resource = format!("{}/result", resource(&execution.id));
    let note = format!(
        "the result has {} bytes, more than is passed on; the resource {resource} has all {whole} bytes, in pages",
        text.len()
    );
    let preview = &text[..text.floor_char_boundary(PREVIEW.min(limit))];
    let mut content = vec![ContentBlock::text(preview), ContentBlock::text(note.as_str())];
    content.extend(not_selected(execution));
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(json!({
        "truncated": true,
        "size_bytes": text.len(),
        "preview": preview,
        "resource": resource,
        "note": note,
    }));
    result
}

/// Why the tool's selection was not applied, where it has one.
fn not_selected(execution: &Execution) -> Option<ContentBlock> {
    let why = execution.not_selected.as_deref()?;
    Some(ContentBlock::text(format!("shown as it is: {why}")))
}

/// Nothing went wrong, and nothing is to be had yet: how to go on is said in words and in structure.
fn pending(execution: &Execution, status: &str, message: &str, more: Value) -> CallToolResult {
    let mut value = json!({
        "status": status,
        "execution_id": execution.id,
        "resource": resource(&execution.id),
        "message": message,
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(format!("{status}: {message}"))]);
    result.structured_content = Some(value);
    result
}

fn still_running(execution: &Execution) -> CallToolResult {
    let message = format!(
        "the tool's time is over and the run is not: it goes on by itself. Do not call the tool again for it; the \
         resource {} tells how it stands",
        resource(&execution.id)
    );
    let more = json!({"progress": execution.progress});
    pending(execution, "still_running", &message, more)
}

fn awaiting(execution: &Execution) -> CallToolResult {
    let message = format!(
        "the tool is destructive and a person must approve this call before it runs. Do not call the tool again for \
         it; the resource {} tells how it stands",
        resource(&execution.id)
    );
    let approve = json!({
        "request": format!("POST /api/v1/executions/{}/approve", execution.id),
        "body": {"digest": execution.digest},
        "scope": "executions:approve",
        "by": "another key than the one that called",
    });
    pending(
        execution,
        "awaiting_approval",
        &message,
        json!({"approve": approve}),
    )
}

fn failed(execution: &Execution, limit: usize) -> Result<CallToolResult> {
    let error = execution.error.clone().unwrap_or_default();
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    let code = or(error.code, &execution.status);
    let message = or(error.message, "the tool did not succeed");
    let mut value = json!({
        "error": {"code": code, "message": message},
        "status": execution.status,
        "execution_id": execution.id,
    });
    // What the endpoint answered helps an agent more than that it answered badly.
    match execution.result_json.as_deref() {
        Some(text) if text.len() <= limit => {
            value["result"] = serde_json::from_str(text).map_err(Error::internal)?;
        }
        Some(_) => value["resource"] = json!(format!("{}/result", resource(&execution.id))),
        None => {}
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
                .is_some_and(|note| note.contains("execution://e1/result"))
        );

        // The tool's own bound goes before, and a selection says what it was taken from.
        let mut own = execution("succeeded", Some(r#"{"a":"0123456789"}"#), None);
        (own.max_result_bytes, own.selected, own.result_bytes) = (Some(10), true, 5000);
        let shown = result(&own, &results).expect("a result");
        let value = shown.structured_content.expect("structure");
        assert_eq!(
            (&value["truncated"], &value["preview"]),
            (&json!(true), &json!(r#"{"a":"0123"#))
        );
        own.max_result_bytes = None;
        let shown = result(&own, &results).expect("a result");
        assert!(
            shown.content[1]
                .as_text()
                .is_some_and(|note| note.text.contains("5000 bytes"))
        );
        (own.selected, own.not_selected) = (false, Some("the selection finds nothing".into()));
        let shown = result(&own, &results).expect("a result");
        assert!(
            shown.content[1]
                .as_text()
                .is_some_and(|note| note.text.contains("finds nothing"))
        );
    }

    #[test]
    fn what_is_not_over_is_no_error_and_says_how_to_go_on() {
        for (status, told) in [
            ("queued", "still_running"),
            ("running", "still_running"),
            ("awaiting_approval", "awaiting_approval"),
        ] {
            let shown = result(&execution(status, None, None), &Results::default()).expect("a result");
            assert_eq!(shown.is_error, Some(false));
            let value = shown.structured_content.expect("structure");
            assert_eq!(
                (&value["status"], &value["resource"]),
                (&json!(told), &json!("execution://e1"))
            );
        }
    }
}
