//! Contexts: an agent's working memory, and the items it is made of.

use crate::{ContextId, Invalid, JsonObject, TenantId, Time, validate};
use serde::{Deserialize, Serialize};

/// The most bytes of a context's or an item's metadata, as JSON text.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;
/// The most items that one call may append.
pub const MAX_ITEMS_PER_APPEND: usize = 100;
/// How many bytes of an item's content the full-text index covers.
pub const INDEXED_BYTES: usize = 256 * 1024;
/// The types that every tenant has; others are the tenant's own words.
pub const KNOWN_TYPES: [&str; 4] = ["manual", "conversation", "incident", "tool_result"];

/// Whether a context is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextStatus {
    /// In use; counted by `mcp_contexts_active`.
    #[default]
    Active,
    /// Kept, but out of the way.
    Archived,
}

impl ContextStatus {
    /// The word that stands in databases and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archived => "archived",
        }
    }
}

impl std::str::FromStr for ContextStatus {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "active" => Ok(Self::Active),
            "archived" => Ok(Self::Archived),
            _ => Err(Invalid::new("status", "'active' or 'archived'")),
        }
    }
}

/// A context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Identifier.
    pub id: ContextId,
    /// Its owner.
    pub tenant_id: TenantId,
    /// A person's name for it.
    pub name: String,
    /// One of [`KNOWN_TYPES`] or the tenant's own word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The agent it belongs to, in the agent's own words.
    pub agent_id: Option<String>,
    /// The session it belongs to, in the agent's own words.
    pub session_id: Option<String>,
    /// Anything else that the caller keeps with it.
    pub metadata: JsonObject,
    /// Whether it is in use.
    pub status: ContextStatus,
    /// Grows by one with every change, appended items included. It is the HTTP `ETag`.
    pub version: i64,
    /// How many items it has.
    pub item_count: i64,
    /// The items' content, bytes.
    pub size_bytes: i64,
    /// When it was made.
    pub created_at: Time,
    /// When it or its items last changed.
    pub updated_at: Time,
    /// When it will be deleted by itself.
    pub expires_at: Option<Time>,
}

/// One entry of a context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextItem {
    /// Its place in the context, from 1, without gaps.
    pub sequence: i64,
    /// Who speaks: `user`, `assistant`, `system`, `tool` or the tenant's own word.
    pub role: String,
    /// The text.
    pub content: String,
    /// Anything else that the caller keeps with it.
    pub metadata: JsonObject,
    /// When it was appended.
    pub created_at: Time,
}

/// What a new context is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewContext {
    /// 1 to 200 characters.
    pub name: String,
    /// 1 to 64 letters, digits, `-`, `_`, `.`.
    pub kind: String,
    /// At most 200 characters.
    pub agent_id: Option<String>,
    /// At most 200 characters.
    pub session_id: Option<String>,
    /// At most [`MAX_METADATA_BYTES`].
    pub metadata: JsonObject,
    /// When it shall be deleted by itself.
    pub expires_at: Option<Time>,
}

/// What a new item is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewItem {
    /// 1 to 64 letters, digits, `-`, `_`, `.`.
    pub role: String,
    /// Not empty, without U+0000; its size limit is a setting of rest-api.
    pub content: String,
    /// At most [`MAX_METADATA_BYTES`].
    pub metadata: JsonObject,
}

/// A change to a context; what is `None` stays as it is. The inner `None` clears.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContextPatch {
    /// A new name.
    pub name: Option<String>,
    /// A new status.
    pub status: Option<ContextStatus>,
    /// The whole new metadata.
    pub metadata: Option<JsonObject>,
    /// A new time of expiry.
    pub expires_at: Option<Option<Time>>,
}

/// Which contexts a listing shows; every part that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextFilter {
    /// Only this type.
    pub kind: Option<String>,
    /// Only this status.
    pub status: Option<ContextStatus>,
    /// Only this agent's.
    pub agent_id: Option<String>,
    /// Only this session's.
    pub session_id: Option<String>,
    /// Only those changed at or after this time.
    pub updated_since: Option<Time>,
}

/// A context that a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// The context.
    pub context: Context,
    /// The item that matched best; 0 when the context's name did.
    pub sequence: i64,
    /// The part of it that matched, with `<mark>` around the words; the rest is HTML-escaped.
    pub snippet: String,
    /// How well it matched; greater is better. Comparable within one search only.
    pub score: f64,
}

impl NewContext {
    /// Holds it to the rules above.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        validate::text("name", &self.name, 200)?;
        validate::word("type", &self.kind, 64)?;
        label("agent_id", self.agent_id.as_deref())?;
        label("session_id", self.session_id.as_deref())?;
        validate::object("metadata", &self.metadata, MAX_METADATA_BYTES)
    }
}

impl NewItem {
    /// Holds it to the rules above; `index` is its place in the call, for the error.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, index: usize) -> Result<(), Invalid> {
        let field = |name: &str| format!("items[{index}].{name}");
        validate::word(&field("role"), &self.role, 64)?;
        if self.content.is_empty() {
            return Err(Invalid::new(field("content"), "text that is not empty"));
        }
        validate::no_nul(&field("content"), &self.content)?;
        validate::object(&field("metadata"), &self.metadata, MAX_METADATA_BYTES)
    }
}

impl ContextPatch {
    /// Holds it to the rules of [`NewContext`].
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(name) = &self.name {
            validate::text("name", name, 200)?;
        }
        match &self.metadata {
            Some(metadata) => validate::object("metadata", metadata, MAX_METADATA_BYTES),
            None => Ok(()),
        }
    }
}

fn label(field: &str, value: Option<&str>) -> Result<(), Invalid> {
    value.map_or(Ok(()), |v| validate::text(field, v, 200))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_context_is_held_to_its_rules() {
        let good = NewContext {
            name: "On call".into(),
            kind: "incident".into(),
            ..Default::default()
        };
        assert_eq!(good.check(), Ok(()));
        for (bad, field) in [
            (
                NewContext {
                    name: " ".into(),
                    ..good.clone()
                },
                "name",
            ),
            (
                NewContext {
                    name: "a\0b".into(),
                    ..good.clone()
                },
                "name",
            ),
            (
                NewContext {
                    kind: "has space".into(),
                    ..good.clone()
                },
                "type",
            ),
            (
                NewContext {
                    agent_id: Some("x".repeat(201)),
                    ..good.clone()
                },
                "agent_id",
            ),
        ] {
            assert_eq!(bad.check().unwrap_err().field, field);
        }
    }

    #[test]
    fn an_item_says_which_one_is_wrong() {
        let item = NewItem {
            role: "user".into(),
            content: "\0".into(),
            ..Default::default()
        };
        assert_eq!(item.check(3).unwrap_err().field, "items[3].content");
    }
}
