//! From an OpenAPI document (3.0 or 3.1, JSON or YAML) to tools: one for each operation that was chosen.
//!
//! Documents are strangers' input. What reading one may cost is bounded ([`MAX_VALUES`]), nothing outside of the document
//! is ever looked at, and what a tool cannot express is left out or made simpler, each time with a reason
//! ([`Plan::left_out`], [`PlannedTool::notes`]).
//!
//! No I/O: no tokio, tonic, axum, sqlx or reqwest may enter here; `cargo xtask check` holds that.

mod arguments;
mod body;
mod error;
mod names;
mod note;
mod operation;
mod parameters;
mod plan;
mod read;
mod reference;
mod schema;
mod security;
mod select;
mod server;

pub use error::Error;
pub use note::{LeftOut, Note};
pub use plan::{Options, Plan, PlannedTool};
pub use read::{MAX_BYTES, MAX_DEPTH, MAX_VALUES};
pub use security::{Scheme, SchemeKind};
pub use select::Selection;

use serde_json::{Map, Value};

/// The most tools of one plan, unless [`Options::max_tools`] says otherwise.
pub const MAX_TOOLS: usize = 500;

/// Whether a tool's input schema is one that can be used; says what is wrong with it.
pub type SchemaCheck<'a> = &'a dyn Fn(&domain::JsonObject) -> Result<(), domain::Invalid>;

/// A document that was read and is OpenAPI of a version that is understood here.
#[derive(Debug)]
pub struct Document {
    root: Value,
    dialect: Dialect,
}

/// Which kind of schemas a document holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// OpenAPI 3.0: an own relative of JSON Schema draft 5.
    V30,
    /// OpenAPI 3.1: JSON Schema 2020-12.
    V31,
}

impl Document {
    /// Reads a document: JSON when it begins with `{`, YAML otherwise.
    ///
    /// # Errors
    /// When it is none, or costs more than [`MAX_BYTES`], [`MAX_DEPTH`] and [`MAX_VALUES`] allow.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::of(read::document(bytes)?)
    }

    fn of(root: Value) -> Result<Self, Error> {
        let version = match root.get("openapi") {
            Some(Value::String(version)) => version.clone(),
            Some(Value::Number(version)) => version.to_string(),
            _ if root.get("swagger").is_some() => return Err(Error::Version("Swagger 2.0".into())),
            _ => return Err(Error::NotOpenApi("has no 'openapi' with its version".into())),
        };
        let dialect = match version.split('.').take(2).collect::<Vec<_>>()[..] {
            ["3", "0"] => Dialect::V30,
            ["3", "1"] => Dialect::V31,
            _ => return Err(Error::Version(format!("OpenAPI {}", note::cut(&version, 20)))),
        };
        if !root.get("paths").is_some_and(Value::is_object) {
            return Err(Error::NotOpenApi("has no 'paths'".into()));
        }
        Ok(Self { root, dialect })
    }

    /// The document's title, if it has one.
    pub fn title(&self) -> Option<&str> {
        self.root.pointer("/info/title").and_then(Value::as_str)
    }

    fn paths(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.root
            .get("paths")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::iter)
    }

    fn references(&self) -> reference::References<'_> {
        reference::References { root: &self.root }
    }
}
