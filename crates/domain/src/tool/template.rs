//! Addresses with places for arguments.

use crate::JsonObject;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::collections::BTreeSet;
use url::Url;

/// Everything but RFC 3986's unreserved characters: `/`, `?`, `#`, `%`, `&` and the like cannot pass.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The longest template, bytes.
const MAX_BYTES: usize = 4096;

/// An `http` or `https` address that may hold `{argument}` in its path and query, never in scheme, host or port.
///
/// An argument is percent-encoded where it stands, so that it cannot leave its place: not its path segment
/// (a segment that would become `.` or `..` is refused), not its query value, not the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Argument(String),
}

/// Why a template or a set of arguments makes no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not an address, or not of HTTP.
    #[error("an absolute http or https address")]
    NotHttp,
    /// User and password stand in the address.
    #[error("an address without user and password; these belong into credentials")]
    UserInfo,
    /// A fragment is never sent.
    #[error("an address without '#'")]
    Fragment,
    /// A brace without its partner, or a name that is none.
    #[error("placeholders as {{name}}, of letters, digits and '_'")]
    Placeholder,
    /// A placeholder in scheme, host or port.
    #[error("placeholders in path and query only")]
    PlaceholderInHost,
    /// Longer than 4096 bytes.
    #[error("at most 4096 bytes")]
    TooLong,
    /// An argument that the template needs is not there.
    #[error("the argument '{0}' is missing")]
    Missing(String),
    /// An argument is an object or a list, and cannot stand in an address.
    #[error("the argument '{0}' must be a string, a number or a boolean")]
    NotScalar(String),
    /// An argument is empty, `.` or `..`, and would change the path.
    #[error("the argument '{0}' must not be empty, '.' or '..' where it stands")]
    LeavesItsPlace(String),
}

impl UrlTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What it should have been instead.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        if template.len() > MAX_BYTES {
            return Err(TemplateError::TooLong);
        }
        let parts = split(template)?;
        let authority = template.find("://").map_or(0, |i| i + 3);
        let host_ends = template[authority..]
            .find(['/', '?'])
            .map_or(template.len(), |i| authority + i);
        if template[..host_ends].contains('{') {
            return Err(TemplateError::PlaceholderInHost);
        }
        // What a URL parser mends (`http:///h`, backslashes, tabs, spaces) would move places that were looked at here.
        let mended = |c: char| c == '\\' || c == ' ' || c.is_control();
        if template.contains(mended) || authority == 0 || host_ends == authority {
            return Err(TemplateError::NotHttp);
        }
        let plain = template.replace(['{', '}'], "");
        let url = Url::parse(&plain).map_err(|_| TemplateError::NotHttp)?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(TemplateError::NotHttp);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TemplateError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(TemplateError::Fragment);
        }
        Ok(Self { parts })
    }

    /// The arguments' names.
    pub fn arguments(&self) -> BTreeSet<&str> {
        let names = self.parts.iter().filter_map(|part| match part {
            Part::Argument(name) => Some(name.as_str()),
            Part::Text(_) => None,
        });
        names.collect()
    }

    /// Fills in the arguments.
    ///
    /// # Errors
    /// When one is missing, cannot stand in an address or would leave its place.
    pub fn fill(&self, arguments: &JsonObject) -> Result<Url, TemplateError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Argument(name) => {
                    let value = scalar(name, arguments)?;
                    text.extend(utf8_percent_encode(&value, ENCODED));
                }
            }
        }
        self.check_segments(&text)?;
        Url::parse(&text).map_err(|_| TemplateError::NotHttp)
    }

    /// Refuses a path in which an argument made a segment vanish or climb.
    fn check_segments(&self, filled: &str) -> Result<(), TemplateError> {
        let Some(first) = self.arguments().first().map(|name| (*name).to_owned()) else {
            return Ok(());
        };
        let authority = filled.find("://").map_or(0, |i| i + 3);
        let path = filled[authority..].split(['?', '#']).next().unwrap_or_default();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let climbs = segments
            .iter()
            .any(|s| matches!(s.replace("%2E", ".").replace("%2e", ".").as_str(), "." | ".."));
        let holes = segments.iter().rev().skip(1).any(|s| s.is_empty());
        if climbs || holes || self.ends_in_empty_argument(path) {
            return Err(TemplateError::LeavesItsPlace(
                self.culprit(&segments).unwrap_or(first),
            ));
        }
        Ok(())
    }

    fn ends_in_empty_argument(&self, path: &str) -> bool {
        let in_path = !self
            .parts
            .iter()
            .any(|p| matches!(p, Part::Text(t) if t.contains('?')));
        in_path && path.ends_with('/') && matches!(self.parts.last(), Some(Part::Argument(_)))
    }

    /// The argument that stands in the first segment that is empty, `.` or `..`.
    fn culprit(&self, segments: &[&str]) -> Option<String> {
        let place = segments.iter().position(|s| matches!(*s, "" | "." | ".."))?;
        let mut slashes = 0_usize;
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    let path = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
                    slashes += path.matches('/').count();
                }
                Part::Argument(name) if slashes == place + 1 => return Some(name.clone()),
                Part::Argument(_) => {}
            }
        }
        None
    }
}

fn split(template: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        if rest.as_bytes()[open] == b'}' {
            return Err(TemplateError::Placeholder);
        }
        let close = rest[open..].find('}').ok_or(TemplateError::Placeholder)? + open;
        let name = &rest[open + 1..close];
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(TemplateError::Placeholder);
        }
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        parts.push(Part::Argument(name.to_owned()));
        rest = &rest[close + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn scalar(name: &str, arguments: &JsonObject) -> Result<String, TemplateError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Err(TemplateError::Missing(name.to_owned())),
        Some(Value::String(s)) => Ok(s.clone()),
        Some(Value::Number(n)) => Ok(n.to_string()),
        Some(Value::Bool(b)) => Ok(b.to_string()),
        Some(_) => Err(TemplateError::NotScalar(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fill(template: &str, arguments: Value) -> Result<String, TemplateError> {
        let Value::Object(arguments) = arguments else {
            unreachable!()
        };
        UrlTemplate::parse(template)?.fill(&arguments).map(String::from)
    }

    #[test]
    fn arguments_are_encoded_where_they_stand() {
        let url = "https://h.example/users/{id}/x?q={q}&n=1";
        let filled = fill(url, json!({"id": "a/../b?c#d", "q": "1&n=2 ü"})).unwrap();
        assert_eq!(
            filled,
            "https://h.example/users/a%2F..%2Fb%3Fc%23d/x?q=1%26n%3D2%20%C3%BC&n=1"
        );
        assert_eq!(fill("http://h/{n}", json!({"n": 7})).unwrap(), "http://h/7");
        assert_eq!(fill("http://h/a{n}", json!({"n": ".."})).unwrap(), "http://h/a..");
        assert_eq!(fill("http://h/?q={n}", json!({"n": ""})).unwrap(), "http://h/?q=");
    }

    #[test]
    fn an_argument_cannot_leave_its_place() {
        for (template, id) in [
            ("http://h/a/{id}/b", ".."),
            ("http://h/a/{id}", "."),
            ("http://h/{id}/b", ""),
            ("http://h/{id}", ""),
            ("http://h/a/%2e{id}", "."),
        ] {
            let error = fill(template, json!({"id": id})).unwrap_err();
            assert_eq!(
                error,
                TemplateError::LeavesItsPlace("id".into()),
                "{template} {id:?}"
            );
        }
        let error = fill("http://h/{a}/{b}/c", json!({"a": "x", "b": ".."})).unwrap_err();
        assert_eq!(error, TemplateError::LeavesItsPlace("b".into()));
        assert_eq!(
            fill("http://h/{id}", json!({})),
            Err(TemplateError::Missing("id".into()))
        );
        assert_eq!(
            fill("http://h/{id}", json!({"id": [1]})),
            Err(TemplateError::NotScalar("id".into()))
        );
    }

    #[test]
    fn bad_templates_say_what_was_expected() {
        for (template, error) in [
            ("ftp://h/x", TemplateError::NotHttp),
            ("/relative", TemplateError::NotHttp),
            ("http://{host}/x", TemplateError::PlaceholderInHost),
            ("http://h:{port}/x", TemplateError::PlaceholderInHost),
            ("{url}", TemplateError::PlaceholderInHost),
            ("http:/{host}/x", TemplateError::NotHttp),
            ("http:///{host}/x", TemplateError::NotHttp),
            ("http:\\\\{host}/x", TemplateError::PlaceholderInHost),
            ("http://h/a\\{id}", TemplateError::NotHttp),
            ("http://h/a/{id} ", TemplateError::NotHttp),
            ("http://h/a/\t{id}", TemplateError::NotHttp),
            ("http://u:p@h/x", TemplateError::UserInfo),
            ("http://h/x#f", TemplateError::Fragment),
            ("http://h/{a b}", TemplateError::Placeholder),
            ("http://h/{a", TemplateError::Placeholder),
            ("http://h/a}", TemplateError::Placeholder),
        ] {
            assert_eq!(UrlTemplate::parse(template), Err(error), "{template}");
        }
    }
}
