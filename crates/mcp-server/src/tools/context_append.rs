use super::{BuiltIn, Call, Effect, view};
use crate::error::Result;
use domain::Scope;
use proto::v1::AppendItemsRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Adds items to a context.
pub(crate) struct ContextAppend;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The context.
    id: String,
    /// What to add, in order; 1 to 100 items.
    #[schemars(length(min = 1, max = 100))]
    items: Vec<view::NewItem>,
    /// Add only if the context is still at this version.
    #[serde(default)]
    if_version: Option<i64>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    /// The context as it is now.
    context: view::Context,
    /// The places that the new items got, in order.
    sequences: Vec<i64>,
}

impl BuiltIn for ContextAppend {
    const NAME: &'static str = "context_append";
    const TITLE: &'static str = "Add to a context";
    const DESCRIPTION: &'static str = "Adds items at the end of a context: all of them or none. Every call adds, so \
        do not repeat one that succeeded.";
    const SCOPE: Scope = Scope::ContextsWrite;
    const EFFECT: Effect = Effect::Additive;
    type Arguments = Arguments;
    type Output = Output;

    async fn call(call: Call<'_>, arguments: Arguments) -> Result<Output> {
        let request = call.caller.request(AppendItemsRequest {
            id: arguments.id,
            items: arguments.items.into_iter().map(Into::into).collect(),
            if_version: arguments.if_version,
        });
        let answer = call.upstream.contexts.clone().append(request).await?.into_inner();
        let sequences = answer.items.iter().map(|item| item.sequence).collect();
        Ok(Output {
            context: view::Context::summary(answer.context.unwrap_or_default())?,
            sequences,
        })
    }
}
