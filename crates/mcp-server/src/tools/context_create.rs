use super::{BuiltIn, Call, Effect, view};
use crate::error::Result;
use domain::{JsonObject, Scope};
use proto::v1::CreateContextRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Opens a context.
pub(crate) struct ContextCreate;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// A person's name for it, 1 to 200 characters.
    name: String,
    /// `manual` (the default), `conversation`, `incident`, `tool_result` or an own word.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// The agent it belongs to.
    #[serde(default)]
    agent_id: Option<String>,
    /// The session it belongs to.
    #[serde(default)]
    session_id: Option<String>,
    /// Anything else to keep with it.
    #[serde(default)]
    metadata: JsonObject,
    /// Delete it by itself after so many seconds.
    #[serde(default)]
    expires_in_seconds: Option<u64>,
    /// Its first items, at most 100.
    #[serde(default)]
    items: Vec<view::NewItem>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    /// The new context.
    context: view::Context,
}

impl BuiltIn for ContextCreate {
    const NAME: &'static str = "context_create";
    const TITLE: &'static str = "Create a context";
    const DESCRIPTION: &'static str = "Opens a context: a named, shared working memory that agents and engineers of \
        this tenant can read, extend and search. Answers its id. Look with context_search or context_list first \
        whether there already is one for the matter.";
    const SCOPE: Scope = Scope::ContextsWrite;
    const EFFECT: Effect = Effect::Additive;
    type Arguments = Arguments;
    type Output = Output;

    async fn call(call: Call<'_>, arguments: Arguments) -> Result<Output> {
        let request = call.caller.request(CreateContextRequest {
            name: arguments.name,
            r#type: arguments.kind.unwrap_or_default(),
            agent_id: arguments.agent_id,
            session_id: arguments.session_id,
            metadata_json: view::object_text(&arguments.metadata),
            expires_in_seconds: arguments.expires_in_seconds,
            items: arguments.items.into_iter().map(Into::into).collect(),
        });
        let context = call.upstream.contexts.clone().create(request).await?.into_inner();
        Ok(Output {
            context: view::Context::whole(context)?,
        })
    }
}
