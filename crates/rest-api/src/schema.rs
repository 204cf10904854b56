//! Input schemas of tools: compiled once, used for every call.

use crate::error::{Error, Result};
use domain::{Invalid, JsonObject, ToolId, tool::Tool};
use jsonschema::Validator;
use serde_json::Value;
use std::sync::Arc;

/// How many problems of one set of arguments are told.
const MAX_TOLD: usize = 5;
/// How many compiled schemas are kept.
const MAX_KEPT: u64 = 2000;

/// Compiled schemas by tool and version.
pub struct Schemas(moka::sync::Cache<(ToolId, i64), Arc<Validator>>);

impl Default for Schemas {
    fn default() -> Self {
        Self(moka::sync::Cache::new(MAX_KEPT))
    }
}

impl Schemas {
    /// Whether a schema compiles. References to other documents are refused: nothing is ever fetched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, schema: &JsonObject) -> std::result::Result<(), Invalid> {
        compile(schema).map(|_| ())
    }

    /// Holds arguments to the tool's schema.
    ///
    /// # Errors
    /// The first few places that do not fit, without the values that stand there.
    pub fn validate(&self, tool: &Tool, arguments: &JsonObject) -> Result<()> {
        let validator = self
            .0
            .try_get_with((tool.id, tool.version), || {
                compile(&tool.spec.input_schema).map(Arc::new)
            })
            .map_err(|e| Error::Internal(anyhow::anyhow!("schema of {}: {e}", tool.spec.name)))?;
        let arguments = Value::Object(arguments.clone());
        let told: Vec<String> = validator
            .iter_errors(&arguments)
            .take(MAX_TOLD)
            .map(|e| tell(&e))
            .collect();
        if told.is_empty() {
            Ok(())
        } else {
            Err(Error::Arguments(told.join("; ")))
        }
    }
}

fn compile(schema: &JsonObject) -> std::result::Result<Validator, Invalid> {
    jsonschema::options()
        .build(&Value::Object(schema.clone()))
        .map_err(|e| {
            Invalid::new(
                "input_schema",
                format!("a JSON Schema that compiles ({})", e.masked()),
            )
        })
}

fn tell(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "/" } else { &place };
    format!("{place}: {}", error.masked())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> JsonObject {
        let Value::Object(object) = value else {
            unreachable!()
        };
        object
    }

    #[test]
    fn schemas_that_do_not_compile_or_point_elsewhere_are_refused() {
        let schemas = Schemas::default();
        assert!(schemas.check(&object(json!({"type": "object"}))).is_ok());
        assert!(schemas.check(&object(json!({"type": "objekt"}))).is_err());
        assert!(
            schemas
                .check(&object(json!({"$ref": "http://169.254.169.254/x"})))
                .is_err()
        );
        assert!(
            schemas
                .check(&object(json!({"$ref": "file:///etc/passwd"})))
                .is_err()
        );
    }
}
