//! Input schemas of tools: compiled once, used for every call.

mod bounds;

use crate::error::{Error, Result};
use domain::{Invalid, JsonObject, ToolId, tool::Tool};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use std::sync::Arc;

/// How many problems of one set of arguments are told.
const MAX_TOLD: usize = 5;
/// How many compiled schemas are kept; patterns, which take the most memory, count too.
const MAX_KEPT: u64 = 2000;
/// As how many schemas a pattern counts.
const PATTERN_WEIGHT: u32 = 8;

/// Compiled schemas by tool and version.
pub struct Schemas(moka::sync::Cache<(ToolId, i64), Arc<Compiled>>);

struct Compiled {
    validator: Validator,
    patterns: u32,
}

impl Default for Schemas {
    fn default() -> Self {
        let kept = moka::sync::Cache::builder()
            .max_capacity(MAX_KEPT)
            .weigher(|_, compiled: &Arc<Compiled>| 1 + PATTERN_WEIGHT * compiled.patterns);
        Self(kept.build())
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
        let compiled = self
            .0
            .try_get_with((tool.id, tool.version), || {
                compile(&tool.spec.input_schema).map(Arc::new)
            })
            .map_err(|e| Error::Internal(anyhow::anyhow!("schema of {}: {e}", tool.spec.name)))?;
        let arguments = Value::Object(arguments.clone());
        let told: Vec<String> = compiled
            .validator
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

fn compile(schema: &JsonObject) -> std::result::Result<Compiled, Invalid> {
    let schema = Value::Object(schema.clone());
    let patterns = bounds::check(&schema).map_err(|expected| Invalid::new("input_schema", expected))?;
    let limit = bounds::MAX_PATTERN_BYTES;
    let validator = jsonschema::options()
        .with_pattern_options(
            PatternOptions::fancy_regex()
                .size_limit(limit)
                .dfa_size_limit(limit),
        )
        .build(&schema)
        .map_err(|e| {
            Invalid::new(
                "input_schema",
                format!("a JSON Schema that compiles ({})", e.masked()),
            )
        })?;
    Ok(Compiled { validator, patterns })
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
        let huge = json!({"type": "object", "properties": {"a": {"pattern": "\\p{L}{1000}"}}});
        assert!(schemas.check(&object(huge)).is_err());
    }
}
