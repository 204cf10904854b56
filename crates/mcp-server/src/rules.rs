//! Who may call a tool with which arguments: a key's rules, for what runs here or is asked about before rest-api sees it.
//! rest-api holds registered tools to the same rules when they are called.

use crate::error::{Error, Result};
use domain::{JsonObject, Principal};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// How many places of ill-fitting arguments are told.
const MAX_TOLD: usize = 5;
/// The most that one compiled pattern may take, bytes. rest-api has bounded the rest when it took the schema.
const MAX_PATTERN_BYTES: usize = 512 * 1024;

/// Holds a call to the rules of the caller's key.
///
/// # Errors
/// [`Error::UnknownTool`] when no rule names the tool, [`Error::ArgumentsNotAllowed`] when none that does takes the
/// arguments.
pub(crate) fn check(principal: &Principal, tool: &str, arguments: &JsonObject) -> Result<()> {
    let Some(rules) = principal.tools.rules() else {
        return Ok(());
    };
    let value = Value::Object(arguments.clone());
    let mut misfit = None;
    for rule in rules.iter().filter(|rule| rule.names(tool)) {
        let Some(schema) = &rule.arguments else {
            return Ok(());
        };
        match told(&compile(schema)?, &value) {
            None => return Ok(()),
            told => misfit = misfit.or(told),
        }
    }
    Err(match misfit {
        Some(places) => Error::ArgumentsNotAllowed(places),
        None => Error::UnknownTool(tool.to_owned()),
    })
}

/// Holds arguments to a tool's schema.
///
/// # Errors
/// [`Error::Arguments`] with the places that do not fit.
pub(crate) fn fits(schema: &JsonObject, arguments: &JsonObject) -> Result<()> {
    told(&compile(schema)?, &Value::Object(arguments.clone()))
        .map_or(Ok(()), |places| Err(Error::Arguments(places)))
}

fn compile(schema: &JsonObject) -> Result<Validator> {
    let patterns = PatternOptions::fancy_regex()
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES);
    jsonschema::options()
        .with_pattern_options(patterns)
        .build(&Value::Object(schema.clone()))
        .map_err(|error| {
            Error::internal(format_args!(
                "a stored schema does not compile: {}",
                error.masked()
            ))
        })
}

/// The first places that do not fit, without the values that stand there.
pub(crate) fn told(schema: &Validator, value: &Value) -> Option<String> {
    let errors = schema.iter_errors(value).take(MAX_TOLD);
    let places: Vec<String> = errors.map(|error| tell(&error)).collect();
    (!places.is_empty()).then(|| places.join("; "))
}

fn tell(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "/" } else { &place };
    format!("{place}: {}", error.masked())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ApiKeyId, Scopes, TenantId, ToolRule, ToolRules};
    use serde_json::json;

    #[test]
    fn a_rule_must_name_the_tool_and_take_the_arguments() {
        let rule = |tools: &str, schema: Option<Value>| ToolRule {
            tools: tools.into(),
            arguments: schema.and_then(|schema| schema.as_object().cloned()),
        };
        let staging = json!({"properties": {"env": {"const": "staging"}}, "required": ["env"]});
        let rules = vec![rule("context_*", None), rule("deploy", Some(staging))];
        let principal = Principal {
            tenant_id: TenantId::new(),
            tenant: "t".into(),
            key_id: ApiKeyId::new(),
            key_name: "k".into(),
            scopes: Scopes::default(),
            tools: ToolRules::limited(rules).expect("rules"),
        };
        let check =
            |tool: &str, arguments: Value| check(&principal, tool, arguments.as_object().expect("an object"));
        assert_eq!(check("context_get", json!({"id": "x"})), Ok(()));
        assert_eq!(check("deploy", json!({"env": "staging"})), Ok(()));
        let refused = check("deploy", json!({"env": "production"})).expect_err("refused");
        assert_eq!(refused.code(), "arguments_not_allowed");
        assert!(refused.to_string().contains("/env") && !refused.to_string().contains("production"));
        assert_eq!(check("drop", json!({})), Err(Error::UnknownTool("drop".into())));
    }
}
