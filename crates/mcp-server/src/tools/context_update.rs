use super::{BuiltIn, Call, Effect, view};
use crate::error::Result;
use domain::{JsonObject, Scope};
use proto::v1::UpdateContextRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Changes a context.
pub(crate) struct ContextUpdate;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The context.
    id: String,
    /// A new name.
    #[serde(default)]
    name: Option<String>,
    /// `active` or `archived`.
    #[serde(default)]
    status: Option<String>,
    /// The whole new metadata.
    #[serde(default)]
    metadata: Option<JsonObject>,
    /// Delete it by itself after so many seconds from now.
    #[serde(default)]
    expires_in_seconds: Option<u64>,
    /// Do not delete it by itself any more.
    #[serde(default)]
    clear_expiry: bool,
    /// Change it only if it is still at this version.
    #[serde(default)]
    if_version: Option<i64>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    /// The context as it is now.
    context: view::Context,
}

impl BuiltIn for ContextUpdate {
    const NAME: &'static str = "context_update";
    const TITLE: &'static str = "Change a context";
    const DESCRIPTION: &'static str = "Renames, archives or re-activates a context, replaces its metadata, or sets \
        when it expires. What is not given stays as it is.";
    const SCOPE: Scope = Scope::ContextsWrite;
    const EFFECT: Effect = Effect::Changing;
    type Arguments = Arguments;
    type Output = Output;

    async fn call(call: Call<'_>, arguments: Arguments) -> Result<Output> {
        let request = call.caller.request(UpdateContextRequest {
            id: arguments.id,
            name: arguments.name,
            status: arguments.status,
            metadata_json: arguments.metadata.as_ref().map(view::object_text),
            expires_in_seconds: arguments.expires_in_seconds,
            clear_expiry: arguments.clear_expiry,
            if_version: arguments.if_version,
        });
        let context = call.upstream.contexts.clone().update(request).await?.into_inner();
        Ok(Output {
            context: view::Context::whole(context)?,
        })
    }
}
