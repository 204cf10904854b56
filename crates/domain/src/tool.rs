//! Tools: HTTP APIs that a tenant has registered for its agents.

pub mod built_in;
pub mod options;
mod template;

pub use built_in::Toolset;
pub use options::{BodyFormat, Place, QueryStyle, RetryPolicy, ToolOptions, UpstreamTool};
pub use template::{TemplateError, UrlTemplate};

use crate::{Invalid, JsonObject, TenantId, Time, ToolId, validate};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The most bytes of an input schema, as JSON text.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// The longest that a tool may be allowed to take, milliseconds.
pub const MAX_TIMEOUT_MS: u32 = 300_000;
/// How long a tool may take when its registration does not say, milliseconds.
pub const DEFAULT_TIMEOUT_MS: u32 = 30_000;
/// Names that begin so belong to the product's own tools.
pub const RESERVED_PREFIX: &str = "context_";

/// The HTTP method of a tool's call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET; what the URL does not take of the arguments goes into the query.
    #[default]
    Get,
    /// HEAD; as GET.
    Head,
    /// POST; what the URL does not take of the arguments goes into a JSON body.
    Post,
    /// PUT; as POST.
    Put,
    /// PATCH; as POST.
    Patch,
    /// DELETE; as GET.
    Delete,
}

impl Method {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether arguments that the URL does not take go into a JSON body (otherwise: the query).
    pub fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

impl std::str::FromStr for Method {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [
            Self::Get,
            Self::Head,
            Self::Post,
            Self::Put,
            Self::Patch,
            Self::Delete,
        ]
        .into_iter()
        .find(|m| m.as_str() == s)
        .ok_or_else(|| Invalid::new("method", "GET, HEAD, POST, PUT, PATCH or DELETE"))
    }
}

/// What a tool's endpoint is shown to prove who calls. Kept encrypted, never returned, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Credentials {
    /// `Authorization: Bearer …`.
    Bearer {
        /// The token.
        token: String,
    },
    /// `Authorization: Basic …`.
    Basic {
        /// The user's name; without `:`.
        username: String,
        /// The password.
        password: String,
    },
    /// A header of the endpoint's own.
    Header {
        /// The header's name.
        name: String,
        /// Its value.
        value: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// What a tool is made from, and what an update replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSpec {
    /// Unique in its tenant: 1 to 64 letters, digits, `-`, `_`, `.`; not beginning with [`RESERVED_PREFIX`].
    pub name: String,
    /// What it does, for the agent that chooses: 1 to 4000 characters.
    pub description: String,
    /// The call's method.
    pub method: Method,
    /// The call's address; may hold `{argument}` in path and query. See [`UrlTemplate`].
    pub url: String,
    /// Headers sent with every call. Secrets belong into `credentials`.
    pub headers: BTreeMap<String, String>,
    /// JSON Schema of the arguments, an object's.
    pub input_schema: JsonObject,
    /// How long a call may take, milliseconds, 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: u32,
    /// It changes nothing.
    pub read_only: bool,
    /// Running it twice is as good as once. What is read-only is.
    pub idempotent: bool,
    /// It may destroy something: it runs only when it was confirmed, approved, or the key may go without.
    pub destructive: bool,
    /// How its requests are put together, tried again, and its answers cut to size.
    pub options: ToolOptions,
}

/// A registered tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Identifier.
    pub id: ToolId,
    /// Its owner.
    pub tenant_id: TenantId,
    /// What it is.
    pub spec: ToolSpec,
    /// Whether credentials are kept with it.
    pub has_credentials: bool,
    /// Grows by one with every change. It is the HTTP `ETag`.
    pub version: i64,
    /// When it was registered.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl ToolSpec {
    /// Holds it to the rules above. Whether the schema compiles is for who runs it to check.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        validate::word("name", &self.name, 64)?;
        if self.name.starts_with(RESERVED_PREFIX) {
            return Err(Invalid::new(
                "name",
                format!("a name that does not begin with '{RESERVED_PREFIX}'"),
            ));
        }
        if built_in::is_built_in(&self.name) {
            return Err(Invalid::new("name", "a name that no tool of the product has"));
        }
        validate::text("description", &self.description, 4000)?;
        UrlTemplate::parse(&self.url).map_err(|e| Invalid::new("url", e.to_string()))?;
        self.check_headers()?;
        validate::object("input_schema", &self.input_schema, MAX_SCHEMA_BYTES)?;
        if self.input_schema.get("type").and_then(|t| t.as_str()) != Some("object") {
            return Err(Invalid::new(
                "input_schema",
                "a JSON Schema with \"type\": \"object\"",
            ));
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(Invalid::new(
                "timeout_ms",
                format!("1 to {MAX_TIMEOUT_MS} milliseconds"),
            ));
        }
        if self.read_only && self.destructive {
            return Err(Invalid::new("destructive", "false for a tool that is read-only"));
        }
        self.options.check()
    }

    /// Whether a call may be run again when its outcome is not known.
    pub fn runs_twice(&self) -> bool {
        self.read_only || self.idempotent
    }

    fn check_headers(&self) -> Result<(), Invalid> {
        if self.headers.len() > 32 {
            return Err(Invalid::new("headers", "at most 32"));
        }
        for (name, value) in &self.headers {
            check_header(&format!("headers.{name}"), name, value)?;
        }
        Ok(())
    }
}

impl Credentials {
    /// Holds them to what a header can carry.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Bearer { token } => check_value("credentials.token", token),
            Self::Basic { username, password } => {
                if username.contains(':') {
                    return Err(Invalid::new("credentials.username", "a name without ':'"));
                }
                validate::no_nul("credentials.username", username)?;
                validate::no_nul("credentials.password", password)
            }
            Self::Header { name, value } => check_header("credentials.name", name, value),
        }
    }
}

/// Headers that the connection or the product itself sets; a tool must not.
const OWN_HEADERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "proxy-authorization",
    "traceparent",
    "tracestate",
    "baggage",
    "keep-alive",
];

/// Holds a header that a tool sends to what a header can carry; the connection's own are not for tools to set.
///
/// # Errors
/// The first rule that is broken, under the name `field`.
pub fn check_header(field: &str, name: &str, value: &str) -> Result<(), Invalid> {
    let ok = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(ok) {
        return Err(Invalid::new(field, "an HTTP header's name"));
    }
    if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(Invalid::new(
            field,
            "a header that the connection does not set by itself",
        ));
    }
    check_value(field, value)
}

fn check_value(field: &str, value: &str) -> Result<(), Invalid> {
    let ok = |c: u8| c == b'\t' || (0x20..0x7f).contains(&c);
    if value.is_empty() || value.len() > 8192 || !value.bytes().all(ok) {
        return Err(Invalid::new(field, "1 to 8192 visible ASCII characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> ToolSpec {
        let serde_json::Value::Object(input_schema) = json!({"type": "object"}) else {
            unreachable!()
        };
        ToolSpec {
            name: "weather".into(),
            description: "Weather of a city".into(),
            method: Method::Get,
            url: "https://api.example.com/v1/{city}".into(),
            headers: BTreeMap::new(),
            input_schema,
            timeout_ms: 1000,
            read_only: true,
            idempotent: false,
            destructive: false,
            options: ToolOptions::default(),
        }
    }

    #[test]
    fn a_tool_is_held_to_its_rules() {
        assert_eq!(spec().check(), Ok(()));
        let header = |n: &str, v: &str| BTreeMap::from([(n.to_owned(), v.to_owned())]);
        for (bad, field) in [
            (
                ToolSpec {
                    name: "context_get".into(),
                    ..spec()
                },
                "name",
            ),
            (
                ToolSpec {
                    url: "file:///etc/passwd".into(),
                    ..spec()
                },
                "url",
            ),
            (
                ToolSpec {
                    headers: header("Host", "x"),
                    ..spec()
                },
                "headers.Host",
            ),
            (
                ToolSpec {
                    headers: header("X", "a\r\nb"),
                    ..spec()
                },
                "headers.X",
            ),
            (
                ToolSpec {
                    input_schema: JsonObject::new(),
                    ..spec()
                },
                "input_schema",
            ),
            (
                ToolSpec {
                    timeout_ms: 0,
                    ..spec()
                },
                "timeout_ms",
            ),
            (
                ToolSpec {
                    destructive: true,
                    ..spec()
                },
                "destructive",
            ),
        ] {
            assert_eq!(bad.check().unwrap_err().field, field);
        }
        assert!(spec().runs_twice());
    }
}
