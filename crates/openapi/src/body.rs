//! An operation's request body, as arguments of its tool.

use crate::{
    Document,
    arguments::{Argument, Request, Shape},
    names,
    note::Unfit,
    operation::Operation,
    parameters::MAX_PARAMETERS,
    reference::References,
};
use domain::tool::{BodyFormat, Method, Place};
use serde_json::{Map, Value};

/// The most media types that are looked at.
const MAX_MEDIA_TYPES: usize = 16;
/// The most parts of such a body, and the most alternatives of one of them.
const MAX_PARTS: usize = 64;
/// The most properties of one part that are looked at.
const MAX_PROPERTIES: usize = 1000;
/// How deep `allOf` may be nested in a body whose properties become arguments.
const MAX_NESTING: usize = 4;
/// Keywords about an object as a whole, which cannot be said of arguments.
const ABOUT_THE_WHOLE: [&str; 9] = [
    "not",
    "if",
    "dependentRequired",
    "dependentSchemas",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "unevaluatedProperties",
];

/// Whether a media type is written as JSON.
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// Whether a property stands in answers only.
pub(crate) fn is_read_only(references: References<'_>, schema: &Value) -> bool {
    let says = |schema: &Value| schema.get("readOnly") == Some(&Value::Bool(true));
    says(schema) || references.resolve(schema).is_ok_and(says)
}

fn essence(media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Adds the body to what is asked of an agent.
///
/// # Errors
/// When one that is required cannot be sent.
pub(crate) fn add<'a>(
    document: &'a Document,
    operation: &Operation<'a>,
    request: &mut Request<'a>,
) -> Result<(), Unfit> {
    let Some(body) = operation.value.get("requestBody") else {
        return Ok(());
    };
    let body = document.references().resolve(body)?;
    let required = body.get("required") == Some(&Value::Bool(true));
    let Some((media_type, media)) = choose(body) else {
        if required {
            let text =
                "the body is written in none of application/json, …+json, application/x-www-form-urlencoded";
            return Err(Unfit::new("media_type", text));
        }
        request.notes.add(
            "media_type",
            "the body is not written as JSON or a form, and is left out",
        );
        return Ok(());
    };
    let schema = media.get("schema");
    let flat = schema.and_then(|schema| flatten(document, schema));
    if flat
        .as_ref()
        .is_some_and(|flat| flat.properties.is_empty() && flat.open.is_none())
        && !required
    {
        return Ok(());
    }
    if matches!(request.method, Method::Get | Method::Head) {
        if required {
            return Err(Unfit::new(
                "body_on_get",
                "the operation reads and wants a body all the same",
            ));
        }
        request.notes.add(
            "body_on_get",
            "an operation that reads takes no body; it is left out",
        );
        return Ok(());
    }
    write_as(media_type, request);
    match flat {
        Some(flat) if flat.fits(request) => flat.add(required, request),
        _ => whole(schema, body, required, request),
    }
    Ok(())
}

/// The media type that a tool writes best.
fn choose(body: &Value) -> Option<(&str, &Value)> {
    let content = body.get("content")?.as_object()?;
    let rank = |media_type: &str| match essence(media_type).as_str() {
        "application/json" => Some(0),
        "*/*" | "application/*" => Some(1),
        "application/merge-patch+json" => Some(2),
        "application/x-www-form-urlencoded" => Some(5),
        "application/json-patch+json" => Some(4),
        other => is_json(other).then_some(3),
    };
    let known = content.iter().take(MAX_MEDIA_TYPES);
    let known = known.filter_map(|(media_type, media)| Some((rank(media_type)?, media_type, media)));
    known
        .min_by_key(|(rank, ..)| *rank)
        .map(|(_, media_type, media)| (media_type.as_str(), media))
}

fn write_as(media_type: &str, request: &mut Request<'_>) {
    let essence = essence(media_type);
    if essence == "application/x-www-form-urlencoded" {
        request.format = BodyFormat::Form;
    } else if essence != "application/json" && is_json(&essence) {
        request.content_type = Some(essence);
    }
}

/// The body as one argument.
fn whole<'a>(schema: Option<&'a Value>, body: &'a Value, required: bool, request: &mut Request<'a>) {
    let name = request.free("body", "whole");
    request.arguments.push(Argument {
        name,
        shape: schema.map_or(Shape::Anything, Shape::Schema),
        description: body.get("description").and_then(Value::as_str),
        required,
        place: Some(Place::WholeBody),
    });
}

/// A body's properties, gathered from all parts of its schema.
#[derive(Debug, Default)]
struct Flat<'a> {
    properties: Vec<(&'a str, &'a Value)>,
    required: Vec<&'a str>,
    /// What properties that are not named may be, where it says that there may be some.
    open: Option<&'a Value>,
    /// Some rules are about the whole.
    rules: bool,
    /// The objects that it is made of: itself, and those of its `allOf`.
    parts: Vec<&'a Map<String, Value>>,
}

impl<'a> Flat<'a> {
    /// Whether every property can be an argument beside those that are there.
    fn fits(&self, request: &Request<'a>) -> bool {
        let mut taken = std::collections::HashSet::new();
        let free = |(name, _): &(&str, &Value)| {
            let argument = names::argument(name);
            !request.names.holds(&argument) && taken.insert(argument)
        };
        !self.properties.is_empty()
            && self.properties.len() + request.arguments.len() <= MAX_PARAMETERS
            && self.properties.iter().all(free)
    }

    fn add(self, required: bool, request: &mut Request<'a>) {
        for (property, schema) in self.properties {
            let name = request.names.take(&names::argument(property));
            let renamed = (name != property).then(|| property.to_owned());
            let by_itself = renamed.is_none() && request.method.has_body();
            request.arguments.push(Argument {
                name,
                shape: Shape::Schema(schema),
                description: None,
                required: required && self.required.contains(&property),
                place: (!by_itself).then_some(Place::Body { name: renamed }),
            });
        }
        request.open = self.open.filter(|_| request.method.has_body());
        if self.rules {
            request.notes.add(
                "body_rules",
                "rules about the body as a whole are not held to before the call",
            );
        }
    }
}

/// The properties of an object; `None` when they are not all there is to it.
fn flatten<'a>(document: &'a Document, schema: &'a Value) -> Option<Flat<'a>> {
    let mut flat = Flat::default();
    gather(document, schema, &mut flat, 0)?;
    if flat.rules && flat.properties.is_empty() {
        return None;
    }
    // Alternatives that bring properties of their own are no list of arguments.
    let plain = flat
        .parts
        .iter()
        .all(|part| alternatives_are_rules(document, part, &flat));
    plain.then_some(flat)
}

fn gather<'a>(document: &'a Document, schema: &'a Value, flat: &mut Flat<'a>, nesting: usize) -> Option<()> {
    let fields = document.references().resolve(schema).ok()?.as_object()?;
    let is_object = match fields.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.contains(&"object".into()),
        _ => ["properties", "allOf"]
            .iter()
            .any(|word| fields.contains_key(*word)),
    };
    let required_only = nesting > 0 && fields.contains_key("required");
    if nesting > MAX_NESTING || flat.parts.len() >= MAX_PARTS || !(is_object || required_only) {
        return None;
    }
    flat.parts.push(fields);
    let properties = fields.get("properties").and_then(Value::as_object);
    if properties.is_some_and(|properties| properties.len() > MAX_PROPERTIES) {
        return None;
    }
    for (name, schema) in properties.into_iter().flatten() {
        if is_read_only(document.references(), schema) {
            continue;
        }
        if flat.properties.len() >= MAX_PARAMETERS || flat.properties.iter().any(|(known, _)| known == name) {
            return None;
        }
        flat.properties.push((name, schema));
    }
    let required = fields.get("required").and_then(Value::as_array);
    let required = required.into_iter().flatten().take(MAX_PARAMETERS);
    flat.required.extend(required.filter_map(Value::as_str));
    match fields.get("additionalProperties") {
        None | Some(Value::Bool(false)) => {}
        Some(open) => flat.open = Some(open),
    }
    flat.rules |= ["anyOf", "oneOf"]
        .iter()
        .chain(&ABOUT_THE_WHOLE)
        .any(|word| fields.contains_key(*word));
    let parts = fields.get("allOf").and_then(Value::as_array);
    let mut parts = parts.into_iter().flatten();
    parts.try_for_each(|part| gather(document, part, flat, nesting + 1))
}

/// Whether the `anyOf` and `oneOf` of a part only say which of the properties go together.
fn alternatives_are_rules<'a>(document: &'a Document, part: &'a Map<String, Value>, flat: &Flat<'a>) -> bool {
    let known = |alternative: &Value| {
        let Some(Value::Object(fields)) = document.references().resolve(alternative).ok() else {
            return false;
        };
        let plain =
            |word: &String| matches!(word.as_str(), "required" | "properties" | "type" | "description");
        let of_these = |name: &String| flat.properties.iter().any(|(known, _)| known == name);
        let properties = fields.get("properties").and_then(Value::as_object);
        fields.len() <= 4
            && fields.keys().all(plain)
            && properties.is_none_or(|all| all.len() <= MAX_PARAMETERS && all.keys().all(of_these))
    };
    ["anyOf", "oneOf"].into_iter().all(|word| {
        let list = part.get(word).and_then(Value::as_array);
        list.is_none_or(|list| list.len() <= MAX_PARTS && list.iter().all(known))
    })
}
