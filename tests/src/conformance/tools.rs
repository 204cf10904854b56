//! Tools that answer by themselves, and the list of all tools.
#![expect(
    deprecated,
    reason = "the suite's legacy era has log notifications, which are on their way out"
)]

use super::{Answered, Change, asking, inputs, tasks};
use crate::Json;
use rmcp::{
    ErrorData, Peer, RoleServer,
    model::{
        CallToolRequestParams, CallToolResult, ClientCapabilities, ContentBlock, LoggingLevel,
        LoggingMessageNotificationParam, ProgressNotificationParam, ResourceContents, Tool,
    },
    service::RequestContext,
};
use serde_json::json;
use std::time::Duration;
use tokio::{sync::broadcast, time::sleep};

/// A PNG of one red pixel.
pub(super) const IMAGE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// A WAV without samples.
const AUDIO: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";
/// Between two notifications, so that the client has to take them one by one.
const PAUSE: Duration = Duration::from_millis(50);

/// Tools without arguments, with what they do.
const PLAIN: [(&str, &str); 13] = [
    ("test_simple_text", "Answers a text"),
    ("test_image_content", "Answers an image"),
    ("test_audio_content", "Answers a sound"),
    ("test_embedded_resource", "Answers a resource"),
    (
        "test_multiple_content_types",
        "Answers a text, an image and a resource",
    ),
    ("test_error_handling", "Always fails"),
    ("test_tool_with_logging", "Logs to the client while it runs"),
    ("test_logging_tool", "Logs to a client that asked for it"),
    ("test_tool_with_progress", "Tells how far it is"),
    ("test_reconnection", "Takes a moment"),
    ("test_missing_capability", "Needs a client that can sample"),
    (
        "test_trigger_tool_change",
        "Says that the list of tools has changed",
    ),
    (
        "test_trigger_prompt_change",
        "Says that the list of prompts has changed",
    ),
];

/// A tool with this schema.
///
/// # Panics
/// When the schema is no object.
pub(super) fn tool(name: &'static str, description: &'static str, schema: Json) -> Tool {
    let Json::Object(schema) = schema else {
        panic!("{name}'s schema is an object")
    };
    Tool::new(name, description, schema)
}

/// The schema of no arguments.
pub(super) fn nothing() -> Json {
    json!({ "type": "object", "properties": {} })
}

/// A result of one text.
pub(super) fn said(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

/// All tools, those of the other modules too.
pub(super) fn all() -> Vec<Tool> {
    let plain = PLAIN.map(|(name, description)| tool(name, description, nothing()));
    let mut tools = Vec::from(plain);
    tools.extend([json_schema(), custom_header()]);
    tools.extend(asking::all());
    tools.extend(inputs::all());
    tools.extend(tasks::all());
    tools
}

/// Its schema has to reach the client as it is here, keyword by keyword.
fn json_schema() -> Tool {
    let address = json!({
        "$anchor": "addressDef",
        "type": "object",
        "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
    });
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": { "address": address },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    });
    let description = "Has a schema with the keywords of JSON Schema 2020-12";
    tool("json_schema_2020_12_tool", description, schema)
}

/// Its argument has to stand in a header, too.
fn custom_header() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": { "value": { "type": "string", "x-mcp-header": "Value" } },
        "required": ["value"],
    });
    tool("test_custom_header", "Answers what it is given", schema)
}

fn resource(uri: &str, mime_type: &str, text: &str) -> ContentBlock {
    ContentBlock::resource(ResourceContents::text(text, uri).with_mime_type(mime_type))
}

/// Calls one of the tools of this module.
pub(super) async fn call(
    changes: &broadcast::Sender<Change>,
    request: CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Answered<CallToolResult> {
    let content = match &*request.name {
        "test_simple_text" => vec![ContentBlock::text("This is a simple text response for testing.")],
        "test_image_content" => vec![ContentBlock::image(IMAGE, "image/png")],
        "test_audio_content" => vec![ContentBlock::audio(AUDIO, "audio/wav")],
        "test_embedded_resource" => vec![resource(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )],
        "test_multiple_content_types" => vec![
            ContentBlock::text("Multiple content types test:"),
            ContentBlock::image(IMAGE, "image/png"),
            resource(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ],
        _ => return act(changes, request, cx).await,
    };
    Ok(CallToolResult::success(content))
}

/// The tools that do something before they answer.
async fn act(
    changes: &broadcast::Sender<Change>,
    request: CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Answered<CallToolResult> {
    match &*request.name {
        "test_error_handling" => {
            let text = "This tool intentionally returns an error for testing";
            return Ok(CallToolResult::error(vec![ContentBlock::text(text)]));
        }
        "test_tool_with_logging" => {
            for text in [
                "Tool execution started",
                "Tool processing data",
                "Tool execution completed",
            ] {
                log(&cx.peer, LoggingLevel::Info, text).await?;
                sleep(PAUSE).await;
            }
        }
        "test_logging_tool" => {
            if let Some(level) = cx.meta.log_level() {
                log(&cx.peer, level, "asked for").await?;
            }
        }
        "test_tool_with_progress" => progress(cx).await?,
        "test_reconnection" => sleep(2 * PAUSE).await,
        "test_missing_capability" => {
            let capabilities = cx.client_capabilities().unwrap_or_default();
            if capabilities.sampling.is_none() {
                let needed = ClientCapabilities::builder().enable_sampling().build();
                return Err(ErrorData::missing_required_client_capability(needed));
            }
        }
        "test_trigger_tool_change" => announce(changes, Change::Tools),
        "test_trigger_prompt_change" => announce(changes, Change::Prompts),
        "test_custom_header" => {
            let value = request.arguments.unwrap_or_default().remove("value");
            let value = value.as_ref().and_then(Json::as_str).map(str::to_owned);
            let missing = || ErrorData::invalid_params("value: a string", None);
            return Ok(said(value.ok_or_else(missing)?));
        }
        "json_schema_2020_12_tool" => {}
        unknown => {
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {unknown}"),
                None,
            ));
        }
    }
    Ok(said("done"))
}

fn announce(changes: &broadcast::Sender<Change>, change: Change) {
    // Nobody may be listening.
    let _ = changes.send(change);
}

async fn log(peer: &Peer<RoleServer>, level: LoggingLevel, text: &str) -> Answered<()> {
    let message = LoggingMessageNotificationParam::new(level, json!(text)).with_logger("conformance");
    let sent = peer.notify_logging_message(message).await;
    sent.map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

async fn progress(cx: &RequestContext<RoleServer>) -> Answered<()> {
    let Some(token) = cx.meta.get_progress_token() else {
        return Ok(());
    };
    for progress in [0.0, 50.0, 100.0] {
        let told = ProgressNotificationParam::new(token.clone(), progress).with_total(100.0);
        let sent = cx.peer.notify_progress(told).await;
        sent.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        sleep(PAUSE).await;
    }
    Ok(())
}
