//! `$ref`: followed inside the document only, a bounded number of steps.

use crate::note::Unfit;
use serde_json::Value;

/// How many references may lead to one another before something that is none is found.
const MAX_HOPS: usize = 32;
/// The longest reference, bytes.
const MAX_REFERENCE: usize = 1024;

/// The places of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct References<'a> {
    pub(crate) root: &'a Value,
}

impl<'a> References<'a> {
    /// The value itself, or the one that it refers to.
    ///
    /// # Errors
    /// When it refers to nothing, to another document, or in a circle.
    pub(crate) fn resolve(self, value: &'a Value) -> Result<&'a Value, Unfit> {
        let mut value = value;
        for _ in 0..MAX_HOPS {
            let Some(place) = of(value) else { return Ok(value) };
            value = self.target(place)?;
        }
        Err(Unfit::new("reference_circle", "a reference leads in a circle"))
    }

    /// What a reference names, which may be another reference.
    ///
    /// # Errors
    /// When it names nothing in this document.
    pub(crate) fn target(self, place: &str) -> Result<&'a Value, Unfit> {
        if place.len() > MAX_REFERENCE {
            return Err(Unfit::new(
                "reference_missing",
                "a reference is longer than 1024 bytes",
            ));
        }
        let Some(pointer) = place.strip_prefix('#') else {
            let text = format!("'{place}' is outside of the document, and nothing else is read");
            return Err(Unfit::new("external_reference", text));
        };
        let missing = || Unfit::new("reference_missing", format!("'{place}' is not in the document"));
        let pointer = unescape(pointer).ok_or_else(missing)?;
        self.root.pointer(&pointer).ok_or_else(missing)
    }
}

/// The reference that a value is.
pub(crate) fn of(value: &Value) -> Option<&str> {
    value.get("$ref").and_then(Value::as_str)
}

/// Percent-encoding undone; `~0` and `~1` are the pointer's own.
fn unescape(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = tail
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_places_of_the_document_are_followed() {
        let root = json!({
            "a": {"x/y~z w": 1}, "b": {"$ref": "#/a/x~1y~0z%20w"}, "c": {"$ref": "#/b"},
            "loop": {"$ref": "#/loop"},
        });
        let references = References { root: &root };
        assert_eq!(references.resolve(&root["c"]).unwrap(), 1);
        for (place, code) in [
            ("#/none", "reference_missing"),
            ("#/a/%zz", "reference_missing"),
            ("#/a/%", "reference_missing"),
            ("other.yaml#/a", "external_reference"),
            ("http://169.254.169.254/", "external_reference"),
        ] {
            assert_eq!(references.target(place).unwrap_err().code, code, "{place}");
        }
        assert_eq!(
            references.resolve(&root["loop"]).unwrap_err().code,
            "reference_circle"
        );
    }
}
