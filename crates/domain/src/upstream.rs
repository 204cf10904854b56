//! Upstreams: other MCP servers whose tools a tenant offers its agents beside its own, each under the server's name.

use crate::{
    Invalid, JsonObject, TenantId, Time, UpstreamId,
    tool::{
        MAX_TIMEOUT_MS, Method, RESERVED_PREFIX, ToolOptions, ToolSpec, UpstreamTool, UrlTemplate,
        options::RESULT_BYTES,
    },
    tool_rule, validate,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The longest name of an upstream, bytes.
pub const MAX_NAME: usize = 24;
/// The most tools that are taken from one server.
pub const MAX_TOOLS: usize = 200;
/// The most patterns that choose among a server's tools.
pub const MAX_PATTERNS: usize = 64;
/// The longest description of a tool that is kept, characters; more is cut.
pub const MAX_DESCRIPTION: usize = 4000;
/// How many tools that were left out are told by name.
pub const MAX_TOLD: usize = 100;
/// The longest name of a tool that is told when it was left out, characters.
const MAX_TOLD_NAME: usize = 128;

/// What an upstream is made from, and what an update replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// Unique in its tenant, and what its tools' names begin with: 1 to 24 of `a` to `z`, `0` to `9` and `_`.
    pub name: String,
    /// The server's endpoint for Streamable HTTP.
    pub url: String,
    /// How long a call of one of its tools may take, milliseconds.
    pub timeout_ms: u32,
    /// The most bytes of a result that an agent is shown; `None`: as many as of any tool's.
    pub max_result_bytes: Option<u32>,
    /// Which of its tools are offered: names as the server has them, in which `*` stands for any characters.
    pub tools: Vec<String>,
    /// Whether any are offered.
    pub enabled: bool,
}

/// A registered upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Identifier.
    pub id: UpstreamId,
    /// Its owner.
    pub tenant_id: TenantId,
    /// What it is.
    pub spec: UpstreamSpec,
    /// Whether credentials are kept with it.
    pub has_credentials: bool,
    /// Grows by one with every change of what it is, not with what is learnt of it. It is the HTTP `ETag`.
    pub version: i64,
    /// When it was registered.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
    /// When its server is asked next.
    pub next_refresh_at: Option<Time>,
    /// When its server was last asked for its tools.
    pub asked_at: Option<Time>,
    /// When the server last answered. Its tools are those of then.
    pub answered_at: Option<Time>,
    /// Why the last asking failed; `None` when it did not.
    pub error: Option<RefreshError>,
    /// What was learnt when it answered.
    pub learnt: Learnt,
}

/// Why a server could not be asked for its tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshError {
    /// The stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What a server said of itself and its tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learnt {
    /// The server's name for itself.
    pub server: String,
    /// Its version.
    pub server_version: String,
    /// The revision of the protocol that is spoken with it.
    pub protocol_version: String,
    /// How many of its tools are offered.
    pub tools: u32,
    /// How many are not, those beside the filter aside.
    pub left_out_count: u32,
    /// The first of those, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// A tool of the server that is not offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name there, cut where it is long.
    pub tool: String,
    /// Why.
    pub reason: Reason,
}

/// Why a tool of a server is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its name holds what no tool's name may, or is too long with the upstream's before it.
    NameInvalid,
    /// It would have the name of one of the product's own tools.
    NameReserved,
    /// The server lists another of this name.
    NameRepeated,
    /// Another tool of the tenant has the name that it would have.
    NameTaken,
    /// The schema of its arguments is none, is too large or does not compile.
    SchemaInvalid,
    /// There are too many, or all of them together are too large.
    TooMany,
}

/// A tool as a server lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its name there.
    pub name: String,
    /// A person's name for it.
    pub title: Option<String>,
    /// What it does, as the server says it.
    pub description: Option<String>,
    /// The schema of its arguments; `None` when what the server gives is no object or too large.
    pub input_schema: Option<JsonObject>,
    /// What the server says of it; what it does not say is not so.
    pub read_only: bool,
    /// Likewise.
    pub destructive: bool,
    /// Likewise.
    pub idempotent: bool,
}

impl Learnt {
    /// Counts tools that turned out to have names that others have.
    #[must_use]
    pub fn with_taken(mut self, taken: &[LeftOut]) -> Self {
        let count = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        self.tools = self.tools.saturating_sub(count);
        self.left_out_count = self.left_out_count.saturating_add(count);
        let room = MAX_TOLD.saturating_sub(self.left_out.len());
        self.left_out.extend(taken.iter().take(room).cloned());
        self
    }
}

impl LeftOut {
    /// The tool, and why it is not offered.
    pub fn new(tool: &str, reason: Reason) -> Self {
        let visible = |c: &char| !c.is_control();
        let tool = tool.chars().filter(visible).take(MAX_TOLD_NAME).collect();
        Self { tool, reason }
    }
}

impl UpstreamSpec {
    /// Holds it to the rules above.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), Invalid> {
        let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.bytes().all(ok) {
            let expected = format!("1 to {MAX_NAME} of a to z, 0 to 9 and '_'");
            return Err(Invalid::new("name", expected));
        }
        if self.prefix().starts_with(RESERVED_PREFIX) {
            let expected = format!("a name whose tools' names do not begin with '{RESERVED_PREFIX}'");
            return Err(Invalid::new("name", expected));
        }
        let url = UrlTemplate::parse(&self.url).map_err(|e| Invalid::new("url", e.to_string()))?;
        if !url.arguments().is_empty() || self.url.contains(['{', '}']) {
            return Err(Invalid::new("url", "an address without braces"));
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&self.timeout_ms) {
            let expected = format!("1 to {MAX_TIMEOUT_MS} milliseconds");
            return Err(Invalid::new("timeout_ms", expected));
        }
        if self.max_result_bytes.is_some_and(|n| !RESULT_BYTES.contains(&n)) {
            let expected = format!("{} to {} bytes", RESULT_BYTES.start(), RESULT_BYTES.end());
            return Err(Invalid::new("max_result_bytes", expected));
        }
        self.check_patterns()
    }

    fn check_patterns(&self) -> Result<(), Invalid> {
        if self.tools.len() > MAX_PATTERNS {
            return Err(Invalid::new("tools", format!("at most {MAX_PATTERNS} patterns")));
        }
        let ok = |c: char| c.is_ascii_graphic() && c != '\\';
        for (i, pattern) in self.tools.iter().enumerate() {
            if pattern.is_empty() || pattern.len() > MAX_TOLD_NAME || !pattern.chars().all(ok) {
                let expected = format!("1 to {MAX_TOLD_NAME} visible ASCII characters");
                return Err(Invalid::new(format!("tools[{i}]"), expected));
            }
        }
        Ok(())
    }

    /// What its tools' names begin with.
    pub fn prefix(&self) -> String {
        format!("{}_", self.name)
    }

    /// Whether a tool of the server is to be offered.
    pub fn wants(&self, tool: &str) -> bool {
        self.enabled && self.tools.iter().any(|pattern| tool_rule::matches(pattern, tool))
    }

    /// What the wanted ones of the server's tools are offered as, and which cannot be. Whether schemas compile says
    /// `compiles`.
    pub fn offer(
        &self,
        listed: Vec<Listed>,
        compiles: impl Fn(&JsonObject) -> bool,
    ) -> (Vec<ToolSpec>, Vec<LeftOut>) {
        let (mut offered, mut left_out) = (Vec::new(), Vec::new());
        let mut names = BTreeSet::new();
        for tool in listed.into_iter().filter(|tool| self.wants(&tool.name)) {
            let name = tool.name.clone();
            let made = if names.insert(name.clone()) {
                self.tool(tool)
            } else {
                Err(Reason::NameRepeated)
            };
            match made {
                Ok(_) if offered.len() == MAX_TOOLS => left_out.push(LeftOut::new(&name, Reason::TooMany)),
                Ok(spec) if compiles(&spec.input_schema) => offered.push(spec),
                Ok(_) => left_out.push(LeftOut::new(&name, Reason::SchemaInvalid)),
                Err(reason) => left_out.push(LeftOut::new(&name, reason)),
            }
        }
        (offered, left_out)
    }

    /// What a tool of the server is offered as.
    fn tool(&self, listed: Listed) -> Result<ToolSpec, Reason> {
        let description = [listed.description, listed.title]
            .into_iter()
            .flatten()
            .map(|text| text.replace('\0', ""))
            .find(|text| !text.trim().is_empty())
            .unwrap_or_else(|| listed.name.clone());
        let mut spec = ToolSpec {
            name: format!("{}{}", self.prefix(), listed.name),
            description: shortened(description),
            method: Method::Post,
            url: String::new(),
            headers: BTreeMap::new(),
            input_schema: listed.input_schema.ok_or(Reason::SchemaInvalid)?,
            timeout_ms: 0,
            read_only: listed.read_only,
            idempotent: listed.idempotent,
            destructive: listed.destructive && !listed.read_only,
            options: ToolOptions {
                upstream: Some(UpstreamTool {
                    server: self.name.clone(),
                    tool: listed.name,
                }),
                ..ToolOptions::default()
            },
        };
        self.shape(&mut spec);
        match spec.check() {
            Ok(()) => Ok(spec),
            Err(Invalid { field, .. }) if field == "input_schema" => Err(Reason::SchemaInvalid),
            Err(_) if validate::word("name", &spec.name, 64).is_ok() => Err(Reason::NameReserved),
            Err(_) => Err(Reason::NameInvalid),
        }
    }

    /// Gives a tool of this upstream what it has from the upstream, not from the server.
    fn shape(&self, spec: &mut ToolSpec) {
        spec.url.clone_from(&self.url);
        spec.timeout_ms = self.timeout_ms;
        spec.options.max_result_bytes = self.max_result_bytes;
    }

    /// A tool that is offered already, as it is offered by what this upstream has become; `None` when it is no more.
    pub fn reshaped(&self, mut spec: ToolSpec) -> Option<ToolSpec> {
        let wanted = spec
            .options
            .upstream
            .as_ref()
            .is_some_and(|u| self.wants(&u.tool));
        self.shape(&mut spec);
        wanted.then_some(spec)
    }
}

/// Text of at most [`MAX_DESCRIPTION`] characters.
fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_DESCRIPTION - 1) {
        Some((end, _)) if text[end..].chars().nth(1).is_some() => format!("{}…", &text[..end]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> UpstreamSpec {
        UpstreamSpec {
            name: "github".into(),
            url: "https://mcp.example.com/mcp".into(),
            timeout_ms: 30_000,
            max_result_bytes: Some(10_000),
            tools: vec!["*".into()],
            enabled: true,
        }
    }

    fn listed(name: &str) -> Listed {
        Listed {
            name: name.into(),
            description: Some("d".into()),
            input_schema: json!({"type": "object"}).as_object().cloned(),
            ..Listed::default()
        }
    }

    #[test]
    fn an_upstream_is_held_to_its_rules() {
        assert_eq!(spec().check(), Ok(()));
        type Spoil = fn(&mut UpstreamSpec);
        let wrong: [(Spoil, &str); 8] = [
            (|s| s.name = "GitHub".into(), "name"),
            (|s| s.name = "context".into(), "name"),
            (|s| s.name = "a".repeat(25), "name"),
            (|s| s.url = "https://u:p@h.example/mcp".into(), "url"),
            (|s| s.url = "https://h.example/{tenant}".into(), "url"),
            (|s| s.timeout_ms = 0, "timeout_ms"),
            (|s| s.max_result_bytes = Some(1), "max_result_bytes"),
            (|s| s.tools = vec!["two words".into()], "tools[0]"),
        ];
        for (spoil, field) in wrong {
            let mut spec = spec();
            spoil(&mut spec);
            assert_eq!(spec.check().unwrap_err().field, field);
        }
    }

    #[test]
    fn what_cannot_be_offered_is_left_out_with_its_reason() {
        let bare = Listed {
            input_schema: None,
            ..listed("bare")
        };
        let broken = Listed {
            input_schema: json!({"type": "object", "broken": true}).as_object().cloned(),
            ..listed("broken")
        };
        let hidden = UpstreamSpec {
            tools: vec!["get_*".into(), "b*".into(), "a/*".into(), "x*".into()],
            ..spec()
        };
        let tools = vec![
            listed("get_issue"),
            listed("get_issue"),
            listed("delete_repo"),
            listed("a/b"),
            listed(&"x".repeat(60)),
            bare,
            broken,
        ];
        let (offered, left_out) = hidden.offer(tools, |schema| !schema.contains_key("broken"));
        let names: Vec<_> = offered.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["github_get_issue"]);
        let reasons: Vec<_> = left_out.iter().map(|left| left.reason).collect();
        assert_eq!(
            reasons,
            [
                Reason::NameRepeated,
                Reason::NameInvalid,
                Reason::NameInvalid,
                Reason::SchemaInvalid,
                Reason::SchemaInvalid
            ]
        );
        let own = UpstreamSpec {
            name: "query".into(),
            ..spec()
        };
        let (_, left_out) = own.offer(vec![listed("metrics")], |_| true);
        assert_eq!(left_out[0].reason, Reason::NameReserved);
        let many = (0..=MAX_TOOLS).map(|i| listed(&format!("t{i}"))).collect();
        let (offered, left_out) = spec().offer(many, |_| true);
        assert_eq!((offered.len(), left_out[0].reason), (MAX_TOOLS, Reason::TooMany));
    }

    #[test]
    fn what_the_server_says_is_taken_over_and_cut_to_size() {
        let told = Listed {
            description: Some("ä".repeat(5000)),
            destructive: true,
            ..listed("drop")
        };
        let quiet = Listed {
            description: Some(" \0".into()),
            title: Some("Quiet".into()),
            ..listed("quiet")
        };
        let (offered, _) = spec().offer(vec![told, quiet], |_| true);
        assert_eq!(offered[0].description.chars().count(), MAX_DESCRIPTION);
        assert!(offered[0].destructive && !offered[0].read_only && !offered[0].runs_twice());
        assert_eq!(offered[1].description, "Quiet");
        assert!(!offered[1].destructive && !offered[1].read_only);

        let other = UpstreamSpec {
            url: "https://other.example/mcp".into(),
            tools: vec!["quiet".into()],
            ..spec()
        };
        assert_eq!(other.reshaped(offered[0].clone()), None);
        let moved = other.reshaped(offered[1].clone()).unwrap();
        assert_eq!(
            (moved.url.as_str(), moved.name.as_str()),
            ("https://other.example/mcp", "github_quiet")
        );
    }
}
