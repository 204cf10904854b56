//! Tasks of 2025-11-25, where they were part of the protocol. The SDK knows nothing of them, so what it would not
//! understand is translated where a session's messages pass: requests become ones of our own on their way in
//! ([`inbound`]), and what the SDK's types have no place for is added on the way out ([`outbound`]).

use super::task;
use crate::{
    error::{Error, Result},
    settings::{Results, Tasks},
};
use domain::execution::ExecutionStatus;
use http::{HeaderMap, request::Parts};
use proto::v1::Execution;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientJsonRpcMessage, ClientRequest, CustomRequest, CustomResult,
    Extensions, GetExtensions, JsonRpcRequest, JsonRpcResponse, MetaObject, ProtocolVersion,
    ServerJsonRpcMessage, ServerResult,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Which task a result belongs to, in its `_meta`.
const RELATED: &str = "io.modelcontextprotocol/related-task";
/// How much of a message is looked at for whether it speaks of a task at all.
const TASK: &[u8] = b"\"task\"";

/// That a call is to become a task, as it stands in `params.task`. How long the task is kept is for the server to say.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Wish {}

/// A call that is to become a task.
#[derive(Clone, Debug)]
pub(crate) struct TaskCall(pub(crate) CallToolRequestParams);

/// A task as it stands in answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    task_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<String>,
    created_at: String,
    last_updated_at: String,
    ttl: u64,
    poll_interval: u64,
}

/// The execution as a task.
pub(crate) fn shown(execution: &Execution, settings: &Tasks) -> Result<Task> {
    let task = task(execution, settings)?;
    Ok(Task {
        task_id: execution.id.clone(),
        status: status(task.status),
        status_message: task.message,
        created_at: task.created_at,
        last_updated_at: task.updated_at,
        ttl: task.ttl_ms,
        poll_interval: task.poll_ms,
    })
}

/// A tool that ended in an error of its own has failed, too.
fn status(status: ExecutionStatus) -> &'static str {
    match status {
        ExecutionStatus::Queued | ExecutionStatus::AwaitingApproval | ExecutionStatus::Running => "working",
        ExecutionStatus::Succeeded => "completed",
        ExecutionStatus::Cancelled => "cancelled",
        ExecutionStatus::Failed | ExecutionStatus::Dead | ExecutionStatus::OutcomeUnknown => "failed",
    }
}

/// What the call would have been answered, with the task it belongs to.
pub(crate) fn result(execution: &Execution, results: &Results) -> Result<CallToolResult> {
    let mut result = crate::execute::result(execution, results)?;
    result.result_type = None;
    let meta = result.meta.get_or_insert_with(MetaObject::new);
    meta.insert(RELATED.to_owned(), json!({"taskId": execution.id}));
    Ok(result)
}

/// Whether a message speaks the version that had tasks in this form.
pub(crate) fn is_spoken(headers: &HeaderMap) -> bool {
    let version = headers.get("mcp-protocol-version");
    version.is_some_and(|version| version == ProtocolVersion::V_2025_11_25.as_str())
}

/// Whether the message, a request's body, asks for a task. The SDK forgets that when it reads it.
pub(crate) fn wish(headers: &HeaderMap, body: &[u8]) -> Option<Wish> {
    #[derive(Deserialize)]
    struct Message {
        params: Params,
    }
    #[derive(Deserialize)]
    struct Params {
        task: Wish,
    }
    if !is_spoken(headers) || !body.windows(TASK.len()).any(|window| window == TASK) {
        return None;
    }
    let message = serde_json::from_slice::<Message>(body).ok()?;
    Some(message.params.task)
}

/// A session's request, as a custom one where it is about tasks; and whether its answer needs to pass [`outbound`].
pub(crate) fn inbound(message: ClientJsonRpcMessage) -> (ClientJsonRpcMessage, bool) {
    let ClientJsonRpcMessage::Request(JsonRpcRequest { jsonrpc, id, request }) = message else {
        return (message, false);
    };
    let parts = request.extensions().get::<Parts>();
    let spoken = parts.is_some_and(|parts| is_spoken(&parts.headers));
    let wished = parts.is_some_and(|parts| parts.extensions.get::<Wish>().is_some());
    let lists = spoken && matches!(request, ClientRequest::ListToolsRequest(_));
    let about = |task: String| Some(json!({"taskId": task}));
    let request = match request {
        ClientRequest::CallToolRequest(mut call) if spoken && wished => {
            call.extensions.insert(TaskCall(call.params));
            custom("tools/call", None, call.extensions)
        }
        ClientRequest::GetTaskRequest(get) if spoken => {
            custom("tasks/get", about(get.params.task_id), get.extensions)
        }
        ClientRequest::CancelTaskRequest(cancel) if spoken => {
            custom("tasks/cancel", about(cancel.params.task_id), cancel.extensions)
        }
        request => request,
    };
    (
        ClientJsonRpcMessage::Request(JsonRpcRequest { jsonrpc, id, request }),
        lists,
    )
}

fn custom(method: &str, params: Option<Value>, extensions: Extensions) -> ClientRequest {
    let mut request = CustomRequest::new(method, params);
    request.extensions = extensions;
    ClientRequest::CustomRequest(request)
}

/// A session's answer with what this version says about tasks: that the server does them, and which tools can be called
/// as such.
pub(crate) fn outbound(message: &ServerJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
    let ServerJsonRpcMessage::Response(JsonRpcResponse { jsonrpc, id, result }) = message else {
        return None;
    };
    let value = match result {
        ServerResult::InitializeResult(result)
            if result.protocol_version == ProtocolVersion::V_2025_11_25 =>
        {
            let mut value = serde_json::to_value(result).ok()?;
            value["capabilities"]["tasks"] =
                json!({"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}});
            value
        }
        ServerResult::ListToolsResult(result) => {
            let mut value = serde_json::to_value(result).ok()?;
            for tool in value["tools"].as_array_mut()? {
                if tool["name"].as_str().is_some_and(can_be_task) {
                    tool["execution"] = json!({"taskSupport": "optional"});
                }
            }
            value
        }
        _ => return None,
    };
    Some(ServerJsonRpcMessage::Response(JsonRpcResponse {
        jsonrpc: *jsonrpc,
        id: id.clone(),
        result: ServerResult::CustomResult(CustomResult::new(value)),
    }))
}

/// Whether the tool can be called as a task: those that are part of the product answer at once.
pub(crate) fn can_be_task(tool: &str) -> bool {
    !tool.starts_with(domain::tool::RESERVED_PREFIX)
}

/// A request's `params.taskId`.
pub(crate) fn task_id(request: &CustomRequest) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        task_id: String,
    }
    match request.params_as::<Params>() {
        Ok(Some(params)) => Ok(params.task_id),
        _ => Err(Error::Arguments("/taskId: a task's id".to_owned())),
    }
}
