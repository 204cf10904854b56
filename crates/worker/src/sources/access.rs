//! One source, as one caller may use it.

use super::{Kind, Matcher, settings::Source};
use crate::outcome::{Code, Failure};
use serde_json::Value;
use std::sync::Arc;

/// A source with what a caller's grant says. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    name: String,
    source: Source,
    matchers: Vec<Matcher>,
}

impl Access {
    pub(super) fn new(name: &str, source: &Source, matchers: Vec<Matcher>) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            source: source.clone(),
            matchers,
        }))
    }

    /// The source's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.0.source.kind
    }

    /// What links begin with; without a slash at its end.
    pub fn public_url(&self) -> &str {
        let Source { public_url, url, .. } = &self.0.source;
        public_url.as_ref().unwrap_or(url).trim_end_matches('/')
    }

    /// What is enforced on everything that is asked; empty where the caller sees all.
    pub fn matchers(&self) -> &[Matcher] {
        &self.0.matchers
    }

    /// How it is set, for what is not asked over HTTP.
    pub fn settings(&self) -> &Source {
        &self.0.source
    }

    /// `GET` for JSON. `path` begins with a slash and follows the source's own.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let _ = (path, query);
        Err(Failure::new(Code::SourceUnavailable, ""))
    }

    /// `POST` of a form, which long queries need.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn post_form(&self, path: &str, form: &[(&str, String)]) -> Result<Value, Failure> {
        let _ = (path, form);
        Err(Failure::new(Code::SourceUnavailable, ""))
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let _ = (path, body);
        Err(Failure::new(Code::SourceUnavailable, ""))
    }

    /// `DELETE`. An answer without a body is `null`.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        let _ = path;
        Err(Failure::new(Code::SourceUnavailable, ""))
    }
}
