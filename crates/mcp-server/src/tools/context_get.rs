use super::{BuiltIn, Call, Effect, view};
use crate::{
    error::{Error, Result},
    settings::Results,
};
use domain::Scope;
use proto::v1::ListItemsRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shows a context and its items.
pub(crate) struct ContextGet;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The context.
    pub(crate) id: String,
    /// The most items to show, 1 to 200; 50 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 200))]
    pub(crate) limit: Option<u32>,
    /// Begin with the newest item.
    #[serde(default)]
    pub(crate) newest_first: bool,
    /// Where the answer before this one ended (its `next_cursor`).
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// The most bytes of content to show, above the default of this server.
    #[serde(default)]
    pub(crate) max_bytes: Option<usize>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    /// The context.
    pub(crate) context: view::Context,
    /// Its items, in order.
    pub(crate) items: Vec<view::Item>,
    /// There is more than is shown.
    pub(crate) truncated: bool,
    /// Give it as `cursor` for what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
    /// How to get the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl BuiltIn for ContextGet {
    const NAME: &'static str = "context_get";
    const TITLE: &'static str = "Read a context";
    const DESCRIPTION: &'static str = "Shows a context and its items, oldest first unless newest_first. Large \
        contexts come in parts: while `truncated` is true, call again with `cursor` set to `next_cursor`.";
    const SCOPE: Scope = Scope::ContextsRead;
    const EFFECT: Effect = Effect::ReadOnly;
    type Arguments = Arguments;
    type Output = Output;

    async fn call(call: Call<'_>, arguments: Arguments) -> Result<Output> {
        let budget = budget(arguments.max_bytes, call.results)?;
        let shown = view::show(
            call,
            ListItemsRequest {
                id: arguments.id,
                page: view::page(arguments.limit.unwrap_or_default(), arguments.cursor),
                newest_first: arguments.newest_first,
                ..Default::default()
            },
            budget,
        )
        .await?;
        let note = note(shown.next_cursor.is_some(), shown.is_cut(), call.results);
        Ok(Output {
            context: shown.context,
            items: shown.items,
            truncated: note.is_some(),
            next_cursor: shown.next_cursor,
            note,
        })
    }
}

fn budget(wanted: Option<usize>, results: &Results) -> Result<usize> {
    match wanted {
        None => Ok(results.default_bytes),
        Some(bytes) if (1..=results.max_bytes).contains(&bytes) => Ok(bytes),
        Some(_) => Err(Error::Arguments(format!(
            "/max_bytes: expected 1 to {}",
            results.max_bytes
        ))),
    }
}

fn note(more: bool, cut: bool, results: &Results) -> Option<String> {
    let more = more.then(|| "more items follow: call again with cursor = next_cursor".to_owned());
    let cut = cut.then(|| {
        let max = results.max_bytes;
        format!(
            "an item's content was cut: call again with a larger max_bytes (up to {max}) and the same cursor"
        )
    });
    match (more, cut) {
        (Some(more), Some(cut)) => Some(format!("{more}; {cut}")),
        (more, cut) => more.or(cut),
    }
}
