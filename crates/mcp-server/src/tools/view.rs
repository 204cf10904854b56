//! Contexts and items as tools and resources show them.

use super::Call;
use crate::error::{Error, Result};
use domain::JsonObject;
use proto::v1;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A context without its items.
#[derive(Debug, Serialize)]
pub(crate) struct Context {
    /// Identifier.
    pub(crate) id: String,
    /// A person's name for it.
    pub(crate) name: String,
    /// `manual`, `conversation`, `incident`, `tool_result` or an own word.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `active` or `archived`.
    pub(crate) status: String,
    /// The agent it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_id: Option<String>,
    /// The session it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<String>,
    /// What else is kept with it. Listings leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<JsonObject>,
    /// Grows with every change; `if_version` compares with it.
    pub(crate) version: i64,
    /// How many items it has.
    pub(crate) item_count: i64,
    /// The items' content, bytes.
    pub(crate) size_bytes: i64,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// RFC 3339.
    pub(crate) updated_at: String,
    /// RFC 3339; when it will be deleted by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
}

/// One entry of a context.
#[derive(Debug, Serialize)]
pub(crate) struct Item {
    /// Its place, from 1.
    pub(crate) sequence: i64,
    /// Who speaks.
    pub(crate) role: String,
    /// The text, or its beginning when `truncated`.
    pub(crate) content: String,
    /// What else is kept with it.
    #[serde(skip_serializing_if = "JsonObject::is_empty")]
    pub(crate) metadata: JsonObject,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// The content was cut to fit; `size_bytes` is its whole size.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) truncated: bool,
    /// The whole content's size, where it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size_bytes: Option<usize>,
}

/// An entry to be added.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewItem {
    /// Who speaks: user, assistant, system, tool or an own word.
    pub(crate) role: String,
    /// The text.
    pub(crate) content: String,
    /// Anything else to keep with it.
    #[serde(default)]
    pub(crate) metadata: JsonObject,
}

impl Context {
    /// All of it.
    pub(crate) fn whole(context: v1::Context) -> Result<Self> {
        let metadata =
            proto::convert::object("metadata_json", &context.metadata_json).map_err(Error::internal)?;
        Ok(Self {
            metadata: Some(metadata),
            ..Self::summary(context)?
        })
    }

    /// Without its metadata, which can be large.
    pub(crate) fn summary(context: v1::Context) -> Result<Self> {
        Ok(Self {
            created_at: time(context.created_at)?.unwrap_or_default(),
            updated_at: time(context.updated_at)?.unwrap_or_default(),
            expires_at: time(context.expires_at)?,
            id: context.id,
            name: context.name,
            kind: context.r#type,
            status: context.status,
            agent_id: context.agent_id,
            session_id: context.session_id,
            metadata: None,
            version: context.version,
            item_count: context.item_count,
            size_bytes: context.size_bytes,
        })
    }
}

impl Item {
    /// The item, its content cut to at most `room` bytes.
    pub(crate) fn within(item: v1::ContextItem, room: usize) -> Result<Self> {
        let metadata =
            proto::convert::object("metadata_json", &item.metadata_json).map_err(Error::internal)?;
        let size = item.content.len();
        let mut content = item.content;
        let end = content.floor_char_boundary(room);
        content.truncate(end);
        let truncated = content.len() < size;
        Ok(Self {
            sequence: item.sequence,
            role: item.role,
            metadata,
            created_at: time(item.created_at)?.unwrap_or_default(),
            truncated,
            size_bytes: truncated.then_some(size),
            content,
        })
    }
}

/// A context and a part of its items.
pub(crate) struct Shown {
    /// The context.
    pub(crate) context: Context,
    /// The items, their contents together within what was asked for.
    pub(crate) items: Vec<Item>,
    /// Where the next part begins, when there is one.
    pub(crate) next_cursor: Option<String>,
}

impl Shown {
    /// Whether an item was cut to fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.items.iter().any(|item| item.truncated)
    }
}

/// Asks rest-api, in one call, for a context and for as many of its items as fit into `max_bytes` of content.
pub(crate) async fn show(call: Call<'_>, asked: v1::ListItemsRequest, max_bytes: usize) -> Result<Shown> {
    let id = asked.id.clone();
    let asked = v1::ListItemsRequest {
        max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
        with_context: true,
        ..asked
    };
    let mut contexts = call.upstream.contexts.clone();
    let page = contexts
        .list_items(call.caller.request(asked))
        .await?
        .into_inner();
    let context = match page.context {
        Some(context) => context,
        // A rest-api of the version before does not know the wish.
        None => contexts
            .get(call.caller.request(v1::GetContextRequest { id }))
            .await?
            .into_inner(),
    };
    let mut room = max_bytes;
    let mut items = Vec::with_capacity(page.items.len());
    for item in page.items {
        let item = Item::within(item, room)?;
        room -= item.content.len();
        items.push(item);
    }
    Ok(Shown {
        context: Context::whole(context)?,
        items,
        next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()),
    })
}

impl From<NewItem> for v1::NewItem {
    fn from(item: NewItem) -> Self {
        let metadata_json = if item.metadata.is_empty() {
            String::new()
        } else {
            object_text(&item.metadata)
        };
        Self {
            role: item.role,
            content: item.content,
            metadata_json,
        }
    }
}

/// A JSON object as text.
pub(crate) fn object_text(object: &JsonObject) -> String {
    proto::convert::object_text(object)
}

/// A page request; `limit` 0 takes the default.
pub(crate) fn page(limit: u32, cursor: Option<String>) -> Option<v1::PageRequest> {
    Some(v1::PageRequest {
        limit,
        cursor: cursor.unwrap_or_default(),
    })
}

/// RFC 3339, in UTC.
pub(crate) fn time(stamp: Option<prost_types::Timestamp>) -> Result<Option<String>> {
    let time = stamp
        .map(|stamp| proto::convert::time("time", &stamp))
        .transpose()
        .map_err(Error::internal)?;
    Ok(time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_cut_between_characters_and_says_so() {
        let item = |content: &str| v1::ContextItem {
            content: content.into(),
            ..Default::default()
        };
        let cut = Item::within(item("aéé"), 2).expect("an item");
        assert_eq!(
            (cut.content.as_str(), cut.truncated, cut.size_bytes),
            ("a", true, Some(5))
        );
        let whole = Item::within(item("aéé"), 5).expect("an item");
        assert_eq!(
            (whole.content.as_str(), whole.truncated, whole.size_bytes),
            ("aéé", false, None)
        );
    }
}
