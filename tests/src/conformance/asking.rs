//! Tools that ask the client while they run, as servers of the legacy era can: for an answer of its model or its user.
#![expect(
    deprecated,
    reason = "the suite's legacy era has sampling, which is on its way out"
)]

use super::{
    Answered,
    tools::{nothing, said, tool},
};
use crate::Json;
use rmcp::{
    ErrorData, Peer, RoleServer,
    model::{
        CallToolRequestParams, CallToolResult, ContentBlock, CreateMessageRequestParams, ElicitRequestParams,
        SamplingMessage, Tool,
    },
    service::RequestContext,
};
use serde_json::json;

/// Whether the tool is of this module.
pub(super) fn has(name: &str) -> bool {
    name == "test_sampling" || name.starts_with("test_elicitation")
}

/// Its tools.
pub(super) fn all() -> [Tool; 4] {
    let text = |name: &str| json!({ "type": "object", "properties": { name: { "type": "string" } }, "required": [name] });
    [
        tool("test_sampling", "Asks the client's model", text("prompt")),
        tool("test_elicitation", "Asks the user", text("message")),
        tool(
            "test_elicitation_sep1034_defaults",
            "Asks the user, with defaults",
            nothing(),
        ),
        tool(
            "test_elicitation_sep1330_enums",
            "Asks the user to choose",
            nothing(),
        ),
    ]
}

/// Calls one of them.
pub(super) async fn call(
    request: CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Answered<CallToolResult> {
    let arguments = request.arguments.unwrap_or_default();
    let text = |name: &str| arguments.get(name).and_then(Json::as_str).unwrap_or_default();
    let answer = match &*request.name {
        "test_sampling" => sample(&cx.peer, text("prompt")).await,
        "test_elicitation" => elicit(&cx.peer, text("message"), contact()).await,
        "test_elicitation_sep1034_defaults" => {
            elicit(&cx.peer, "Please review and update the form", defaults()).await
        }
        "test_elicitation_sep1330_enums" => elicit(&cx.peer, "Please choose", enums()).await,
        unknown => {
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {unknown}"),
                None,
            ));
        }
    };
    Ok(answer.map_or_else(
        |error| CallToolResult::error(vec![ContentBlock::text(error.to_string())]),
        said,
    ))
}

async fn sample(peer: &Peer<RoleServer>, prompt: &str) -> anyhow::Result<String> {
    let question = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
    let answer = peer.create_message(question).await?;
    let text = answer
        .message
        .content
        .first()
        .and_then(|content| content.as_text());
    Ok(format!("LLM response: {}", text.map_or("", |text| &text.text)))
}

async fn elicit(peer: &Peer<RoleServer>, message: &str, properties: Json) -> anyhow::Result<String> {
    let form = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema: serde_json::from_value(json!({ "type": "object", "properties": properties }))?,
    };
    let answer = peer.create_elicitation(form).await?;
    let (action, content) = (serde_json::to_value(answer.action)?, json!(answer.content));
    let action = action.as_str().unwrap_or_default();
    Ok(format!("User response: action={action}, content={content}"))
}

fn contact() -> Json {
    json!({
        "username": { "type": "string", "description": "User's response" },
        "email": { "type": "string", "description": "User's email address" },
    })
}

fn defaults() -> Json {
    json!({
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
        "verified": { "type": "boolean", "default": true },
    })
}

fn enums() -> Json {
    let plain = json!({ "type": "string", "enum": ["option1", "option2", "option3"] });
    let titled = |what: &str| {
        let choices = [("value1", "First"), ("value2", "Second"), ("value3", "Third")];
        json!(choices.map(|(value, nth)| json!({ "const": value, "title": format!("{nth} {what}") })))
    };
    json!({
        "untitledSingle": plain,
        "titledSingle": { "type": "string", "oneOf": titled("Option") },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": { "type": "array", "items": plain },
        "titledMulti": { "type": "array", "items": { "anyOf": titled("Choice") } },
    })
}
