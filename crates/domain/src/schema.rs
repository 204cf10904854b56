//! JSON Schemas of the product's own tools, made from the types that read their arguments. Every listing of tools pays
//! for each byte of them.

use crate::JsonObject;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

/// The schema of what is read as `T`: JSON Schema 2020-12 without references, which not every client follows.
pub fn of<T: JsonSchema>() -> JsonObject {
    made::<T>(SchemaSettings::draft2020_12())
}

/// The schema of what `T` is written as.
pub fn of_output<T: JsonSchema>() -> JsonObject {
    made::<T>(SchemaSettings::draft2020_12().for_serialize())
}

fn made<T: JsonSchema>(settings: SchemaSettings) -> JsonObject {
    let generator = settings.with(|s| s.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.remove("title");
    schema.remove("$schema");
    // The tool describes itself.
    schema.remove("description");
    let object = schema.ensure_object();
    object.values_mut().for_each(tidy);
    object.clone()
}

/// Takes out what tells an agent nothing: Rust's number formats and empty defaults.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, value| match key.as_str() {
                "default" => {
                    !matches!(value, Value::Null | Value::Bool(false))
                        && *value != json!({})
                        && *value != json!([])
                }
                "format" => !value
                    .as_str()
                    .is_some_and(|format| ["int", "uint", "double"].iter().any(|f| format.starts_with(f))),
                _ => true,
            });
            object.values_mut().for_each(tidy);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}
