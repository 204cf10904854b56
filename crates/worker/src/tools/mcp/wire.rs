//! Messages as they are sent, and what servers say of themselves.

use super::{
    Hop, Server,
    peers::{Era, LEGACY, MODERN},
};
use crate::{
    outcome::{Code, Failure},
    tools::http::credential,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use domain::JsonObject;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, CONTENT_TYPE},
};
use opentelemetry::Context;
use serde_json::{Value, json};

/// The prefix of the protocol's own members of `_meta`.
const META: &str = "io.modelcontextprotocol/";
/// The older revisions that are understood.
const AGREEABLE: [&str; 4] = [LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// How many arguments may stand in headers.
const MAX_PARAM_HEADERS: usize = 32;
/// The longest that a server's words for itself may be, characters.
const MAX_WORDS: usize = 100;

/// A message to a server.
pub(super) struct Message<'a> {
    /// A request's; `None`: a notification.
    pub(super) id: Option<u64>,
    pub(super) method: &'static str,
    /// What it concerns, where that goes into a header, too.
    pub(super) name: Option<&'a str>,
    pub(super) params: Value,
    /// Arguments that go into headers, too.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) idempotency_key: Option<String>,
}

impl Message<'_> {
    /// A request.
    pub(super) fn new(id: u64, method: &'static str, params: Value) -> Self {
        Self {
            id: Some(id),
            ..Self::notification(method, params)
        }
    }

    /// What is not answered.
    pub(super) fn notification(method: &'static str, params: Value) -> Self {
        Self {
            id: None,
            method,
            name: None,
            params,
            headers: Vec::new(),
            idempotency_key: None,
        }
    }

    pub(super) fn span_name(&self) -> String {
        match self.name {
            Some(name) => format!("{} {name}", self.method),
            None => self.method.to_owned(),
        }
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) version: String,
}

/// The HTTP request of a message, in the trace of `cx`.
pub(super) fn hop(
    server: &Server<'_>,
    era: &Era,
    message: &Message<'_>,
    cx: &Context,
) -> Result<Hop, Failure> {
    let mut params = message.params.clone();
    let meta = &mut params["_meta"];
    trace(cx, meta);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    if let Some(credentials) = server.credentials {
        let (name, value) = credential(credentials)?;
        headers.insert(name, value);
    }
    match era {
        Era::Modern => {
            meta[format!("{META}protocolVersion")] = json!(MODERN);
            meta[format!("{META}clientInfo")] = client_info();
            meta[format!("{META}clientCapabilities")] = json!({});
            headers.insert(VERSION, HeaderValue::from_static(MODERN));
            headers.insert(METHOD, HeaderValue::from_static(message.method));
            if let Some(name) = message.name {
                headers.insert(NAME, header_value(name)?);
            }
            headers.extend(message.headers.iter().cloned());
        }
        Era::Legacy { version, session } => {
            headers.extend(version.clone().map(|version| (VERSION, version)));
            headers.extend(session.clone().map(|session| (SESSION, session)));
        }
    }
    if meta.is_null() {
        params.as_object_mut().map(|params| params.remove("_meta"));
    }
    let mut body = json!({"jsonrpc": "2.0", "method": message.method, "params": params});
    if let Some(id) = message.id {
        body["id"] = json!(id);
    }
    let key = message.idempotency_key.as_deref().map(header_value).transpose()?;
    Hop::message(server.url, headers, body.to_string().into(), key)
}

/// Writes the trace context: what strangers may see of it.
fn trace(cx: &Context, meta: &mut Value) {
    let mut carrier = HeaderMap::new();
    telemetry::propagate::inject_outward(cx, &mut carrier);
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = carrier.get(name).and_then(|value| value.to_str().ok()) {
            meta[name] = json!(value);
        }
    }
}

fn client_info() -> Value {
    json!({"name": "devops-mcp", "version": env!("CARGO_PKG_VERSION")})
}

/// What a session of the older era begins with.
pub(super) fn initialize() -> Value {
    json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client_info()})
}

/// The revision that the server wants to speak.
pub(super) fn agreed(begun: &Value) -> Result<HeaderValue, Failure> {
    let version = begun["protocolVersion"].as_str().unwrap_or_default();
    let known = AGREEABLE.into_iter().find(|known| *known == version);
    known.map(HeaderValue::from_static).ok_or_else(|| {
        let message = "the server speaks no revision of the protocol that is known here";
        Failure::new(Code::InvalidResponse, message)
    })
}

/// Whether a server that answered the newer greeting speaks the newer revision.
pub(super) fn is_modern(found: &Value) -> bool {
    let versions = found["supportedVersions"].as_array();
    versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN))
}

/// The server's words for itself.
pub(super) fn about(greeting: &Value) -> About {
    let own = &greeting["_meta"][format!("{META}serverInfo")];
    let info = if own.is_object() {
        own
    } else {
        &greeting["serverInfo"]
    };
    let words = |member: &str| {
        let text = info[member].as_str().unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
    };
    About {
        name: words("name"),
        version: words("version"),
    }
}

/// The arguments that the tool's schema wants to see in headers, too (`x-mcp-header`).
pub(super) fn param_headers(schema: &JsonObject, arguments: &JsonObject) -> Vec<(HeaderName, HeaderValue)> {
    let mut found = Vec::new();
    collect(schema.get("properties"), arguments, &mut found);
    found.truncate(MAX_PARAM_HEADERS);
    found
}

fn collect(properties: Option<&Value>, values: &JsonObject, found: &mut Vec<(HeaderName, HeaderValue)>) {
    for (name, schema) in properties.and_then(Value::as_object).into_iter().flatten() {
        let Some(value) = values.get(name) else { continue };
        if let Value::Object(inner) = value {
            collect(schema.get("properties"), inner, found);
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => continue,
        };
        let header = schema.get("x-mcp-header").and_then(Value::as_str);
        let header = header.and_then(|header| HeaderName::try_from(format!("mcp-param-{header}")).ok());
        if let (Some(header), Ok(value)) = (header, header_value(&text)) {
            found.push((header, value));
        }
    }
}

/// Text as a header's value: what no header can carry in base64, as the protocol has it.
fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    let marked = text.starts_with("=?base64?") && text.ends_with("?=");
    let value = if plain && !marked && text.trim() == text {
        HeaderValue::try_from(text)
    } else {
        HeaderValue::try_from(format!("=?base64?{}?=", BASE64_STANDARD.encode(text)))
    };
    value.map_err(|_| Failure::new(Code::InvalidArguments, "an argument that no header can carry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_go_into_headers_where_the_schema_says_so() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "where": {"properties": {"name": {"x-mcp-header": "Name"}}},
            "odd": {"x-mcp-header": "two words"},
            "plain": {"type": "string"},
        }});
        let arguments = json!({"region": "eu-1", "where": {"name": "Zürich"}, "odd": "x", "plain": "p"});
        let headers: HeaderMap = param_headers(schema.as_object().unwrap(), arguments.as_object().unwrap())
            .into_iter()
            .collect();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["mcp-param-region"], "eu-1");
        assert_eq!(headers["mcp-param-name"], "=?base64?WsO8cmljaA==?=");
    }

    #[test]
    fn a_server_is_of_the_era_that_it_says() {
        assert!(is_modern(
            &json!({"supportedVersions": ["2026-07-28", "2025-11-25"]})
        ));
        assert!(!is_modern(&json!({"supportedVersions": ["2025-11-25"]})) && !is_modern(&json!({})));
        assert_eq!(
            agreed(&json!({"protocolVersion": "2025-03-26"})).unwrap(),
            "2025-03-26"
        );
        assert!(agreed(&json!({"protocolVersion": "1999-01-01"})).is_err());
    }
}
