//! The plan: which tools a document becomes.

use crate::{
    Document, Error, MAX_TOOLS, SchemaCheck, Scheme, Selection,
    arguments::Request,
    body,
    note::{LeftOut, Note, Unfit, cut, head},
    operation::{self, Operation},
    parameters, security, server,
};
use domain::{
    Invalid,
    tool::{
        DEFAULT_TIMEOUT_MS, Method, Place, RetryPolicy, ToolOptions, ToolSpec, UrlTemplate,
        options::MAX_PLACES,
    },
};
use serde_json::Value;
use std::collections::BTreeMap;
use url::Url;

/// The most characters of a tool's description.
const MAX_DESCRIPTION: usize = 4000;
/// The longest prefix, characters.
const MAX_PREFIX: usize = 32;

/// How a plan is to be made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which operations.
    pub selection: Selection,
    /// Stands before every tool's name.
    pub prefix: String,
    /// Is called instead of the servers that the document names.
    pub server: Option<String>,
    /// Where the document was found: what a server's relative address is relative to.
    pub document_url: Option<Url>,
    /// How long a call may take, milliseconds.
    pub timeout_ms: u32,
    /// Given to every tool.
    pub retry: Option<RetryPolicy>,
    /// The most operations that may be chosen.
    pub max_tools: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            prefix: String::new(),
            server: None,
            document_url: None,
            timeout_ms: DEFAULT_TIMEOUT_MS,
            retry: None,
            max_tools: MAX_TOOLS,
        }
    }
}

/// What a document becomes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tools, in the order of their paths.
    pub tools: Vec<PlannedTool>,
    /// What was chosen and can be no tool.
    pub left_out: Vec<LeftOut>,
    /// The origin that credentials belong to: of the server that was asked for, or of the document's own.
    pub origin: Option<String>,
}

/// A tool that an operation becomes.
#[derive(Clone, Debug)]
pub struct PlannedTool {
    /// The tool. Passes [`ToolSpec::check`].
    pub spec: ToolSpec,
    /// The operation: its `operationId`, or method and path.
    pub operation: String,
    /// The path, as the document writes it.
    pub path: String,
    /// What it wants to be shown: any one of these, each of which wants all that it names. None at all: nothing.
    pub security: Vec<Vec<Scheme>>,
    /// Scheme, host and port that it calls.
    pub origin: String,
    /// What is simpler than in the document.
    pub notes: Vec<Note>,
}

impl Document {
    /// What the chosen operations become. Each tool's schema passes `check`.
    ///
    /// # Errors
    /// When what was asked for cannot be, or is too much. What is wrong with one operation leaves that one out.
    pub fn plan(&self, options: &Options, check: SchemaCheck<'_>) -> Result<Plan, Error> {
        options.selection.check()?;
        if !options.prefix.is_empty() {
            domain::validate::word("prefix", &options.prefix, MAX_PREFIX)?;
        }
        let server = options.server.as_deref().map(server::instead).transpose();
        let server = server.map_err(|unfit| Invalid::new("server", unfit.text))?;
        let (operations, mut left_out) = operation::all(self, &options.prefix)?;
        left_out.extend(options.selection.missing(&operations));
        left_out.truncate(options.max_tools);
        let chosen: Vec<_> = operations
            .iter()
            .filter(|o| options.selection.chooses(o))
            .collect();
        if chosen.len() > options.max_tools {
            return Err(Error::TooManyTools {
                chosen: chosen.len(),
                most: options.max_tools,
            });
        }
        let planner = Planner {
            document: self,
            options,
            server,
            check,
        };
        let mut tools = Vec::new();
        for operation in chosen {
            match planner.tool(operation) {
                Ok(tool) => tools.push(tool),
                Err(unfit) => left_out.push(LeftOut {
                    operation: operation.title(),
                    code: unfit.code,
                    text: cut(&unfit.text, 300),
                }),
            }
        }
        Ok(Plan {
            tools,
            left_out,
            origin: planner.origin(),
        })
    }
}

struct Planner<'a> {
    document: &'a Document,
    options: &'a Options,
    server: Option<Url>,
    check: SchemaCheck<'a>,
}

impl<'a> Planner<'a> {
    fn origin(&self) -> Option<String> {
        let base = match &self.server {
            Some(server) => Some(server.clone()),
            None => {
                let servers = self.document.root.get("servers");
                server::base([None, None, servers], self.options.document_url.as_ref()).ok()
            }
        };
        base.map(|url| url.origin().ascii_serialization())
    }

    fn tool(&self, operation: &Operation<'a>) -> Result<PlannedTool, Unfit> {
        let Some(method) = operation.method else {
            let text = format!("tools do not call with {}", operation.word.to_uppercase());
            return Err(Unfit::new("method", text));
        };
        let base = self.base(operation)?;
        let security = security::alternatives(self.document, operation);
        let mut request = Request::new(method);
        parameters::add(self.document, operation, &security, &mut request)?;
        body::add(self.document, operation, &mut request)?;
        let url = url(&base, &request.path)?;
        tell_security(&security, &mut request);
        let input_schema = request.schema(self.document, self.check)?;
        let places: BTreeMap<String, Place> = request
            .arguments
            .iter()
            .filter_map(|argument| Some((argument.name.clone(), argument.place.clone()?)))
            .take(MAX_PLACES)
            .collect();
        let content_type = request.content_type.take();
        let spec = ToolSpec {
            name: operation.name.clone(),
            description: description(operation),
            method,
            url,
            headers: content_type
                .map(|kind| ("Content-Type".to_owned(), kind))
                .into_iter()
                .collect(),
            input_schema,
            timeout_ms: self.options.timeout_ms,
            read_only: matches!(method, Method::Get | Method::Head),
            idempotent: !matches!(method, Method::Post | Method::Patch),
            destructive: method == Method::Delete,
            options: ToolOptions {
                places,
                body: request.format,
                retry: self.options.retry,
                ..ToolOptions::default()
            },
        };
        spec.check()
            .map_err(|e| Unfit::new("tool_invalid", e.to_string()))?;
        Ok(PlannedTool {
            spec,
            operation: operation.title(),
            path: operation.path.to_owned(),
            security,
            origin: base.origin().ascii_serialization(),
            notes: request.notes.into_vec(),
        })
    }

    fn base(&self, operation: &Operation<'a>) -> Result<Url, Unfit> {
        if let Some(server) = &self.server {
            return Ok(server.clone());
        }
        let of = |value: &'a Value| value.get("servers");
        let lists = [of(operation.value), of(operation.item), of(&self.document.root)];
        server::base(lists, self.options.document_url.as_ref())
    }
}

/// The template of the address.
fn url(base: &Url, path: &str) -> Result<String, Unfit> {
    let climbs = |segment: &str| {
        matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        )
    };
    if path.split(['/', '?']).any(climbs) {
        return Err(Unfit::new("path", "the path holds '.' or '..'"));
    }
    let url = format!(
        "{}{}",
        base.as_str().trim_end_matches('/'),
        path.replace(' ', "%20")
    );
    UrlTemplate::parse(&url)
        .map_err(|expected| Unfit::new("path", format!("the address is not {expected}")))?;
    Ok(url)
}

fn description(operation: &Operation<'_>) -> String {
    let text = |field: &str| {
        let text = operation.value.get(field).and_then(Value::as_str);
        text.map(|text| head(text).trim()).filter(|text| !text.is_empty())
    };
    let summary = text("summary").or_else(|| operation.item.get("summary")?.as_str().map(head));
    let long = text("description").filter(|long| Some(*long) != summary);
    let said: Vec<&str> = summary.into_iter().chain(long).collect();
    let mut told = match said[..] {
        [] => format!("{} {}", operation.word.to_uppercase(), operation.path),
        _ => said.join("\n\n"),
    };
    if operation.value.get("deprecated") == Some(&Value::Bool(true)) {
        told.insert_str(0, "Deprecated. ");
    }
    cut(&told, MAX_DESCRIPTION)
}

/// Says what a tool cannot show, where it must show something.
fn tell_security(security: &[Vec<Scheme>], request: &mut Request<'_>) {
    let usable =
        |wanted: &Vec<Scheme>| wanted.len() <= 1 && wanted.iter().all(|scheme| scheme.kind.is_usable());
    if security.is_empty() || security.iter().any(usable) {
        return;
    }
    let told: Vec<String> = security
        .iter()
        .flatten()
        .map(|scheme| match &scheme.kind {
            crate::SchemeKind::Unusable(what) => format!("'{}' is {what}", scheme.name),
            _ => format!("'{}' is one of several at once", scheme.name),
        })
        .collect();
    let text = format!("no credentials of a tool satisfy it: {}", told.join(", "));
    request.notes.add("security", text);
}
