//! Checks that several parts of the domain share, and the error they end in.

use crate::JsonObject;
use serde_json::Value;

/// Input that breaks a rule of the domain. Says which field and what was expected; never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {expected}")]
pub struct Invalid {
    /// The field's name as the caller wrote it, e.g. `name` or `items[2].content`.
    pub field: String,
    /// What would have been right.
    pub expected: String,
}

impl Invalid {
    /// `field` must be as `expected` says.
    pub fn new(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            expected: expected.into(),
        }
    }
}

/// A word: 1 to `max` characters of letters, digits, `-`, `_` and `.`.
///
/// # Errors
/// When it is something else.
pub fn word(field: &str, value: &str, max: usize) -> Result<(), Invalid> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.is_empty() || value.len() > max || !value.chars().all(ok) {
        return Err(Invalid::new(
            field,
            format!("1 to {max} letters, digits, '-', '_' or '.'"),
        ));
    }
    Ok(())
}

/// Text of 1 to `max` characters that a database can keep: no U+0000.
///
/// # Errors
/// When it is something else.
pub fn text(field: &str, value: &str, max: usize) -> Result<(), Invalid> {
    if value.trim().is_empty() || value.chars().count() > max {
        return Err(Invalid::new(field, format!("1 to {max} characters")));
    }
    no_nul(field, value)
}

/// Text without U+0000, which PostgreSQL cannot store.
///
/// # Errors
/// When it holds one.
pub fn no_nul(field: &str, value: &str) -> Result<(), Invalid> {
    if value.contains('\0') {
        return Err(Invalid::new(field, "text without U+0000"));
    }
    Ok(())
}

/// A JSON object of at most `max` bytes as text, without U+0000 in any string or key.
///
/// # Errors
/// When it is larger or holds one.
pub fn object(field: &str, value: &JsonObject, max: usize) -> Result<(), Invalid> {
    let text = serde_json::to_string(value).map_err(|_| Invalid::new(field, "a JSON object"))?;
    if text.len() > max {
        return Err(Invalid::new(
            field,
            format!("a JSON object of at most {max} bytes"),
        ));
    }
    // The escape may be one of a backslash before the letters: only then is it worth a closer look.
    if text.contains("\\u0000")
        && value
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value))
    {
        return Err(Invalid::new(field, "text without U+0000"));
    }
    Ok(())
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_holds_no_nul_but_may_speak_of_it() {
        let check = |value: Value| object("metadata", value.as_object().expect("an object"), 100);
        assert!(check(json!({"a": "\\u0000"})).is_ok());
        assert!(check(json!({"a": ["\0"]})).is_err());
        assert!(check(json!({"a": {"\0": 1}})).is_err());
    }
}
