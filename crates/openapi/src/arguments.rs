//! What a tool asks of an agent, and the schema that says so.

use crate::{
    Document, SchemaCheck,
    names::Names,
    note::{Notes, Unfit},
    schema::{DETAILS, Detail, Renderer, Stop, fits},
};
use domain::{
    JsonObject,
    tool::{BodyFormat, Method, Place},
};
use serde_json::{Map, Value, json};

/// What an argument may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape<'a> {
    /// What this says.
    Schema(&'a Value),
    /// Text that is not empty.
    Text,
    /// Not said.
    Anything,
}

/// One argument.
#[derive(Debug)]
pub(crate) struct Argument<'a> {
    pub(crate) name: String,
    pub(crate) shape: Shape<'a>,
    pub(crate) description: Option<&'a str>,
    pub(crate) required: bool,
    /// `None`: where the method puts it.
    pub(crate) place: Option<Place>,
}

/// How an operation is called.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) arguments: Vec<Argument<'a>>,
    pub(crate) names: Names,
    pub(crate) format: BodyFormat,
    pub(crate) content_type: Option<String>,
    /// What further properties of the body may be, where there may be some.
    pub(crate) open: Option<&'a Value>,
    pub(crate) notes: Notes,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method) -> Self {
        Self {
            method,
            path: String::new(),
            arguments: Vec::new(),
            names: Names::default(),
            format: BodyFormat::Json,
            content_type: None,
            open: None,
            notes: Notes::default(),
        }
    }

    /// A name for an argument; where it is taken, the place says which is which.
    pub(crate) fn free(&mut self, name: &str, place: &str) -> String {
        if self.names.holds(name) {
            self.names
                .take(&crate::names::argument(&format!("{place}_{name}")))
        } else {
            self.names.take(name)
        }
    }

    /// The schema of the arguments, in the most detail that fits and that `check` lets pass.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn schema(
        &mut self,
        document: &'a Document,
        check: SchemaCheck<'_>,
    ) -> Result<JsonObject, Unfit> {
        let Some((at, schema, notes)) = self.most_detail(document)? else {
            let text = "its arguments are too many to be described";
            return Err(Unfit::new("schema_too_large", text));
        };
        let Err(mut refused) = check(&schema) else {
            return Ok(self.keep(schema, notes));
        };
        // Where a schema is refused, most often it is a pattern that does not compile.
        for detail in &DETAILS[at..] {
            let plain = Detail {
                patterns: false,
                ..*detail
            };
            let Some((schema, notes)) = self.attempt(document, plain)? else {
                continue;
            };
            match check(&schema) {
                Ok(()) => return Ok(self.keep(schema, notes)),
                Err(why) => refused = why,
            }
        }
        let text = format!("its arguments' schema was refused: {}", refused.expected);
        Err(Unfit::new("schema_refused", text))
    }

    /// The schema in the most detail that fits, and which of the [`DETAILS`] that is.
    fn most_detail(&self, document: &'a Document) -> Result<Option<(usize, JsonObject, Notes)>, Unfit> {
        // Most fit as they are. Among the others, less detail is smaller.
        let mut best = self
            .attempt(document, DETAILS[0])?
            .map(|(schema, notes)| (0, schema, notes));
        let (mut low, mut high) = (1, DETAILS.len());
        while best.as_ref().is_none_or(|(at, ..)| *at > 0) && low < high {
            let middle = low.midpoint(high);
            match self.attempt(document, DETAILS[middle])? {
                Some((schema, notes)) => {
                    best = Some((middle, schema, notes));
                    high = middle;
                }
                None => low = middle + 1,
            }
        }
        Ok(best)
    }

    fn keep(&mut self, schema: JsonObject, notes: Notes) -> JsonObject {
        for note in notes.into_vec() {
            self.notes.add(note.code, note.text);
        }
        schema
    }

    /// The schema in this detail; `None` when it is too large.
    fn attempt(&self, document: &'a Document, detail: Detail) -> Result<Option<(JsonObject, Notes)>, Unfit> {
        let mut renderer = Renderer::new(document.references(), document.dialect, detail);
        match self.render(&mut renderer) {
            Ok(schema) => {
                let schema = Value::Object(schema);
                let fits = fits(&schema);
                let Value::Object(schema) = schema else {
                    return Ok(None);
                };
                Ok(fits.then_some((schema, renderer.notes)))
            }
            Err(Stop::TooLarge) => Ok(None),
            Err(Stop::Unfit(unfit)) => Err(unfit),
        }
    }

    fn render(&self, renderer: &mut Renderer<'a>) -> Result<JsonObject, Stop> {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for argument in &self.arguments {
            let schema = match argument.shape {
                Shape::Schema(schema) => renderer.argument(schema, argument.description)?,
                Shape::Text => {
                    renderer.plain(json!({"type": "string", "minLength": 1}), argument.description)?
                }
                Shape::Anything => renderer.plain(json!({}), argument.description)?,
            };
            properties.insert(argument.name.clone(), schema);
            if argument.required {
                required.push(argument.name.as_str());
            }
        }
        let further = match self.open {
            Some(open) => renderer.argument(open, None)?,
            None => Value::Bool(false),
        };
        let mut schema = JsonObject::from_iter([
            ("type".to_owned(), "object".into()),
            ("properties".to_owned(), Value::Object(properties)),
            ("additionalProperties".to_owned(), further),
        ]);
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        Ok(schema)
    }
}
