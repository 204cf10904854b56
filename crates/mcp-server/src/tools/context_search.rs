use super::{BuiltIn, Call, Effect, view};
use crate::error::Result;
use domain::Scope;
use proto::v1::SearchContextsRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most hits of one answer, and the most bytes of one snippet: together they bound it.
const MAX_HITS: u32 = 50;
const MAX_SNIPPET: usize = 2048;

/// Finds contexts by their text.
pub(crate) struct ContextSearch;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The words to look for.
    query: String,
    /// The most hits, 1 to 50; 10 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
    /// Only contexts of this type.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// Only `active` or only `archived` ones.
    #[serde(default)]
    status: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    /// Best first.
    hits: Vec<Hit>,
    /// There were more hits than are shown.
    truncated: bool,
    /// How to get the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct Hit {
    /// The context.
    context: view::Context,
    /// The item that matched best; 0 when the name of the context did.
    sequence: i64,
    /// What matched, with `<mark>` around the words.
    snippet: String,
    /// Greater is better; comparable within one answer only.
    score: f64,
}

impl BuiltIn for ContextSearch {
    const NAME: &'static str = "context_search";
    const TITLE: &'static str = "Search contexts";
    const DESCRIPTION: &'static str = "Full-text search over the items of all of this tenant's contexts, best match \
        first. Shows where each context matched; context_get reads it.";
    const SCOPE: Scope = Scope::ContextsRead;
    const EFFECT: Effect = Effect::ReadOnly;
    type Arguments = Arguments;
    type Output = Output;

    async fn call(call: Call<'_>, arguments: Arguments) -> Result<Output> {
        let request = call.caller.request(SearchContextsRequest {
            query: arguments.query,
            limit: arguments.limit.unwrap_or(10).clamp(1, MAX_HITS),
            r#type: arguments.kind,
            status: arguments.status,
        });
        let answer = call.upstream.contexts.clone().search(request).await?.into_inner();
        let hit = |hit: proto::v1::SearchHit| {
            let mut snippet = hit.snippet;
            let end = snippet.floor_char_boundary(MAX_SNIPPET);
            snippet.truncate(end);
            let context = view::Context::summary(hit.context.unwrap_or_default())?;
            Ok(Hit {
                context,
                sequence: hit.sequence,
                snippet,
                score: hit.score,
            })
        };
        Ok(Output {
            hits: answer.hits.into_iter().map(hit).collect::<Result<_>>()?,
            truncated: answer.truncated,
            note: answer
                .truncated
                .then_some("there are more hits: raise limit (up to 50) or narrow the query"),
        })
    }
}
