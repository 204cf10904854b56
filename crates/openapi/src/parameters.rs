//! An operation's parameters, as arguments of its tool.

use crate::{
    Document,
    arguments::{Argument, Request, Shape},
    names,
    note::{Unfit, cut},
    operation::Operation,
    security::{Scheme, SchemeKind},
};
use domain::tool::{Place, QueryStyle, check_header};
use serde_json::Value;

/// The most parameters of one operation.
pub(crate) const MAX_PARAMETERS: usize = 200;
/// The longest name of a parameter, bytes.
const MAX_NAME: usize = 200;
/// Headers that say how the message is written: parameters of these names are ignored, the specification says.
const OF_THE_MESSAGE: [&str; 3] = ["accept", "content-type", "authorization"];
/// What the product sends by itself.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// One parameter, its reference followed.
#[derive(Debug)]
struct Parameter<'a> {
    name: &'a str,
    place: &'a str,
    required: bool,
    value: &'a Value,
}

impl<'a> Parameter<'a> {
    fn word(&self, field: &str) -> Option<&'a str> {
        self.value.get(field).and_then(Value::as_str)
    }

    fn schema(&self) -> Shape<'a> {
        self.value.get("schema").map_or(Shape::Anything, Shape::Schema)
    }

    fn argument(&self, name: String, shape: Shape<'a>, place: Option<Place>) -> Argument<'a> {
        Argument {
            name,
            shape,
            description: self.word("description"),
            required: self.required,
            place,
        }
    }

    /// It cannot be sent: the operation does without it, where it can.
    fn drop(&self, request: &mut Request<'a>, code: &'static str, text: &str) -> Result<(), Unfit> {
        let text = format!("the parameter '{}' {text}", cut(self.name, 60));
        if self.required {
            return Err(Unfit::new(code, text));
        }
        request.notes.add(code, format!("{text}; it is left out"));
        Ok(())
    }
}

/// Adds the parameters to what is asked of an agent.
///
/// # Errors
/// When one that is required cannot be sent.
pub(crate) fn add<'a>(
    document: &'a Document,
    operation: &Operation<'a>,
    security: &[Vec<Scheme>],
    request: &mut Request<'a>,
) -> Result<(), Unfit> {
    let parameters = gather(document, operation)?;
    let of = |place: &'static str| {
        parameters
            .iter()
            .filter(move |parameter| parameter.place == place)
    };
    request.path = path(document, operation.path, &of("path").collect::<Vec<_>>(), request)?;
    for parameter in of("query") {
        query(parameter, request)?;
    }
    for parameter in of("header") {
        header(document, parameter, security, request)?;
    }
    for parameter in of("cookie") {
        parameter.drop(request, "cookie_parameter", "is a cookie, and tools send none")?;
    }
    Ok(())
}

fn gather<'a>(document: &'a Document, operation: &Operation<'a>) -> Result<Vec<Parameter<'a>>, Unfit> {
    let mut parameters: Vec<Parameter<'a>> = Vec::new();
    // The operation's own come last and replace the path's.
    for holder in [operation.item, operation.value] {
        let list = holder.get("parameters").and_then(Value::as_array);
        for value in list.into_iter().flatten() {
            let value = document.references().resolve(value)?;
            let word = |field: &str| value.get(field).and_then(Value::as_str);
            let (Some(name), Some(place)) = (word("name"), word("in")) else {
                return Err(Unfit::new("parameter", "a parameter has no name or no place"));
            };
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(Unfit::new(
                    "parameter",
                    "a parameter's name has more than 200 bytes, or none",
                ));
            }
            let required = value.get("required") == Some(&Value::Bool(true));
            parameters.retain(|known| (known.name, known.place) != (name, place));
            parameters.push(Parameter {
                name,
                place,
                required,
                value,
            });
            if parameters.len() > MAX_PARAMETERS {
                let text = format!("the operation has more than {MAX_PARAMETERS} parameters");
                return Err(Unfit::new("too_many_parameters", text));
            }
        }
    }
    Ok(parameters)
}

/// The path with its placeholders, each under its argument's name.
fn path<'a>(
    document: &'a Document,
    path: &'a str,
    parameters: &[&Parameter<'a>],
    request: &mut Request<'a>,
) -> Result<String, Unfit> {
    let mut url = String::new();
    let mut given: Vec<(&str, String)> = Vec::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        let unpaired = || Unfit::new("path", "a brace in the path has no partner");
        let (name, after) = after.split_once('}').ok_or_else(unpaired)?;
        let known = given.iter().find(|(known, _)| *known == name);
        let argument = match known {
            Some((_, argument)) => argument.clone(),
            None => {
                let argument = request.names.take(&names::placeholder(name));
                let parameter = parameters.iter().find(|parameter| parameter.name == name);
                let asked = in_path(document, parameter.copied(), name, argument.clone(), request)?;
                request.arguments.push(asked);
                given.push((name, argument.clone()));
                argument
            }
        };
        if given.len() > MAX_PARAMETERS {
            return Err(Unfit::new("path", "the path has more than 200 placeholders"));
        }
        url.push_str(before);
        url.push('{');
        url.push_str(&argument);
        url.push('}');
        rest = after;
    }
    url.push_str(rest);
    Ok(url)
}

fn in_path<'a>(
    document: &'a Document,
    parameter: Option<&Parameter<'a>>,
    name: &str,
    argument: String,
    request: &mut Request<'a>,
) -> Result<Argument<'a>, Unfit> {
    let told = cut(name, 60);
    let Some(parameter) = parameter else {
        request.notes.add(
            "path_parameter",
            format!("'{told}' in the path is not described; it is taken for text"),
        );
        return Ok(Argument {
            name: argument,
            shape: Shape::Text,
            description: None,
            required: true,
            place: None,
        });
    };
    if parameter.word("style").is_some_and(|style| style != "simple") {
        let text = format!("'{told}' stands in the path in another style than 'simple'");
        return Err(Unfit::new("path_style", text));
    }
    let mut shape = parameter.schema();
    if parameter.value.get("content").is_some() || is_compound(document, shape) {
        let text =
            format!("'{told}' in the path is more than one value; it is taken for text, written with commas");
        request.notes.add("path_parameter", text);
        shape = Shape::Text;
    }
    Ok(Argument {
        required: true,
        ..parameter.argument(argument, shape, None)
    })
}

fn query<'a>(parameter: &Parameter<'a>, request: &mut Request<'a>) -> Result<(), Unfit> {
    let explode = parameter.value.get("explode").and_then(Value::as_bool);
    let (style, shape) = match (
        parameter.value.get("content"),
        parameter.word("style").unwrap_or("form"),
    ) {
        (Some(content), _) => match json_content(content) {
            Some(shape) => (QueryStyle::Json, shape),
            None => {
                return parameter.drop(
                    request,
                    "query_style",
                    "is written in a media type other than JSON",
                );
            }
        },
        (None, "form") if explode != Some(false) => (QueryStyle::Form, parameter.schema()),
        (None, "form") => (QueryStyle::Comma, parameter.schema()),
        (None, "spaceDelimited" | "pipeDelimited") if explode == Some(true) => {
            (QueryStyle::Form, parameter.schema())
        }
        (None, "spaceDelimited") => (QueryStyle::Space, parameter.schema()),
        (None, "pipeDelimited") => (QueryStyle::Pipe, parameter.schema()),
        (None, "deepObject") => (QueryStyle::DeepObject, parameter.schema()),
        (None, _) => {
            return parameter.drop(request, "query_style", "stands in the query in an unknown style");
        }
    };
    let name = request.free(&names::argument(parameter.name), "query");
    let renamed = name != parameter.name;
    let by_itself = !renamed && style == QueryStyle::Form && !request.method.has_body();
    let place = (!by_itself).then(|| Place::Query {
        name: renamed.then(|| parameter.name.to_owned()),
        style,
    });
    request.arguments.push(parameter.argument(name, shape, place));
    Ok(())
}

fn header<'a>(
    document: &'a Document,
    parameter: &Parameter<'a>,
    security: &[Vec<Scheme>],
    request: &mut Request<'a>,
) -> Result<(), Unfit> {
    let same = |name: &str| name.eq_ignore_ascii_case(parameter.name);
    let told = cut(parameter.name, 60);
    if OF_THE_MESSAGE.iter().any(|name| same(name)) || same(IDEMPOTENCY_KEY) {
        request.notes.add(
            "header_set",
            format!("the header '{told}' is set by itself and no argument"),
        );
        return Ok(());
    }
    let of_credentials = |scheme: &Scheme| matches!(&scheme.kind, SchemeKind::Header(name) if same(name));
    if security.iter().flatten().any(of_credentials) {
        request.notes.add(
            "header_set",
            format!("the header '{told}' comes with the credentials and is no argument"),
        );
        return Ok(());
    }
    if check_header("name", parameter.name, "x").is_err() {
        return parameter.drop(request, "header_parameter", "is a header that a tool cannot set");
    }
    if parameter.value.get("content").is_some() {
        return parameter.drop(request, "header_parameter", "is a header that is more than text");
    }
    let mut shape = parameter.schema();
    if is_compound(document, shape) {
        let text =
            format!("the header '{told}' is more than one value; it is taken for text, written with commas");
        request.notes.add("header_parameter", text);
        shape = Shape::Text;
    }
    let name = request.free(&names::argument(parameter.name), "header");
    let place = Place::Header {
        name: (name != parameter.name).then(|| parameter.name.to_owned()),
    };
    request
        .arguments
        .push(parameter.argument(name, shape, Some(place)));
    Ok(())
}

/// The schema of a parameter that is written as JSON.
fn json_content(content: &Value) -> Option<Shape<'_>> {
    let content = content.as_object()?;
    let (_, media) = content
        .iter()
        .take(8)
        .find(|(kind, _)| crate::body::is_json(kind))?;
    Some(media.get("schema").map_or(Shape::Anything, Shape::Schema))
}

/// Whether a list or an object may stand there.
fn is_compound(document: &Document, shape: Shape<'_>) -> bool {
    let Shape::Schema(schema) = shape else {
        return false;
    };
    let Ok(schema) = document.references().resolve(schema) else {
        return false;
    };
    match schema.get("type") {
        Some(Value::String(kind)) => matches!(kind.as_str(), "array" | "object"),
        Some(Value::Array(kinds)) => kinds.contains(&"array".into()) || kinds.contains(&"object".into()),
        _ => schema.get("properties").is_some() || schema.get("items").is_some(),
    }
}
