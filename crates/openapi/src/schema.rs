//! From a document's schemas to one of JSON Schema 2020-12 that stands for itself: references put in where they stand,
//! circles cut, what constrains nothing dropped, and all of it made smaller until it fits. Whatever is lost makes the
//! schema accept more, never less: the endpoint has the last word anyway.

mod keywords;
mod measure;

pub(crate) use measure::fits;

use crate::{
    Dialect,
    note::{Notes, Unfit, cut, head},
    reference::{self, References},
};
use measure::Budget;
use serde_json::{Map, Value, json};

/// How many references may be open at once.
const MAX_OPEN: usize = 64;
/// What holds further schemas.
const NESTING: [&str; 11] = [
    "properties",
    "items",
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "prefixItems",
    "patternProperties",
    "if",
    "contains",
];

/// How much of a schema is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail {
    /// Schemas within schemas.
    pub(crate) depth: usize,
    /// How often a schema may stand within itself.
    pub(crate) unroll: usize,
    /// Characters of a description.
    pub(crate) description: usize,
    /// Values of an `enum`.
    pub(crate) choices: usize,
    /// Whether patterns are told.
    pub(crate) patterns: bool,
}

/// From everything to next to nothing; the first that fits is taken.
pub(crate) const DETAILS: [Detail; 15] = [
    Detail {
        depth: 40,
        unroll: 2,
        description: 1000,
        choices: 1000,
        patterns: true,
    },
    Detail {
        depth: 40,
        unroll: 1,
        description: 300,
        choices: 300,
        patterns: true,
    },
    Detail {
        depth: 40,
        unroll: 1,
        description: 120,
        choices: 100,
        patterns: true,
    },
    shallow(14, 120),
    shallow(11, 120),
    shallow(9, 120),
    shallow(8, 120),
    shallow(7, 120),
    shallow(6, 120),
    shallow(5, 120),
    shallow(4, 120),
    shallow(3, 120),
    shallow(2, 120),
    shallow(1, 60),
    Detail {
        depth: 0,
        unroll: 1,
        description: 0,
        choices: 0,
        patterns: false,
    },
];

const fn shallow(depth: usize, description: usize) -> Detail {
    Detail {
        depth,
        unroll: 1,
        description,
        choices: 50,
        patterns: true,
    }
}

/// Why a schema was not rendered.
#[derive(Debug)]
pub(crate) enum Stop {
    /// With less detail it may be.
    TooLarge,
    /// Never.
    Unfit(Unfit),
}

impl From<Unfit> for Stop {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// A schema, and whether it accepts more than the one it was made from.
#[derive(Debug)]
struct Rendered {
    schema: Value,
    loosened: bool,
}

/// One attempt at rendering what belongs to one tool.
pub(crate) struct Renderer<'a> {
    references: References<'a>,
    dialect: Dialect,
    detail: Detail,
    budget: Budget,
    patterns: usize,
    /// The references that led to where we are.
    open: Vec<&'a str>,
    /// What was lost.
    pub(crate) notes: Notes,
}

impl<'a> Renderer<'a> {
    pub(crate) fn new(references: References<'a>, dialect: Dialect, detail: Detail) -> Self {
        Self {
            references,
            dialect,
            detail,
            budget: Budget::default(),
            patterns: 0,
            open: Vec::new(),
            notes: Notes::default(),
        }
    }

    /// An argument's schema. `description` is what stands beside it.
    ///
    /// # Errors
    /// When it is too large in this detail, or cannot be at all.
    pub(crate) fn argument(&mut self, schema: &'a Value, description: Option<&str>) -> Result<Value, Stop> {
        let schema = match self.render(schema, 0)?.schema {
            Value::Bool(false) => json!({"not": {}}),
            schema => schema,
        };
        self.plain(schema, description)
    }

    /// A schema that is ready, with a description.
    ///
    /// # Errors
    /// When that is too large.
    pub(crate) fn plain(&mut self, schema: Value, description: Option<&str>) -> Result<Value, Stop> {
        let mut schema = json_object(schema);
        if let Some(text) = description.and_then(|text| self.describe(text)) {
            self.budget.make(text.len() + 20)?;
            schema.insert("description".into(), text.into());
        }
        Ok(Value::Object(schema))
    }

    fn render(&mut self, schema: &'a Value, depth: usize) -> Result<Rendered, Stop> {
        self.budget.make(8)?;
        let fields = match schema {
            Value::Object(fields) => fields,
            Value::Bool(all) => return Ok(exact(Value::Bool(*all))),
            _ => return Ok(loose(Value::Bool(true))),
        };
        if let Some(place) = reference::of(schema) {
            return self.referred(place, fields, depth);
        }
        if depth >= self.detail.depth && NESTING.iter().any(|word| fields.contains_key(*word)) {
            let text = format!(
                "what is nested more than {} schemas deep is not described",
                self.detail.depth
            );
            self.notes.add("nested_parts_open", text);
            return self.open_end(schema);
        }
        let rendered = self.fields(fields, depth)?;
        Ok(self.nullable(fields, rendered))
    }

    /// What a reference names, with what stands beside it.
    fn referred(
        &mut self,
        place: &'a str,
        fields: &'a Map<String, Value>,
        depth: usize,
    ) -> Result<Rendered, Stop> {
        let target = self.references.target(place)?;
        let within_itself = self.open.iter().filter(|open| **open == place).count();
        if within_itself >= self.detail.unroll || self.open.len() >= MAX_OPEN {
            let name = cut(place.rsplit('/').next().unwrap_or(place), 80);
            let text = format!("'{name}' holds itself; from some depth on it is not described");
            self.notes.add("recursion_open", text);
            return self.open_end(target);
        }
        self.open.push(place);
        let rendered = self.render(target, depth);
        self.open.pop();
        let rendered = rendered?;
        if self.dialect == Dialect::V30 || fields.len() == 1 {
            return Ok(rendered);
        }
        let beside = self.fields(fields, depth)?;
        Ok(both(rendered, beside))
    }

    /// A schema of which only the type is told.
    fn open_end(&mut self, schema: &'a Value) -> Result<Rendered, Stop> {
        let mut told = Map::new();
        let Ok(schema) = self.references.resolve(schema) else {
            return Ok(loose(Value::Bool(true)));
        };
        let Value::Object(fields) = schema else {
            return Ok(loose(Value::Bool(true)));
        };
        let kind = keywords::kind(fields.get("type")).or_else(|| {
            let implied = if fields.contains_key("properties") {
                "object"
            } else {
                "array"
            };
            let holds = fields.contains_key("properties") || fields.contains_key("items");
            holds.then(|| implied.into())
        });
        if let Some(kind) = kind {
            self.budget.make(20)?;
            told.insert("type".into(), kind);
        }
        let description = fields.get("description").and_then(Value::as_str);
        if let Some(text) = description.and_then(|text| self.describe(text)) {
            self.budget.make(text.len() + 20)?;
            told.insert("description".into(), text.into());
        }
        let told = self.nullable(fields, exact(Value::Object(told)));
        Ok(loose(told.schema))
    }

    /// OpenAPI 3.0 says beside a schema that `null` is allowed, too.
    fn nullable(&self, fields: &Map<String, Value>, rendered: Rendered) -> Rendered {
        if self.dialect != Dialect::V30 || fields.get("nullable") != Some(&Value::Bool(true)) {
            return rendered;
        }
        let Value::Object(mut schema) = rendered.schema else {
            return rendered;
        };
        let combined = ["allOf", "anyOf", "oneOf", "not", "const"]
            .iter()
            .any(|word| schema.contains_key(*word));
        if combined {
            let description = schema.remove("description");
            let mut either = json_object(json!({"anyOf": [schema, {"type": "null"}]}));
            either.extend(description.map(|text| ("description".into(), text)));
            return Rendered {
                schema: Value::Object(either),
                ..rendered
            };
        }
        match schema.get_mut("type") {
            Some(Value::Array(kinds)) if !kinds.contains(&"null".into()) => kinds.push("null".into()),
            Some(kind) if kind.is_string() && *kind != "null" => *kind = json!([kind, "null"]),
            _ => {}
        }
        if let Some(Value::Array(choices)) = schema.get_mut("enum")
            && !choices.contains(&Value::Null)
        {
            choices.push(Value::Null);
        }
        Rendered {
            schema: Value::Object(schema),
            ..rendered
        }
    }

    fn describe(&mut self, text: &str) -> Option<String> {
        let text = head(text).trim();
        if text.is_empty() {
            return None;
        }
        let told = cut(text, self.detail.description);
        if told.len() < text.len() {
            self.notes
                .add("descriptions_cut", "descriptions of arguments are cut");
        }
        (self.detail.description > 0).then_some(told)
    }
}

/// Both schemas hold; a description of the second comes first.
fn both(first: Rendered, second: Rendered) -> Rendered {
    let loosened = first.loosened || second.loosened;
    let (Value::Object(mut first), Value::Object(mut second)) = (first.schema, second.schema) else {
        return loose(Value::Bool(true));
    };
    let annotations = ["description", "default"];
    for word in annotations {
        if let Some(text) = second.remove(word) {
            first.insert(word.into(), text);
        }
    }
    if second.is_empty() {
        return Rendered {
            schema: Value::Object(first),
            loosened,
        };
    }
    let beside: Vec<(&str, Option<Value>)> = annotations.map(|word| (word, first.remove(word))).into();
    let mut schema = json_object(json!({"allOf": [first, second]}));
    for (word, value) in beside {
        schema.extend(value.map(|value| (word.to_owned(), value)));
    }
    Rendered {
        schema: Value::Object(schema),
        loosened,
    }
}

fn exact(schema: Value) -> Rendered {
    Rendered {
        schema,
        loosened: false,
    }
}

fn loose(schema: Value) -> Rendered {
    Rendered {
        schema,
        loosened: true,
    }
}

fn json_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
