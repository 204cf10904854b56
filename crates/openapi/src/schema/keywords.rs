//! Keyword by keyword. What is not named here constrains nothing, or nothing that could be held to, and is dropped; so
//! is what has the wrong shape.

use super::{Detail, Rendered, Renderer, Stop, measure::MAX_PATTERNS};
use crate::Dialect;
use serde_json::{Map, Value, json};

/// The longest pattern, default, constant or name of a property, bytes.
const MAX_TEXT: usize = 1000;
/// The most names that may be required: with more, nothing fits.
const MAX_NAMES: usize = 4000;
const KINDS: [&str; 7] = [
    "object", "array", "string", "number", "integer", "boolean", "null",
];

/// The keyword `type`, as far as it is of JSON.
pub(super) fn kind(value: Option<&Value>) -> Option<Value> {
    match value? {
        Value::String(kind) if KINDS.contains(&kind.as_str()) => Some(kind.as_str().into()),
        Value::Array(kinds) => {
            let mut known: Vec<Value> = Vec::new();
            for kind in kinds.iter().take(KINDS.len()).filter_map(Value::as_str) {
                if !KINDS.contains(&kind) {
                    return None;
                }
                if !known.iter().any(|k| k == kind) {
                    known.push(kind.into());
                }
            }
            (!known.is_empty()).then_some(Value::Array(known))
        }
        _ => None,
    }
}

/// What is being made of one schema object.
#[derive(Default)]
struct Made {
    schema: Map<String, Value>,
    loosened: bool,
}

impl<'a> Renderer<'a> {
    /// The keywords of one schema but for `$ref`.
    pub(super) fn fields(&mut self, fields: &'a Map<String, Value>, depth: usize) -> Result<Rendered, Stop> {
        let mut made = Made::default();
        for (word, value) in fields {
            self.budget.look()?;
            self.keyword(&mut made, fields, word, value, depth)?;
        }
        self.conditions(&mut made, fields, depth)?;
        self.bounds(&mut made, fields)?;
        if made.loosened {
            made.schema.remove("unevaluatedProperties");
            made.schema.remove("unevaluatedItems");
        }
        Ok(Rendered {
            schema: Value::Object(made.schema),
            loosened: made.loosened,
        })
    }

    fn keyword(
        &mut self,
        made: &mut Made,
        fields: &'a Map<String, Value>,
        word: &'a str,
        value: &'a Value,
        depth: usize,
    ) -> Result<(), Stop> {
        match word {
            "type" => self.kind(made, value),
            "enum" => self.choices(made, value),
            "const" => self.constant(made, value),
            "description" => match value.as_str().and_then(|text| self.describe(text)) {
                Some(text) => self.put(made, word, text.into()),
                None => Ok(()),
            },
            "default" if is_short_scalar(value) => self.put(made, word, value.clone()),
            "format" if value.as_str().is_some_and(|text| text.len() <= 64) => {
                self.put(made, word, value.clone())
            }
            "uniqueItems" if value.is_boolean() => self.put(made, word, value.clone()),
            "maxLength" | "minLength" | "maxItems" | "minItems" | "maxProperties" | "minProperties" => {
                match whole(value) {
                    Some(count) => self.put(made, word, count.into()),
                    None => Ok(()),
                }
            }
            "multipleOf" if value.as_f64().is_some_and(|step| step > 0.0) => {
                self.put(made, word, value.clone())
            }
            "pattern" => self.pattern(made, value),
            "properties" => self.properties(made, value, depth),
            "patternProperties" => self.pattern_properties(made, value, depth),
            "additionalProperties" if !self.drops_patterns(fields) => {
                self.schema_at(made, word, value, depth)
            }
            "items" if value.is_array() => self.list(made, "prefixItems", value, depth),
            "items" | "propertyNames" => self.schema_at(made, word, value, depth),
            "unevaluatedProperties" | "unevaluatedItems" => self.schema_at(made, word, value, depth),
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => self.list(made, word, value, depth),
            "dependentSchemas" => self.schemas_at(made, word, value, depth),
            _ => Ok(()),
        }
    }

    fn put(&mut self, made: &mut Made, word: &str, value: Value) -> Result<(), Stop> {
        let bytes = value.as_str().map_or(8, str::len);
        self.budget.make(word.len() + bytes + 6)?;
        made.schema.insert(word.to_owned(), value);
        Ok(())
    }

    fn kind(&mut self, made: &mut Made, value: &Value) -> Result<(), Stop> {
        match kind(Some(value)) {
            Some(kind) => self.put(made, "type", kind),
            None => {
                self.notes
                    .add("type_unknown", "a type that JSON does not have is not held to");
                made.loosened = true;
                Ok(())
            }
        }
    }

    fn choices(&mut self, made: &mut Made, value: &Value) -> Result<(), Stop> {
        let Value::Array(choices) = value else {
            return Ok(());
        };
        if choices.is_empty() {
            return Ok(());
        }
        let Detail { choices: most, .. } = self.detail;
        if choices.len() > most || !choices.iter().all(is_short_scalar) {
            let text =
                "a list of allowed values that is long, or holds more than words and numbers, is left out";
            self.notes.add("choices_open", text);
            made.loosened = true;
            return Ok(());
        }
        let mut once: Vec<Value> = Vec::with_capacity(choices.len());
        let mut seen = std::collections::HashSet::new();
        for choice in choices {
            let text = choice.to_string();
            self.budget.make(text.len() + 1)?;
            if seen.insert(text) {
                once.push(choice.clone());
            }
        }
        self.put(made, "enum", Value::Array(once))
    }

    fn constant(&mut self, made: &mut Made, value: &Value) -> Result<(), Stop> {
        if is_short_scalar(value) {
            return self.put(made, "const", value.clone());
        }
        self.notes.add(
            "choices_open",
            "a constant that is more than a word or a number is left out",
        );
        made.loosened = true;
        Ok(())
    }

    fn pattern(&mut self, made: &mut Made, value: &Value) -> Result<(), Stop> {
        let Some(text) = value.as_str() else { return Ok(()) };
        self.patterns += 1;
        if !self.detail.patterns || self.patterns > MAX_PATTERNS || text.len() > MAX_TEXT {
            self.notes.add("patterns_open", "patterns are left out");
            made.loosened = true;
            return Ok(());
        }
        self.put(made, "pattern", text.into())
    }

    fn properties(&mut self, made: &mut Made, value: &'a Value, depth: usize) -> Result<(), Stop> {
        let Value::Object(properties) = value else {
            return Ok(());
        };
        let mut kept = Map::new();
        for (name, schema) in properties {
            self.budget.look()?;
            if name.len() > MAX_TEXT || self.is_read_only(schema) {
                continue;
            }
            self.budget.make(name.len() + 4)?;
            let rendered = self.render(schema, depth + 1)?;
            made.loosened |= rendered.loosened;
            kept.insert(name.clone(), rendered.schema);
        }
        self.put(made, "properties", Value::Object(kept))
    }

    /// Whether a property stands in answers only.
    pub(crate) fn is_read_only(&self, schema: &Value) -> bool {
        crate::body::is_read_only(self.references, schema)
    }

    fn drops_patterns(&self, fields: &Map<String, Value>) -> bool {
        fields
            .get("patternProperties")
            .and_then(Value::as_object)
            .is_some_and(|patterns| !self.detail.patterns || self.patterns + patterns.len() > MAX_PATTERNS)
    }

    fn pattern_properties(&mut self, made: &mut Made, value: &'a Value, depth: usize) -> Result<(), Stop> {
        let Value::Object(patterns) = value else {
            return Ok(());
        };
        let long = patterns.keys().any(|pattern| pattern.len() > MAX_TEXT);
        if long || !self.detail.patterns || self.patterns + patterns.len() > MAX_PATTERNS {
            // What they allowed must not be forbidden by their absence.
            made.schema.remove("additionalProperties");
            self.notes.add("patterns_open", "patterns are left out");
            made.loosened = true;
            return Ok(());
        }
        self.patterns += patterns.len();
        self.schemas_at(made, "patternProperties", value, depth)
    }

    fn schema_at(&mut self, made: &mut Made, word: &str, value: &'a Value, depth: usize) -> Result<(), Stop> {
        if !value.is_object() && !value.is_boolean() {
            return Ok(());
        }
        let rendered = self.render(value, depth + 1)?;
        made.loosened |= rendered.loosened;
        self.put(made, word, rendered.schema)
    }

    fn schemas_at(
        &mut self,
        made: &mut Made,
        word: &str,
        value: &'a Value,
        depth: usize,
    ) -> Result<(), Stop> {
        let Value::Object(schemas) = value else {
            return Ok(());
        };
        let mut kept = Map::new();
        for (name, schema) in schemas {
            self.budget.make(name.len() + 4)?;
            let rendered = self.render(schema, depth + 1)?;
            made.loosened |= rendered.loosened;
            kept.insert(name.clone(), rendered.schema);
        }
        self.put(made, word, Value::Object(kept))
    }

    fn list(&mut self, made: &mut Made, word: &str, value: &'a Value, depth: usize) -> Result<(), Stop> {
        let Value::Array(schemas) = value else {
            return Ok(());
        };
        let mut kept = Vec::new();
        let mut loosened = false;
        for schema in schemas {
            let rendered = self.render(schema, depth + 1)?;
            loosened |= rendered.loosened;
            kept.push(rendered.schema);
        }
        if kept.is_empty() {
            return Ok(());
        }
        made.loosened |= loosened;
        if word != "oneOf" || !loosened {
            return self.put(made, word, Value::Array(kept));
        }
        // What accepts more may meet more than one of them.
        if made.schema.contains_key("anyOf") {
            return Ok(());
        }
        self.put(made, "anyOf", Value::Array(kept))
    }

    /// Keywords in which a schema that accepts more would make the whole accept less.
    fn conditions(
        &mut self,
        made: &mut Made,
        fields: &'a Map<String, Value>,
        depth: usize,
    ) -> Result<(), Stop> {
        if let Some(not) = fields.get("not").filter(|not| not.is_object()) {
            let rendered = self.render(not, depth + 1)?;
            if rendered.loosened {
                made.loosened = true;
            } else {
                self.put(made, "not", rendered.schema)?;
            }
        }
        if self.dialect == Dialect::V30 {
            return Ok(());
        }
        if let Some(condition) = fields.get("if") {
            let rendered = self.render(condition, depth + 1)?;
            if rendered.loosened {
                made.loosened = true;
            } else {
                self.put(made, "if", rendered.schema)?;
                for word in ["then", "else"] {
                    if let Some(schema) = fields.get(word) {
                        self.schema_at(made, word, schema, depth)?;
                    }
                }
            }
        }
        if let Some(contains) = fields.get("contains") {
            let rendered = self.render(contains, depth + 1)?;
            self.put(made, "contains", rendered.schema)?;
            made.loosened |= rendered.loosened;
            let counts = ["minContains", "maxContains"].into_iter();
            for word in counts.filter(|word| *word == "minContains" || !rendered.loosened) {
                if let Some(count) = fields.get(word).and_then(whole) {
                    self.put(made, word, count.into())?;
                }
            }
        }
        if let Some(Value::Object(needs)) = fields.get("dependentRequired") {
            let needs: Map<_, _> = needs
                .iter()
                .take(64)
                .map(|(name, names)| (name.clone(), json!(self::names(names, 64))))
                .collect();
            self.budget.make(Value::Object(needs.clone()).to_string().len())?;
            self.put(made, "dependentRequired", Value::Object(needs))?;
        }
        Ok(())
    }

    /// What is between numbers, and what must be there.
    fn bounds(&mut self, made: &mut Made, fields: &'a Map<String, Value>) -> Result<(), Stop> {
        for (word, strict) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
            let bound = fields.get(word).filter(|bound| bound.is_number());
            match (bound, fields.get(strict)) {
                (Some(bound), Some(Value::Bool(true))) => self.put(made, strict, bound.clone())?,
                (bound, other) => {
                    if let Some(bound) = bound {
                        self.put(made, word, bound.clone())?;
                    }
                    if let Some(other) = other.filter(|other| other.is_number()) {
                        self.put(made, strict, other.clone())?;
                    }
                }
            }
        }
        let Some(required) = fields.get("required") else {
            return Ok(());
        };
        let properties = fields.get("properties").and_then(Value::as_object);
        let mut names = Vec::new();
        for name in self::names(required, MAX_NAMES) {
            self.budget.make(name.len() + 3)?;
            let schema = properties.and_then(|properties| properties.get(name));
            // A property that only answers have is not asked of a request.
            if name.len() > MAX_TEXT || schema.is_some_and(|schema| self.is_read_only(schema)) {
                made.loosened = true;
            } else {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        self.put(made, "required", json!(names))
    }
}

/// The words of a list, each once.
fn names(value: &Value, most: usize) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    let words = value
        .as_array()
        .into_iter()
        .flatten()
        .take(most)
        .filter_map(Value::as_str);
    words.filter(|word| seen.insert(*word)).collect()
}

fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number >= 0.0 && number.fract() == 0.0 && number < 1e15).then_some(number as u64)
    })
}

fn is_short_scalar(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= MAX_TEXT,
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    }
}
