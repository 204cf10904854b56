//! Input schemas of tools, and those of keys' rules: compiled once, used for every call.

mod bounds;

use crate::error::{Error, Result};
use domain::{ApiKeyId, Invalid, JsonObject, Principal, ToolId, ToolRules, tool::Tool};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use std::sync::Arc;

/// How many problems of one set of arguments are told.
const MAX_TOLD: usize = 5;
/// How many compiled schemas are kept; patterns, which take the most memory, count too.
const MAX_KEPT: u64 = 2000;
/// As how many schemas a pattern counts.
const PATTERN_WEIGHT: u32 = 8;

/// Compiled schemas.
pub struct Schemas(moka::sync::Cache<Of, Arc<Compiled>>);

/// Whose schema it is. Neither ever changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Tool(ToolId, i64),
    /// A key's rule, by its place.
    Rule(ApiKeyId, usize),
}

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
        compile("input_schema", schema).map(|_| ())
    }

    /// Whether every rule's schema compiles.
    ///
    /// # Errors
    /// What is wrong with the first one that does not.
    pub fn check_rules(&self, rules: &ToolRules) -> std::result::Result<(), Invalid> {
        for (i, rule) in rules.rules().unwrap_or_default().iter().enumerate() {
            if let Some(schema) = &rule.arguments {
                compile(&format!("tools[{i}].arguments"), schema)?;
            }
        }
        Ok(())
    }

    /// Holds arguments to the caller's rules. One that names the tool must allow them.
    ///
    /// # Errors
    /// [`Error::NotFound`] when none names the tool: it is not there for this caller.
    /// [`Error::ArgumentsNotAllowed`] with the places that do not fit the first one that does.
    pub fn permit(&self, caller: &Principal, tool: &str, arguments: &JsonObject) -> Result<()> {
        let Some(rules) = caller.tools.rules() else {
            return Ok(());
        };
        let mut refused = None;
        let mut value = None;
        for (i, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.names(tool)) {
            let Some(schema) = &rule.arguments else {
                return Ok(());
            };
            let compiled = self.compiled(Of::Rule(caller.key_id, i), schema)?;
            let value = value.get_or_insert_with(|| Value::Object(arguments.clone()));
            let told = compiled.problems(value);
            if told.is_empty() {
                return Ok(());
            }
            refused.get_or_insert(told);
        }
        Err(match refused {
            Some(told) => Error::ArgumentsNotAllowed(told),
            None => Error::NotFound("tool"),
        })
    }

    /// Holds arguments to the tool's schema.
    ///
    /// # Errors
    /// The first few places that do not fit, without the values that stand there.
    pub fn validate(&self, tool: &Tool, arguments: &JsonObject) -> Result<()> {
        let compiled = self.compiled(Of::Tool(tool.id, tool.version), &tool.spec.input_schema)?;
        let told = compiled.problems(&Value::Object(arguments.clone()));
        if told.is_empty() {
            Ok(())
        } else {
            Err(Error::Arguments(told))
        }
    }

    fn compiled(&self, of: Of, schema: &JsonObject) -> Result<Arc<Compiled>> {
        self.0
            .try_get_with(of, || compile("schema", schema).map(Arc::new))
            .map_err(|e| Error::Internal(anyhow::anyhow!("a stored {e}")))
    }
}

impl Compiled {
    /// The first few places that do not fit, without the values that stand there; empty when all do.
    fn problems(&self, arguments: &Value) -> String {
        let told: Vec<_> = self
            .validator
            .iter_errors(arguments)
            .take(MAX_TOLD)
            .map(|e| tell(&e))
            .collect();
        told.join("; ")
    }
}

fn compile(field: &str, schema: &JsonObject) -> std::result::Result<Compiled, Invalid> {
    let schema = Value::Object(schema.clone());
    let patterns = bounds::check(&schema).map_err(|expected| Invalid::new(field, expected))?;
    let limit = bounds::MAX_PATTERN_BYTES;
    let validator = jsonschema::options()
        .with_pattern_options(
            PatternOptions::fancy_regex()
                .size_limit(limit)
                .dfa_size_limit(limit),
        )
        .build(&schema)
        .map_err(|e| Invalid::new(field, format!("a JSON Schema that compiles ({})", e.masked())))?;
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

    fn caller(rules: &[(&str, Option<Value>)]) -> Principal {
        let rule = |(tools, schema): &(&str, Option<Value>)| domain::ToolRule {
            tools: (*tools).to_owned(),
            arguments: schema.clone().map(object),
        };
        Principal {
            tenant_id: domain::TenantId::new(),
            tenant: "t".into(),
            key_id: ApiKeyId::new(),
            key_name: "k".into(),
            scopes: domain::Scopes::all(),
            tools: ToolRules::limited(rules.iter().map(rule).collect()).unwrap(),
        }
    }

    #[test]
    fn one_rule_that_names_the_tool_must_allow_the_arguments() {
        let schemas = Schemas::default();
        let team = |name: &str| json!({"properties": {"team": {"const": name}}, "required": ["team"]});
        let caller = caller(&[
            ("deploy_*", Some(team("red"))),
            ("deploy_web", Some(team("blue"))),
            ("read_*", None),
        ]);
        let permit = |tool, arguments| schemas.permit(&caller, tool, &object(arguments));
        assert!(permit("read_pods", json!({"any": 1})).is_ok());
        assert!(permit("deploy_web", json!({"team": "blue"})).is_ok());
        assert!(permit("deploy_db", json!({"team": "red"})).is_ok());
        let Err(Error::ArgumentsNotAllowed(told)) = permit("deploy_db", json!({"team": "s3cret"})) else {
            panic!("blue is not red");
        };
        assert!(told.contains("/team") && !told.contains("s3cret"), "{told}");
        assert!(matches!(
            permit("drop_db", json!({})),
            Err(Error::NotFound("tool"))
        ));
    }

    #[test]
    fn rules_whose_schema_does_not_compile_are_refused_by_their_place() {
        let bad = caller(&[("a", None), ("b", Some(json!({"type": "objekt"})))]);
        let error = Schemas::default().check_rules(&bad.tools).unwrap_err();
        assert_eq!(error.field, "tools[1].arguments");
    }
}
