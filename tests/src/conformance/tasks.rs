//! Tools that become tasks, kept by the SDK's own task manager.

use super::{
    Answered, inputs,
    tools::{nothing, said, tool},
};
use crate::Json;
use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock,
        CreateTaskResult, InputRequiredResult, Tool,
    },
    service::RequestContext,
    task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const GREET: &str = "greet";
/// Those that can do without a task.
const MAY: [&str; 2] = ["slow_compute", "protocol_error_job"];
/// Those that cannot.
const MUST: [&str; 4] = [
    "failing_job",
    "confirm_delete",
    "multi_input",
    "test_tool_with_task",
];

/// Whether the tool is of this module.
pub(super) fn has(name: &str) -> bool {
    name == GREET || MAY.contains(&name) || MUST.contains(&name)
}

/// Its tools.
pub(super) fn all() -> [Tool; 7] {
    let some = |properties: Json| json!({ "type": "object", "properties": properties });
    let compute = some(json!({ "seconds": { "type": "number" }, "label": { "type": "string" } }));
    [
        tool(
            GREET,
            "Greets, at once",
            some(json!({ "name": { "type": "string" } })),
        ),
        tool("slow_compute", "Takes its time", compute),
        tool(
            "protocol_error_job",
            "Ends with an error of the protocol",
            nothing(),
        ),
        tool("failing_job", "Ends with an error of its own", nothing()),
        tool(
            "confirm_delete",
            "Asks before it goes on",
            some(json!({ "filename": { "type": "string" } })),
        ),
        tool("multi_input", "Asks two things at once", nothing()),
        tool("test_tool_with_task", "Asks, then becomes a task", nothing()),
    ]
}

/// Calls one of them.
pub(super) async fn call(
    tasks: &TaskManager,
    request: CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Answered<CallToolResponse> {
    let able = cx
        .client_capabilities()
        .is_some_and(|client| client.supports_tasks());
    if MUST.contains(&&*request.name) && !able {
        let needed = ClientCapabilities::builder().enable_tasks().build();
        return Err(ErrorData::missing_required_client_capability(needed));
    }
    let answers = request.input_responses.as_ref();
    let user = inputs::content(answers, "user_name", "name").map(str::to_owned);
    if request.name == "test_tool_with_task" && user.is_none() {
        let question = inputs::form("What is your name?", "name", "string");
        let questions = [("user_name".to_owned(), question)].into();
        return Ok(InputRequiredResult::from_input_requests(questions).into());
    }
    let mut arguments = request.arguments.unwrap_or_default();
    arguments.extend(user.map(|name| ("name".to_owned(), json!(name))));
    let job = Job {
        name: request.name.into_owned(),
        arguments: arguments.into(),
    };
    if able && job.name != GREET {
        let task = tasks.spawn(TaskOptions::default(), |cx| Box::pin(job.run(Some(cx))));
        return Ok(CreateTaskResult::new(task).into());
    }
    match job.run(None).await {
        Ok(result) => Ok(result.into()),
        Err(TaskExit::Error(error)) => Err(error),
        Err(TaskExit::Cancelled) => Err(ErrorData::internal_error("cancelled", None)),
    }
}

/// A tool's work, in a task or without.
struct Job {
    name: String,
    arguments: Json,
}

impl Job {
    async fn run(self, cx: Option<TaskContext>) -> Result<CallToolResult, TaskExit> {
        let argument = |name: &str| self.arguments[name].as_str().unwrap_or("nobody").to_owned();
        match (self.name.as_str(), cx) {
            ("slow_compute", cx) => {
                let seconds = self.arguments["seconds"].as_f64().unwrap_or(1.0).clamp(0.0, 60.0);
                let cancelled = async {
                    match cx {
                        Some(cx) => cx.cancelled().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = cancelled => Err(TaskExit::Cancelled),
                    () = sleep(Duration::from_secs_f64(seconds)) => Ok(said(format!("computed for {seconds} s"))),
                }
            }
            ("protocol_error_job", _) => {
                sleep(Duration::from_millis(200)).await;
                Err(ErrorData::internal_error("protocol_error_job fails on purpose", None).into())
            }
            ("failing_job", _) => {
                sleep(Duration::from_millis(500)).await;
                let text = "failing_job fails on purpose";
                Ok(CallToolResult::error(vec![ContentBlock::text(text)]))
            }
            ("confirm_delete", Some(cx)) => {
                let question = format!("Delete {}?", argument("filename"));
                let answer = cx
                    .request_input("confirm", inputs::form(&question, "confirm", "boolean"))
                    .await?;
                Ok(said(format!("confirmed: {}", answer["content"]["confirm"])))
            }
            ("multi_input", Some(cx)) => {
                let ask = |key| cx.request_input(key, inputs::form("A value, please", "value", "string"));
                let (a, b) = tokio::join!(ask("input-a"), ask("input-b"));
                Ok(said(format!(
                    "a = {}, b = {}",
                    a?["content"]["value"], b?["content"]["value"]
                )))
            }
            _ => Ok(said(format!("Hello, {}!", argument("name")))),
        }
    }
}
