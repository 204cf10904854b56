//! What an operation wants to be shown.

use crate::{Document, note::cut, operation::Operation};
use serde_json::Value;

/// The most alternatives of one operation, and the most schemes of one alternative.
const MAX_ENTRIES: usize = 8;

/// A security scheme, by the name that the document gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Its name.
    pub name: String,
    /// What satisfies it.
    pub kind: SchemeKind,
}

/// What satisfies a security scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemeKind {
    /// Credentials of type `bearer`.
    Bearer,
    /// Credentials of type `bearer`, with a token got from the named kind of service: it is not renewed.
    Token(&'static str),
    /// Credentials of type `basic`.
    Basic,
    /// Credentials of type `header`, for the header of this name.
    Header(String),
    /// Nothing that a tool can show; says why.
    Unusable(String),
}

impl SchemeKind {
    /// Whether credentials of a tool can satisfy it.
    pub fn is_usable(&self) -> bool {
        !matches!(self, Self::Unusable(_))
    }
}

/// Which schemes an operation wants: any one of the alternatives, each of which wants all that it names. None at all:
/// nothing need be shown.
pub(crate) fn alternatives(document: &Document, operation: &Operation<'_>) -> Vec<Vec<Scheme>> {
    let said = operation
        .value
        .get("security")
        .or_else(|| document.root.get("security"));
    let alternatives = said
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .take(MAX_ENTRIES);
    alternatives
        .filter_map(Value::as_object)
        .map(|wanted| {
            let names = wanted.keys().take(MAX_ENTRIES);
            names
                .map(|name| Scheme {
                    name: cut(name, 100),
                    kind: kind(document, name),
                })
                .collect()
        })
        .collect()
}

fn kind(document: &Document, name: &str) -> SchemeKind {
    let schemes = document.root.pointer("/components/securitySchemes");
    let scheme = schemes
        .and_then(|schemes| schemes.get(name))
        .and_then(|scheme| document.references().resolve(scheme).ok());
    let Some(scheme) = scheme else {
        return SchemeKind::Unusable("the document does not describe it".into());
    };
    let word = |field: &str| scheme.get(field).and_then(Value::as_str).unwrap_or_default();
    match (
        word("type"),
        word("scheme").to_ascii_lowercase().as_str(),
        word("in"),
    ) {
        ("http", "bearer", _) => SchemeKind::Bearer,
        ("http", "basic", _) => SchemeKind::Basic,
        ("http", other, _) => SchemeKind::Unusable(format!("HTTP authentication '{}'", cut(other, 40))),
        ("oauth2", ..) => SchemeKind::Token("OAuth 2"),
        ("openIdConnect", ..) => SchemeKind::Token("OpenID Connect"),
        ("apiKey", _, "header") if domain::tool::check_header("name", word("name"), "x").is_ok() => {
            SchemeKind::Header(word("name").to_owned())
        }
        ("apiKey", _, place) => SchemeKind::Unusable(format!("an API key in '{}'", cut(place, 40))),
        ("mutualTLS", ..) => SchemeKind::Unusable("a client's certificate".into()),
        (other, ..) => SchemeKind::Unusable(format!("a scheme of type '{}'", cut(other, 40))),
    }
}
