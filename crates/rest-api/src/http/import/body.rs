//! What an import is asked with.

use crate::api::{Given, ImportAsk, OnConflict, Source};
use axum::body::Bytes;
use chassis::Problem;
use domain::{
    Invalid,
    tool::{Credentials, DEFAULT_TIMEOUT_MS, RetryPolicy},
};
use http::{StatusCode, header::CONTENT_TYPE, request::Parts};
use openapi::Selection;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// Media types of a body that is the document itself.
const DOCUMENTS: [&str; 8] = [
    "application/yaml",
    "application/x-yaml",
    "text/yaml",
    "application/openapi+yaml",
    "application/openapi+json",
    "application/vnd.oai.openapi",
    "application/vnd.oai.openapi+json",
    "application/vnd.oai.openapi+yaml",
];

/// A document to import, and what to make of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportInput {
    /// Where the document is: an `http` or `https` address that a worker fetches.
    #[schema(example = "https://api.example.com/openapi.yaml")]
    url: Option<String>,
    /// The document itself: an object, or JSON or YAML as text.
    #[schema(value_type = Option<Object>)]
    document: Option<Box<RawValue>>,
    /// Nothing is registered; the answer shows the tools as they would be.
    #[serde(default)]
    preview: bool,
    /// `operationId`s or names of tools; `*` stands for any characters.
    #[serde(default)]
    operations: Vec<String>,
    /// Tags; `*` stands for any characters.
    #[serde(default)]
    tags: Vec<String>,
    /// Paths as the document writes them; `*` stands for any characters.
    #[serde(default)]
    #[schema(example = json!(["/repos/{owner}/{repo}/issues*"]))]
    paths: Vec<String>,
    /// Methods, in any case.
    #[serde(default)]
    #[schema(example = json!(["GET"]))]
    methods: Vec<String>,
    /// Stands before every tool's name.
    #[serde(default)]
    #[schema(example = "gh_")]
    prefix: String,
    /// Called instead of the servers that the document names.
    server: Option<String>,
    /// Credentials as a tool has them, for every tool that wants some; or an object of them by the names of the
    /// document's security schemes. They go to one origin only: `server`'s, or that of the document's first server.
    #[schema(value_type = Option<Object>)]
    credentials: Option<Value>,
    /// What is done about tools whose names are taken.
    #[serde(default)]
    on_conflict: Conflict,
    /// Of every tool: 1 to 300000.
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
    /// Of every tool.
    #[schema(value_type = Option<Object>)]
    retry: Option<RetryPolicy>,
}

/// What is done about tools whose names are taken.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Conflict {
    /// Nothing is registered at all.
    #[default]
    Fail,
    /// They stay as they are.
    Skip,
    /// They become what the document says; credentials stay unless others are given.
    Replace,
}

/// The options, where the body is the document. Lists are separated by commas.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    #[serde(default)]
    preview: bool,
    #[serde(default)]
    operations: String,
    #[serde(default)]
    tags: String,
    #[serde(default)]
    paths: String,
    #[serde(default)]
    methods: String,
    #[serde(default)]
    prefix: String,
    server: Option<String>,
    #[serde(default)]
    #[param(inline)]
    on_conflict: Conflict,
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_MS
}

/// Reads the request, whichever way it is written.
///
/// # Errors
/// What is wrong with it.
pub(super) fn ask(head: &Parts, body: Bytes) -> Result<ImportAsk, Problem> {
    let said = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = said.unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    if DOCUMENTS.contains(&essence.as_str()) {
        return of_query(head, body);
    }
    if essence != "application/json" {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!(
                "send application/json, or the document itself as one of {}",
                DOCUMENTS.join(", ")
            ),
        ));
    }
    let input: ImportInput = serde_json::from_slice(&body).map_err(|e| {
        // The error's own words may repeat a value, and a value may be a secret.
        let place = format!("line {}, column {}", e.line(), e.column());
        if e.is_data() {
            let text = format!("the body does not fit at {place}: see the API's description");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", text)
        } else {
            Problem::bad_request("invalid_json", format!("the body is no JSON at {place}"))
        }
    })?;
    input
        .ask()
        .map_err(|invalid| Problem::from(crate::error::Error::Invalid(invalid)))
}

fn of_query(head: &Parts, body: Bytes) -> Result<ImportAsk, Problem> {
    let query = axum::extract::Query::<ImportQuery>::try_from_uri(&head.uri)
        .map_err(|rejection| Problem::bad_request("invalid_query", rejection.body_text()))?
        .0;
    let list = |text: &str| {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    Ok(ImportAsk {
        source: Source::Document(body),
        selection: Selection {
            operations: list(&query.operations),
            tags: list(&query.tags),
            paths: list(&query.paths),
            methods: list(&query.methods),
        },
        prefix: query.prefix,
        server: query.server,
        credentials: Given::None,
        on_conflict: query.on_conflict.into(),
        timeout_ms: query.timeout_ms,
        retry: None,
        preview: query.preview,
    })
}

impl ImportInput {
    fn ask(self) -> Result<ImportAsk, Invalid> {
        let source = match (self.url, self.document) {
            (Some(url), None) => Source::Url(url),
            (None, Some(document)) => Source::Document(document_bytes(&document)?),
            _ => return Err(Invalid::new("document", "either 'document' or 'url'")),
        };
        Ok(ImportAsk {
            source,
            selection: Selection {
                operations: self.operations,
                tags: self.tags,
                paths: self.paths,
                methods: self.methods,
            },
            prefix: self.prefix,
            server: self.server,
            credentials: self.credentials.map_or(Ok(Given::None), given)?,
            on_conflict: self.on_conflict.into(),
            timeout_ms: self.timeout_ms,
            retry: self.retry,
            preview: self.preview,
        })
    }
}

/// The document as it was written: it is read once, by who bounds what that may cost.
fn document_bytes(document: &RawValue) -> Result<Bytes, Invalid> {
    let text = document.get();
    if !text.starts_with('"') {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let text: String =
        serde_json::from_str(text).map_err(|_| Invalid::new("document", "an object, or text"))?;
    Ok(Bytes::from(text))
}

fn given(value: Value) -> Result<Given, Invalid> {
    let invalid = || {
        let expected = "credentials as a tool has them, or an object of such by names of security schemes";
        Invalid::new("credentials", expected)
    };
    // What is wrong is not told in the parser's words, which repeat values.
    match &value {
        Value::Null => Ok(Given::None),
        Value::Object(fields) if fields.get("type").is_some_and(Value::is_string) => {
            serde_json::from_value::<Credentials>(value)
                .map(Given::Any)
                .map_err(|_| invalid())
        }
        _ => serde_json::from_value::<BTreeMap<String, Credentials>>(value)
            .map(Given::ByScheme)
            .map_err(|_| invalid()),
    }
}

impl From<Conflict> for OnConflict {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Fail => Self::Fail,
            Conflict::Skip => Self::Skip,
            Conflict::Replace => Self::Replace,
        }
    }
}
