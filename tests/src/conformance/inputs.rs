//! Tools that end with questions to the client and are called again with the answers, as in the modern era.
#![expect(
    deprecated,
    reason = "the suite has sampling and roots, which are on their way out"
)]

use super::{
    Answered,
    tools::{nothing, said, tool},
};
use crate::Json;
use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, CreateMessageRequest, CreateMessageRequestParams,
        ElicitRequest, ElicitRequestParams, InputRequest, InputRequests, InputRequiredResult, InputResponses,
        ListRootsRequest, RequestStateCodec, SamplingMessage, Tool,
    },
    service::RequestContext,
};
use serde_json::json;

const PREFIX: &str = "test_input_required_result_";
const STREAMING: &str = "test_streaming_elicitation";

/// Whether the tool is of this module.
pub(super) fn has(name: &str) -> bool {
    name == STREAMING || name.starts_with(PREFIX)
}

/// Its tools.
pub(super) fn all() -> [Tool; 9] {
    [
        (STREAMING, "Asks the user, in a stream"),
        (
            "test_input_required_result_elicitation",
            "Asks the user for a name",
        ),
        ("test_input_required_result_sampling", "Asks the client's model"),
        (
            "test_input_required_result_list_roots",
            "Asks for the client's roots",
        ),
        (
            "test_input_required_result_request_state",
            "Gives the client a state to carry",
        ),
        (
            "test_input_required_result_tampered_state",
            "Does not take another state back",
        ),
        (
            "test_input_required_result_multiple_inputs",
            "Asks three things at once",
        ),
        ("test_input_required_result_multi_round", "Asks twice"),
        (
            "test_input_required_result_capabilities",
            "Asks what the client can answer",
        ),
    ]
    .map(|(name, description)| tool(name, description, nothing()))
}

/// A question to the user with one field.
pub(super) fn form(message: &str, field: &str, r#type: &str) -> InputRequest {
    let schema =
        json!({ "type": "object", "properties": { field: { "type": r#type } }, "required": [field] });
    InputRequest::Elicitation(ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema: serde_json::from_value(schema).expect("a schema of one primitive field"),
    }))
}

/// What the user said to the question `key`, in `field`. Anything but an accepted form with a text there is no answer.
pub(super) fn content<'a>(answers: Option<&'a InputResponses>, key: &str, field: &str) -> Option<&'a str> {
    let answer = answers?.get(key)?;
    let accepted = answer["action"] == "accept";
    accepted.then(|| answer["content"][field].as_str()).flatten()
}

fn name() -> (String, InputRequest) {
    (
        "user_name".to_owned(),
        form("What is your name?", "name", "string"),
    )
}

fn confirmation() -> (String, InputRequest) {
    ("confirm".to_owned(), form("Please confirm", "ok", "boolean"))
}

fn sample(key: &str, prompt: &str) -> (String, InputRequest) {
    let question = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
    (
        key.to_owned(),
        InputRequest::CreateMessage(CreateMessageRequest::new(question)),
    )
}

fn roots() -> (String, InputRequest) {
    (
        "client_roots".to_owned(),
        InputRequest::ListRoots(ListRootsRequest::default()),
    )
}

fn ask<const N: usize>(questions: [(String, InputRequest); N]) -> CallToolResponse {
    InputRequiredResult::from_input_requests(questions.into()).into()
}

/// Calls one of these tools.
pub(super) fn call(
    codec: &RequestStateCodec,
    request: &CallToolRequestParams,
    cx: &RequestContext<RoleServer>,
) -> Answered<CallToolResponse> {
    let answers = request.input_responses.as_ref();
    let state = state(codec, request.request_state.as_deref())?;
    let answered = |key| {
        answers
            .and_then(|answers| answers.get(key))
            .filter(|answer| answer.is_object())
    };
    let done = |text: String| Ok(said(text).into());
    match request.name.strip_prefix(PREFIX).unwrap_or(STREAMING) {
        "elicitation" => match content(answers, "user_name", "name") {
            Some(name) => done(format!("Hello, {name}!")),
            None => Ok(ask([name()])),
        },
        "sampling" => match answered("capital_question") {
            Some(answer) => done(format!("The model says: {}", answer["content"]["text"])),
            None => Ok(ask([sample(
                "capital_question",
                "What is the capital of France?",
            )])),
        },
        "list_roots" => match answered("client_roots") {
            Some(answer) => done(format!("The roots are {}", answer["roots"])),
            None => Ok(ask([roots()])),
        },
        "request_state" | "tampered_state" => match (state, answered("confirm")) {
            (Some(_), Some(_)) => done("state-ok".to_owned()),
            _ => carry(codec, &json!("asked"), [confirmation()].into()),
        },
        "multiple_inputs" => {
            let all = ["user_name", "greeting", "client_roots"].map(answered);
            if state.is_some() && all.iter().all(Option::is_some) {
                return done("All three answers are there".to_owned());
            }
            let questions = [name(), sample("greeting", "Generate a greeting"), roots()];
            carry(codec, &json!("asked"), questions.into())
        }
        "multi_round" => rounds(codec, state.as_ref(), answers),
        "capabilities" => Ok(able(cx, answers.is_some())),
        _ => Ok(ask([(
            "value".to_owned(),
            form("Please give a value", "value", "string"),
        )])),
    }
}

/// What the client carried, when it is what it was given.
fn state(codec: &RequestStateCodec, sealed: Option<&str>) -> Answered<Option<Json>> {
    let opened = sealed.map(|sealed| codec.open_json(sealed)).transpose();
    opened.map_err(|_| ErrorData::invalid_params("requestState is not what was given out", None))
}

fn carry(codec: &RequestStateCodec, state: &Json, questions: InputRequests) -> Answered<CallToolResponse> {
    let sealed = codec.seal_json(state);
    let sealed = sealed.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    Ok(InputRequiredResult::new(Some(questions), Some(sealed)).into())
}

/// A name, then a colour; the state carries the name.
fn rounds(
    codec: &RequestStateCodec,
    state: Option<&Json>,
    answers: Option<&InputResponses>,
) -> Answered<CallToolResponse> {
    let name = state.and_then(|state| state["name"].as_str());
    if let (Some(name), Some(color)) = (name, content(answers, "step2", "color")) {
        return Ok(said(format!("{name} likes {color}")).into());
    }
    if let (Some(_), Some(name)) = (state, content(answers, "step1", "name")) {
        let question = form("Step 2: What is your favorite color?", "color", "string");
        return carry(
            codec,
            &json!({ "name": name }),
            [("step2".to_owned(), question)].into(),
        );
    }
    let question = form("Step 1: What is your name?", "name", "string");
    carry(codec, &json!({}), [("step1".to_owned(), question)].into())
}

/// Asks only what the client said it can answer.
fn able(cx: &RequestContext<RoleServer>, answered: bool) -> CallToolResponse {
    let client = cx.client_capabilities().unwrap_or_default();
    let mut questions = InputRequests::new();
    questions.extend(client.elicitation.is_some().then(name));
    questions.extend(
        client
            .sampling
            .is_some()
            .then(|| sample("greeting", "Generate a greeting")),
    );
    questions.extend(client.roots.is_some().then(roots));
    if answered || questions.is_empty() {
        return said("There is nothing to ask").into();
    }
    InputRequiredResult::from_input_requests(questions).into()
}
