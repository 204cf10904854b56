//! What an import answers.

use crate::api::{Action, Imported, ImportedTool, Wanted};
use domain::{
    JsonObject,
    tool::{Method, ToolOptions, ToolSpec},
};
use openapi::{LeftOut, Note, Scheme, SchemeKind};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What became of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImportView {
    /// Nothing was registered.
    preview: bool,
    /// The document's title.
    title: Option<String>,
    counts: CountsView,
    /// One for each chosen operation that can be a tool.
    tools: Vec<ImportedToolView>,
    /// The other chosen operations.
    left_out: Vec<LeftOutView>,
    /// The security schemes that the tools' endpoints want satisfied.
    credentials: Vec<WantedView>,
}

/// How many tools there are of each action.
#[derive(Debug, Default, Serialize, ToSchema)]
struct CountsView {
    created: usize,
    replaced: usize,
    unchanged: usize,
    skipped: usize,
    conflicts: usize,
    left_out: usize,
}

/// One tool of an import.
#[derive(Debug, Serialize, ToSchema)]
struct ImportedToolView {
    name: String,
    /// The `operationId`, or method and path.
    operation: String,
    #[schema(value_type = String, example = "GET")]
    method: Method,
    /// As the document writes it.
    path: String,
    action: ActionView,
    /// The tool's version; `null` where it is not registered.
    version: Option<i64>,
    has_credentials: bool,
    /// What it does in a simpler way than the document says.
    simplified: Vec<ReasonView>,
    /// The whole tool, as it would be registered; in a preview only.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<PreviewView>,
}

/// What was done with a tool, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ActionView {
    Created,
    Replaced,
    Unchanged,
    /// One of its name is there and stays.
    Skipped,
    /// One of its name is there, and `on_conflict` is `fail`.
    Conflict,
}

/// A reason, for programs and for people.
#[derive(Debug, Serialize, ToSchema)]
struct ReasonView {
    /// Stable.
    code: &'static str,
    reason: String,
}

/// An operation that is no tool.
#[derive(Debug, Serialize, ToSchema)]
struct LeftOutView {
    /// The `operationId`, or method and path.
    operation: String,
    /// Stable.
    code: &'static str,
    reason: String,
}

/// A security scheme that endpoints want satisfied.
#[derive(Debug, Serialize, ToSchema)]
struct WantedView {
    scheme: String,
    /// The type of credentials that satisfies it; `null`: none that a tool can have.
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    /// The header, where that type is `header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    /// What else there is to know of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// How many of the tools name it.
    tools: usize,
    /// Whether credentials were given for it.
    given: bool,
}

/// A tool as it would be registered.
#[derive(Debug, Serialize, ToSchema)]
struct PreviewView {
    description: String,
    url: String,
    headers: BTreeMap<String, String>,
    #[schema(value_type = Object)]
    input_schema: JsonObject,
    timeout_ms: u32,
    read_only: bool,
    idempotent: bool,
    destructive: bool,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    options: ToolOptions,
}

impl ImportView {
    pub(super) fn of(imported: Imported, preview: bool) -> Self {
        let tools: Vec<_> = imported
            .tools
            .into_iter()
            .map(|tool| ImportedToolView::of(tool, preview))
            .collect();
        let count = |action| tools.iter().filter(|tool| tool.action == action).count();
        Self {
            preview,
            title: imported.title,
            counts: CountsView {
                created: count(ActionView::Created),
                replaced: count(ActionView::Replaced),
                unchanged: count(ActionView::Unchanged),
                skipped: count(ActionView::Skipped),
                conflicts: count(ActionView::Conflict),
                left_out: imported.left_out.len(),
            },
            tools,
            left_out: imported.left_out.into_iter().map(Into::into).collect(),
            credentials: imported.wanted.into_iter().map(Into::into).collect(),
        }
    }

    /// Whether something was registered or changed.
    pub(super) fn wrote(&self) -> bool {
        !self.preview && self.counts.created + self.counts.replaced > 0
    }
}

impl ImportedToolView {
    fn of(imported: ImportedTool, preview: bool) -> Self {
        let planned = imported.planned;
        Self {
            name: planned.spec.name.clone(),
            operation: planned.operation,
            method: planned.spec.method,
            path: planned.path,
            action: match imported.action {
                Action::Create => ActionView::Created,
                Action::Replace => ActionView::Replaced,
                Action::Keep => ActionView::Unchanged,
                Action::Skip => ActionView::Skipped,
                Action::Conflict => ActionView::Conflict,
            },
            version: imported.version,
            has_credentials: imported.has_credentials,
            simplified: planned.notes.into_iter().map(Into::into).collect(),
            tool: preview.then(|| planned.spec.into()),
        }
    }
}

impl From<Note> for ReasonView {
    fn from(note: Note) -> Self {
        Self {
            code: note.code,
            reason: note.text,
        }
    }
}

impl From<LeftOut> for LeftOutView {
    fn from(left: LeftOut) -> Self {
        Self {
            operation: left.operation,
            code: left.code,
            reason: left.text,
        }
    }
}

impl From<Wanted> for WantedView {
    fn from(wanted: Wanted) -> Self {
        let Scheme { name, kind } = wanted.scheme;
        let (kind, header, note) = match kind {
            SchemeKind::Bearer => (Some("bearer"), None, None),
            SchemeKind::Basic => (Some("basic"), None, None),
            SchemeKind::Header(header) => (Some("header"), Some(header), None),
            SchemeKind::Token(service) => {
                let note = format!("{service}: give a token that you got there; it is not renewed");
                (Some("bearer"), None, Some(note))
            }
            SchemeKind::Unusable(why) => (None, None, Some(why)),
        };
        Self {
            scheme: name,
            kind,
            header,
            note,
            tools: wanted.tools,
            given: wanted.given,
        }
    }
}

impl From<ToolSpec> for PreviewView {
    fn from(spec: ToolSpec) -> Self {
        Self {
            description: spec.description,
            url: spec.url,
            headers: spec.headers,
            input_schema: spec.input_schema,
            timeout_ms: spec.timeout_ms,
            read_only: spec.read_only,
            idempotent: spec.idempotent,
            destructive: spec.destructive,
            options: spec.options,
        }
    }
}
