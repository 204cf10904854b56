use super::{BuiltIn, Call, Effect};
use crate::error::Result;
use domain::Scope;
use proto::v1::DeleteContextRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Deletes a context.
pub(crate) struct ContextDelete;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The context.
    id: String,
    /// Delete it only if it is still at this version.
    #[serde(default)]
    if_version: Option<i64>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    /// The context.
    id: String,
    /// It is gone.
    deleted: bool,
}

impl BuiltIn for ContextDelete {
    const NAME: &'static str = "context_delete";
    const TITLE: &'static str = "Delete a context";
    const DESCRIPTION: &'static str = "Deletes a context and its items for good. To keep it out of the way instead, \
        set its status to archived with context_update.";
    const SCOPE: Scope = Scope::ContextsWrite;
    const EFFECT: Effect = Effect::Destructive;
    type Arguments = Arguments;
    type Output = Output;

    async fn call(call: Call<'_>, arguments: Arguments) -> Result<Output> {
        let Arguments { id, if_version } = arguments;
        let request = call.caller.request(DeleteContextRequest {
            id: id.clone(),
            if_version,
        });
        call.upstream.contexts.clone().delete(request).await?;
        Ok(Output { id, deleted: true })
    }
}
