//! From the domain's types to messages and back.

use crate::v1;
use domain::{
    Invalid, JsonObject, Principal, Scopes, Time, ToolRule, ToolRules, context, execution, page, tool,
};
use prost_types::Timestamp;
use serde_json::Value;

/// A message that breaks the contract: the field and what was expected.
pub type Result<T> = std::result::Result<T, Invalid>;

/// A point in time as a message.
pub fn timestamp(time: Time) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        nanos: time.timestamp_subsec_nanos().cast_signed(),
    }
}

/// A point in time from a message.
///
/// # Errors
/// When it lies outside of what can be told.
pub fn time(field: &str, stamp: &Timestamp) -> Result<Time> {
    u32::try_from(stamp.nanos)
        .ok()
        .and_then(|nanos| Time::from_timestamp(stamp.seconds, nanos))
        .ok_or_else(|| Invalid::new(field, "a point in time"))
}

fn required_time(field: &str, stamp: Option<&Timestamp>) -> Result<Time> {
    time(
        field,
        stamp.ok_or_else(|| Invalid::new(field, "a point in time"))?,
    )
}

fn optional_time(field: &str, stamp: Option<&Timestamp>) -> Result<Option<Time>> {
    stamp.map(|stamp| time(field, stamp)).transpose()
}

/// An identifier or another word from its text.
///
/// # Errors
/// When it is not one.
pub fn parse<T: std::str::FromStr>(field: &str, text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| Invalid::new(field, "a well-formed value"))
}

/// A JSON object from its text; empty text is the empty object.
///
/// # Errors
/// When it is not an object.
pub fn object(field: &str, text: &str) -> Result<JsonObject> {
    if text.is_empty() {
        return Ok(JsonObject::new());
    }
    serde_json::from_str(text).map_err(|_| Invalid::new(field, "a JSON object"))
}

fn json(field: &str, text: Option<&str>) -> Result<Option<Value>> {
    text.map(|t| serde_json::from_str(t).map_err(|_| Invalid::new(field, "JSON")))
        .transpose()
}

/// A JSON object as text.
pub fn object_text(object: &JsonObject) -> String {
    serde_json::to_string(object).unwrap_or_default()
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<&Principal> for v1::Principal {
    fn from(p: &Principal) -> Self {
        Self {
            tenant_id: p.tenant_id.to_string(),
            tenant: p.tenant.clone(),
            key_id: p.key_id.to_string(),
            key_name: p.key_name.clone(),
            scopes: p.scopes.iter().map(|s| s.to_string()).collect(),
            tools: p.tools.rules().map(rules),
        }
    }
}

fn rules(rules: &[ToolRule]) -> v1::ToolRules {
    let rule = |rule: &ToolRule| v1::ToolRule {
        tools: rule.tools.clone(),
        arguments_json: rule.arguments.as_ref().map(object_text),
    };
    v1::ToolRules {
        rules: rules.iter().map(rule).collect(),
    }
}

impl TryFrom<v1::ToolRule> for ToolRule {
    type Error = Invalid;
    fn try_from(r: v1::ToolRule) -> Result<Self> {
        let schema = r.arguments_json.as_deref();
        Ok(Self {
            tools: r.tools,
            arguments: schema.map(|text| object("arguments_json", text)).transpose()?,
        })
    }
}

impl TryFrom<Option<v1::ToolRules>> for Limits {
    type Error = Invalid;
    fn try_from(r: Option<v1::ToolRules>) -> Result<Self> {
        let Some(rules) = r else {
            return Ok(Self(ToolRules::unlimited()));
        };
        let rules = rules
            .rules
            .into_iter()
            .map(ToolRule::try_from)
            .collect::<Result<_>>()?;
        Ok(Self(ToolRules::limited(rules)?))
    }
}

/// What limits a key, from a message that may not speak of it.
struct Limits(ToolRules);

impl TryFrom<v1::Principal> for Principal {
    type Error = Invalid;
    /// Scopes that this version does not know are left out: a newer rest-api may grant them.
    fn try_from(p: v1::Principal) -> Result<Self> {
        let scopes: Vec<_> = p.scopes.iter().filter_map(|s| s.parse().ok()).collect();
        Ok(Self {
            tenant_id: parse("tenant_id", &p.tenant_id)?,
            tenant: p.tenant,
            key_id: parse("key_id", &p.key_id)?,
            key_name: p.key_name,
            scopes: Scopes::from(scopes),
            tools: Limits::try_from(p.tools)?.0,
        })
    }
}

impl From<Option<v1::PageRequest>> for PageOf {
    fn from(page: Option<v1::PageRequest>) -> Self {
        let page = page.unwrap_or_default();
        Self(page::PageRequest::new(
            (page.limit > 0).then_some(page.limit),
            optional(page.cursor),
        ))
    }
}

/// A page request that came as a message.
pub struct PageOf(pub page::PageRequest);

impl From<&page::PageRequest> for v1::PageRequest {
    fn from(page: &page::PageRequest) -> Self {
        Self {
            limit: page.limit,
            cursor: page.cursor.clone().unwrap_or_default(),
        }
    }
}

impl From<context::Context> for v1::Context {
    fn from(c: context::Context) -> Self {
        Self {
            id: c.id.to_string(),
            tenant_id: c.tenant_id.to_string(),
            metadata_json: object_text(&c.metadata),
            name: c.name,
            r#type: c.kind,
            agent_id: c.agent_id,
            session_id: c.session_id,
            status: c.status.as_str().to_owned(),
            version: c.version,
            item_count: c.item_count,
            size_bytes: c.size_bytes,
            created_at: Some(timestamp(c.created_at)),
            updated_at: Some(timestamp(c.updated_at)),
            expires_at: c.expires_at.map(timestamp),
        }
    }
}

impl TryFrom<v1::Context> for context::Context {
    type Error = Invalid;
    fn try_from(c: v1::Context) -> Result<Self> {
        Ok(Self {
            id: parse("id", &c.id)?,
            tenant_id: parse("tenant_id", &c.tenant_id)?,
            metadata: object("metadata_json", &c.metadata_json)?,
            name: c.name,
            kind: c.r#type,
            agent_id: c.agent_id,
            session_id: c.session_id,
            status: c.status.parse()?,
            version: c.version,
            item_count: c.item_count,
            size_bytes: c.size_bytes,
            created_at: required_time("created_at", c.created_at.as_ref())?,
            updated_at: required_time("updated_at", c.updated_at.as_ref())?,
            expires_at: optional_time("expires_at", c.expires_at.as_ref())?,
        })
    }
}

impl From<context::ContextItem> for v1::ContextItem {
    fn from(i: context::ContextItem) -> Self {
        Self {
            sequence: i.sequence,
            metadata_json: object_text(&i.metadata),
            role: i.role,
            content: i.content,
            created_at: Some(timestamp(i.created_at)),
        }
    }
}

impl TryFrom<v1::ContextItem> for context::ContextItem {
    type Error = Invalid;
    fn try_from(i: v1::ContextItem) -> Result<Self> {
        Ok(Self {
            sequence: i.sequence,
            metadata: object("metadata_json", &i.metadata_json)?,
            role: i.role,
            content: i.content,
            created_at: required_time("created_at", i.created_at.as_ref())?,
        })
    }
}

impl TryFrom<v1::NewItem> for context::NewItem {
    type Error = Invalid;
    fn try_from(i: v1::NewItem) -> Result<Self> {
        Ok(Self {
            metadata: object("metadata", &i.metadata_json)?,
            role: i.role,
            content: i.content,
        })
    }
}

impl From<context::SearchHit> for v1::SearchHit {
    fn from(h: context::SearchHit) -> Self {
        Self {
            context: Some(h.context.into()),
            sequence: h.sequence,
            snippet: h.snippet,
            score: h.score,
        }
    }
}

impl TryFrom<v1::SearchHit> for context::SearchHit {
    type Error = Invalid;
    fn try_from(h: v1::SearchHit) -> Result<Self> {
        let context = h.context.ok_or_else(|| Invalid::new("context", "a context"))?;
        Ok(Self {
            context: context.try_into()?,
            sequence: h.sequence,
            snippet: h.snippet,
            score: h.score,
        })
    }
}

impl From<tool::Tool> for v1::Tool {
    fn from(t: tool::Tool) -> Self {
        Self {
            id: t.id.to_string(),
            tenant_id: t.tenant_id.to_string(),
            input_schema_json: object_text(&t.spec.input_schema),
            options_json: serde_json::to_string(&t.spec.options).unwrap_or_default(),
            name: t.spec.name,
            description: t.spec.description,
            method: t.spec.method.as_str().to_owned(),
            url: t.spec.url,
            headers: t.spec.headers.into_iter().collect(),
            timeout_ms: t.spec.timeout_ms,
            read_only: t.spec.read_only,
            idempotent: t.spec.idempotent,
            destructive: t.spec.destructive,
            version: t.version,
        }
    }
}

impl TryFrom<v1::Tool> for tool::ToolSpec {
    type Error = Invalid;
    fn try_from(t: v1::Tool) -> Result<Self> {
        Ok(Self {
            input_schema: object("input_schema_json", &t.input_schema_json)?,
            options: options(&t.options_json)?,
            name: t.name,
            description: t.description,
            method: t.method.parse()?,
            url: t.url,
            headers: t.headers.into_iter().collect(),
            timeout_ms: t.timeout_ms,
            read_only: t.read_only,
            idempotent: t.idempotent,
            destructive: t.destructive,
        })
    }
}

fn options(text: &str) -> Result<tool::ToolOptions> {
    if text.is_empty() {
        return Ok(tool::ToolOptions::default());
    }
    serde_json::from_str(text).map_err(|_| Invalid::new("options_json", "a tool's options"))
}

impl From<execution::Outcome> for v1::Outcome {
    fn from(o: execution::Outcome) -> Self {
        Self {
            status: o.status.as_str().to_owned(),
            result_json: o.result.map(|v| v.to_string()),
            error: o.error.map(Into::into),
        }
    }
}

impl TryFrom<v1::Outcome> for execution::Outcome {
    type Error = Invalid;
    fn try_from(o: v1::Outcome) -> Result<Self> {
        let status: execution::ExecutionStatus = o.status.parse()?;
        if !status.is_final() {
            return Err(Invalid::new("status", "a final status"));
        }
        let result = json("result_json", o.result_json.as_deref())?;
        Ok(Self {
            status,
            result,
            error: o.error.map(Into::into),
        })
    }
}

impl From<execution::ExecutionError> for v1::ExecutionError {
    fn from(e: execution::ExecutionError) -> Self {
        Self {
            code: e.code,
            message: e.message,
        }
    }
}

impl From<v1::ExecutionError> for execution::ExecutionError {
    fn from(e: v1::ExecutionError) -> Self {
        Self {
            code: e.code,
            message: e.message,
        }
    }
}

impl From<execution::Execution> for v1::Execution {
    /// With the whole result; who shows a selection puts it in its place.
    fn from(e: execution::Execution) -> Self {
        let result_json = e.result.map(|v| v.to_string());
        Self {
            id: e.id.to_string(),
            tool: e.tool,
            status: e.status.as_str().to_owned(),
            result_bytes: result_json.as_ref().map_or(0, |text| text.len() as u64),
            result_json,
            error: e.error.map(Into::into),
            attempts: e.attempts,
            created_at: Some(timestamp(e.created_at)),
            started_at: e.started_at.map(timestamp),
            finished_at: e.finished_at.map(timestamp),
            progress: e.progress,
            cancel_requested: e.cancel_requested,
            digest: e.digest,
            selected: false,
            not_selected: None,
            max_result_bytes: None,
            arguments_json: object_text(&e.arguments),
            run_at: e.run_at.map(timestamp),
        }
    }
}
