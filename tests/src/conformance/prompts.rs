//! Prompts.

use super::{Answered, TTL_MS, inputs, tools::IMAGE};
use crate::Json;
use rmcp::{
    ErrorData,
    model::{
        CacheScope, ContentBlock, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
        InputRequiredResult, ListPromptsResult, Prompt, PromptArgument, PromptMessage, ResourceContents,
        Role,
    },
};

/// The list.
pub(super) fn list() -> ListPromptsResult {
    let argument = |name, description: &str| {
        PromptArgument::new(name)
            .with_description(description)
            .with_required(true)
    };
    let arguments = vec![
        argument("arg1", "First test argument"),
        argument("arg2", "Second test argument"),
    ];
    let prompts = [
        ("test_simple_prompt", "A text", None),
        (
            "test_prompt_with_arguments",
            "A text of its arguments",
            Some(arguments),
        ),
        (
            "test_prompt_with_embedded_resource",
            "A resource and a text",
            None,
        ),
        ("test_prompt_with_image", "An image and a text", None),
        (
            "test_input_required_result_prompt",
            "A text of what the user says",
            None,
        ),
    ];
    let prompts =
        prompts.map(|(name, description, arguments)| Prompt::new(name, Some(description), arguments));
    ListPromptsResult::with_all_items(prompts.into())
        .with_ttl_ms(TTL_MS)
        .with_cache_scope(CacheScope::Private)
}

/// One prompt.
pub(super) fn get(request: &GetPromptRequestParams) -> Answered<GetPromptResponse> {
    let argument = |name: &str| {
        let value = request
            .arguments
            .as_ref()
            .and_then(|arguments| arguments.get(name));
        value.and_then(Json::as_str).unwrap_or_default()
    };
    let content = match request.name.as_str() {
        "test_simple_prompt" => vec![ContentBlock::text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => vec![ContentBlock::text(format!(
            "Prompt with arguments: arg1='{}', arg2='{}'",
            argument("arg1"),
            argument("arg2")
        ))],
        "test_prompt_with_embedded_resource" => {
            let text = "Embedded resource content for testing.";
            let resource = ResourceContents::text(text, argument("resourceUri")).with_mime_type("text/plain");
            let question = "Please process the embedded resource above.";
            vec![ContentBlock::resource(resource), ContentBlock::text(question)]
        }
        "test_prompt_with_image" => vec![
            ContentBlock::image(IMAGE, "image/png"),
            ContentBlock::text("Please analyze the image above."),
        ],
        "test_input_required_result_prompt" => {
            let responses = request.input_responses.as_ref();
            let Some(context) = inputs::content(responses, "user_context", "context") else {
                let wanted = inputs::form("What context should the prompt use?", "context", "string");
                let wanted = [("user_context".to_owned(), wanted)].into();
                return Ok(InputRequiredResult::from_input_requests(wanted).into());
            };
            vec![ContentBlock::text(format!("The context is {context}"))]
        }
        unknown => {
            return Err(ErrorData::invalid_params(
                format!("Unknown prompt: {unknown}"),
                None,
            ));
        }
    };
    let messages = content
        .into_iter()
        .map(|block| PromptMessage::new(Role::User, block));
    Ok(GetPromptResult::new(messages.collect()).into())
}
