//! What a schema may cost. It is a tenant's input and is run for every call: without bounds, a few hundred bytes of
//! `$ref` that double at each step would hold a thread for ever, a circle of them would overflow its stack on deeply
//! nested arguments, and repetitions in patterns would take gigabytes.

use serde_json::Value;

/// The most values in a schema, those that `$ref` repeats counted each time.
const MAX_VALUES: usize = 4000;
/// How deep they may be nested, references followed.
const MAX_DEPTH: usize = 128;
/// The most patterns, each repetition counted.
const MAX_PATTERNS: u32 = 64;
/// The most that one compiled pattern may take, bytes.
pub(super) const MAX_PATTERN_BYTES: usize = 512 * 1024;

/// Holds a schema to the bounds and answers how many patterns it has.
///
/// # Errors
/// What was expected instead.
pub(super) fn check(schema: &Value) -> Result<u32, &'static str> {
    let mut walk = Walk {
        root: schema,
        ids: if is_draft_4(schema) { "id" } else { "$id" },
        values: 0,
        patterns: 0,
        open: Vec::new(),
    };
    walk.visit(schema, 0)?;
    Ok(walk.patterns)
}

fn is_draft_4(schema: &Value) -> bool {
    let version = schema.get("$schema").and_then(Value::as_str);
    version.is_some_and(|version| version.contains("draft-04"))
}

struct Walk<'a> {
    root: &'a Value,
    /// The keyword that would give references another base.
    ids: &'static str,
    values: usize,
    patterns: u32,
    /// The references that led here.
    open: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    /// Every object is taken for a schema: what is none costs a little and changes nothing.
    fn visit(&mut self, value: &'a Value, depth: usize) -> Result<(), &'static str> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err("a JSON Schema of at most 4000 values, those that $ref repeats counted each time");
        }
        if depth > MAX_DEPTH {
            return Err("a JSON Schema nested at most 128 deep, references followed");
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.visit(item, depth + 1)),
            Value::Object(fields) => fields
                .iter()
                .try_for_each(|(keyword, value)| self.keyword(keyword, value, depth)),
            _ => Ok(()),
        }
    }

    fn keyword(&mut self, keyword: &str, value: &'a Value, depth: usize) -> Result<(), &'static str> {
        match (keyword, value) {
            ("$ref", Value::String(place)) => return self.follow(place, depth),
            ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                return Err("a JSON Schema without $dynamicRef and $recursiveRef");
            }
            (word, Value::String(id))
                if word == self.ids && (depth > 0 || id.contains("json-schema.org")) =>
            {
                return Err("a JSON Schema with no identifier but its own");
            }
            ("pattern", Value::String(_)) => self.count_patterns(1)?,
            ("patternProperties", Value::Object(patterns)) => self.count_patterns(patterns.len())?,
            _ => {}
        }
        self.visit(value, depth + 1)
    }

    fn count_patterns(&mut self, more: usize) -> Result<(), &'static str> {
        self.patterns = self
            .patterns
            .saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        if self.patterns > MAX_PATTERNS {
            return Err("a JSON Schema of at most 64 patterns");
        }
        Ok(())
    }

    fn follow(&mut self, place: &'a str, depth: usize) -> Result<(), &'static str> {
        let circle = "a JSON Schema whose references do not lead in a circle";
        if place == "#" || self.open.contains(&place) {
            return Err(circle);
        }
        // An escape could stand for another place than the one that is counted here.
        let pointer = place
            .strip_prefix('#')
            .filter(|p| p.starts_with('/') && !p.contains('%'));
        let target = pointer.and_then(|pointer| self.root.pointer(pointer));
        let target = target.ok_or("references to a part of this very JSON Schema, such as #/$defs/name")?;
        self.open.push(place);
        self.visit(target, depth + 1)?;
        self.open.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    #[test]
    fn ordinary_schemas_pass_and_their_patterns_are_counted() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"name": {"type": "string", "pattern": "^[^/]{1,255}$"}},
            "properties": {
                "id": {"type": "string"}, "$id": {"type": "string"},
                "from": {"$ref": "#/$defs/name"}, "to": {"$ref": "#/$defs/name"},
            },
            "patternProperties": {"^x-": true},
        });
        assert_eq!(check(&schema), Ok(4));
    }

    #[test]
    fn what_would_cost_too_much_is_refused() {
        let twice = |to: usize| json!({"allOf": [{"$ref": format!("#/$defs/{to}")}, {"$ref": format!("#/$defs/{to}")}]});
        let mut doubling: Map<_, _> = (0..40).map(|i| (i.to_string(), twice(i + 1))).collect();
        doubling.insert("40".into(), json!({}));
        let patterns: Map<_, _> = (0..65).map(|i| (format!("x{i}"), json!(true))).collect();
        for schema in [
            json!({"$ref": "#/$defs/0", "$defs": doubling}),
            json!({"patternProperties": patterns}),
            json!({"patternProperties": {"a": {"$ref": "#"}, "^a": {"$ref": "#"}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}}}),
            json!({"$dynamicRef": "#x"}),
            json!({"$ref": "#/$defs/%61", "$defs": {"%61": true, "a": true}}),
            json!({"$defs": {"a": {"$id": "http://x/", "$ref": "#/$defs/b"}}}),
            json!({"$ref": "http://json-schema.org/draft-07/schema#"}),
            json!({"enum": vec![0; 5000]}),
        ] {
            assert!(check(&schema).is_err(), "{schema}");
        }
    }
}
