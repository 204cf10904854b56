use super::{BuiltIn, Call, Effect, view};
use crate::error::{Error, Result};
use domain::Scope;
use proto::v1::ListContextsRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most contexts of one answer; without their metadata that bounds it.
const MAX_CONTEXTS: u32 = 100;

/// Lists contexts.
pub(crate) struct ContextList;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// Only this type.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// Only `active` or only `archived` ones.
    #[serde(default)]
    status: Option<String>,
    /// Only this agent's.
    #[serde(default)]
    agent_id: Option<String>,
    /// Only this session's.
    #[serde(default)]
    session_id: Option<String>,
    /// Only those changed at or after this time, RFC 3339.
    #[serde(default)]
    updated_since: Option<String>,
    /// The most contexts, 1 to 100; 20 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
    /// Where the answer before this one ended (its `next_cursor`).
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Output {
    /// The contexts, without their metadata.
    contexts: Vec<view::Context>,
    /// There are more.
    truncated: bool,
    /// Give it as `cursor` for what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl BuiltIn for ContextList {
    const NAME: &'static str = "context_list";
    const TITLE: &'static str = "List contexts";
    const DESCRIPTION: &'static str = "Lists this tenant's contexts, filtered by type, status, agent, session or time \
        of change. While `truncated` is true, call again with `cursor` set to `next_cursor`.";
    const SCOPE: Scope = Scope::ContextsRead;
    const EFFECT: Effect = Effect::ReadOnly;
    type Arguments = Arguments;
    type Output = Output;

    async fn call(call: Call<'_>, arguments: Arguments) -> Result<Output> {
        let request = call.caller.request(ListContextsRequest {
            page: view::page(
                arguments.limit.unwrap_or(20).clamp(1, MAX_CONTEXTS),
                arguments.cursor,
            ),
            r#type: arguments.kind,
            status: arguments.status,
            agent_id: arguments.agent_id,
            session_id: arguments.session_id,
            updated_since: arguments.updated_since.as_deref().map(since).transpose()?,
        });
        let page = call.upstream.contexts.clone().list(request).await?.into_inner();
        let next_cursor = Some(page.next_cursor).filter(|cursor| !cursor.is_empty());
        let contexts = page
            .contexts
            .into_iter()
            .map(view::Context::summary)
            .collect::<Result<_>>()?;
        Ok(Output {
            contexts,
            truncated: next_cursor.is_some(),
            next_cursor,
        })
    }
}

fn since(text: &str) -> Result<prost_types::Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| {
        Error::Arguments("/updated_since: expected a time such as 2026-07-28T12:00:00Z".to_owned())
    })?;
    Ok(proto::convert::timestamp(time.to_utc()))
}
