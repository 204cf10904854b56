//! The tools that are part of the product: one file each. They keep and find contexts through rest-api.

mod context_append;
mod context_create;
mod context_delete;
mod context_get;
mod context_list;
mod context_search;
mod context_update;
pub(crate) mod view;

use crate::{
    caller::{Caller, Upstream, in_time},
    error::{Error, Result},
    rules,
    settings::Results,
};
use domain::{JsonObject, Scope};
use futures_util::future::BoxFuture;
use jsonschema::Validator;
use rmcp::model::{CallToolResult, ContentBlock, Tool as Definition, ToolAnnotations};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// What a call of a built-in tool works with.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// Who calls.
    pub(crate) caller: &'a Caller,
    /// rest-api.
    pub(crate) upstream: &'a Upstream,
    /// How large an answer may be.
    pub(crate) results: &'a Results,
}

/// What a client may expect of a tool.
#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// It changes nothing.
    ReadOnly,
    /// It adds. Twice adds twice.
    Additive,
    /// It changes what is there. Twice is as good as once.
    Changing,
    /// It deletes. Twice is as good as once.
    Destructive,
}

/// A tool that is part of the product.
pub(crate) trait BuiltIn: 'static {
    /// Its name; begins with [`domain::tool::RESERVED_PREFIX`].
    const NAME: &'static str;
    /// A person's name for it.
    const TITLE: &'static str;
    /// What it does, for the agent that chooses.
    const DESCRIPTION: &'static str;
    /// The scope that it needs.
    const SCOPE: Scope;
    /// What it may do.
    const EFFECT: Effect;
    /// What it is called with; unknown members are refused (`deny_unknown_fields`).
    type Arguments: DeserializeOwned + JsonSchema + Send;
    /// What it answers.
    type Output: Serialize + Send;

    /// Runs it. The scope has been checked.
    fn call(call: Call<'_>, arguments: Self::Arguments) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// A built-in tool, ready to be listed and called.
pub(crate) struct Tool {
    /// How it is listed.
    pub(crate) definition: Definition,
    /// The scope that it needs.
    pub(crate) scope: Scope,
    arguments: Validator,
    run: for<'a> fn(&'a Self, Call<'a>, JsonObject) -> BoxFuture<'a, Result<CallToolResult>>,
}

impl Tool {
    fn of<B: BuiltIn>() -> anyhow::Result<Self> {
        let input = domain::schema::of::<B::Arguments>();
        let arguments = jsonschema::validator_for(&Value::Object(input.clone()))?;
        let mut definition = Definition::new(B::NAME, B::DESCRIPTION, Arc::new(input));
        definition.title = Some(B::TITLE.to_owned());
        definition.annotations = Some(annotations(B::EFFECT));
        Ok(Self {
            definition,
            scope: B::SCOPE,
            arguments,
            run: |tool, call, given| Box::pin(tool.run::<B>(call, given)),
        })
    }

    /// Calls it, when the caller may and the arguments fit.
    pub(crate) async fn call(&self, call: Call<'_>, arguments: JsonObject) -> Result<CallToolResult> {
        rules::check(&call.caller.principal, &self.definition.name, &arguments)?;
        call.caller.require(self.scope)?;
        in_time((self.run)(self, call, arguments)).await
    }

    async fn run<B: BuiltIn>(&self, call: Call<'_>, given: JsonObject) -> Result<CallToolResult> {
        let given = Value::Object(given);
        let arguments = <B::Arguments as Deserialize>::deserialize(&given)
            .map_err(|error| self.misfit(&given, &error))?;
        let output = B::call(call, arguments).await?;
        // The text is the same JSON: agents whose client has no structured content read that.
        let text = serde_json::to_string(&output).map_err(Error::internal)?;
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = Some(serde_json::to_value(&output).map_err(Error::internal)?);
        Ok(result)
    }

    /// Where the arguments do not fit. The types decide; the schema, which says the same, knows the places.
    fn misfit(&self, given: &Value, error: &serde_json::Error) -> Error {
        Error::Arguments(rules::told(&self.arguments, given).unwrap_or_else(|| error.to_string()))
    }
}

/// All built-in tools, by name.
///
/// # Errors
/// When a schema of ours does not compile.
pub(crate) fn all() -> anyhow::Result<BTreeMap<&'static str, Tool>> {
    Ok(BTreeMap::from([
        entry::<context_append::ContextAppend>()?,
        entry::<context_create::ContextCreate>()?,
        entry::<context_delete::ContextDelete>()?,
        entry::<context_get::ContextGet>()?,
        entry::<context_list::ContextList>()?,
        entry::<context_search::ContextSearch>()?,
        entry::<context_update::ContextUpdate>()?,
    ]))
}

fn entry<B: BuiltIn>() -> anyhow::Result<(&'static str, Tool)> {
    Ok((B::NAME, Tool::of::<B>()?))
}

fn annotations(effect: Effect) -> ToolAnnotations {
    let (read_only, destructive, idempotent) = match effect {
        Effect::ReadOnly => (true, false, true),
        Effect::Additive => (false, false, false),
        Effect::Changing => (false, false, true),
        Effect::Destructive => (false, true, true),
    };
    ToolAnnotations::new()
        .read_only(read_only)
        .destructive(destructive)
        .idempotent(idempotent)
        .open_world(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_tool_has_closed_arguments_and_hints() {
        let tools = all().expect("our schemas compile");
        assert_eq!(tools.len(), 7);
        for (name, tool) in &tools {
            assert!(name.starts_with(domain::tool::RESERVED_PREFIX), "{name}");
            let input = &tool.definition.input_schema;
            assert_eq!(
                (&input["type"], &input["additionalProperties"]),
                (&json!("object"), &json!(false)),
                "{name}"
            );
            assert!(
                !serde_json::to_string(&tool.definition)
                    .expect("JSON")
                    .contains("$ref"),
                "{name}"
            );
            let hints = tool.definition.annotations.as_ref().expect("hints");
            assert_eq!(hints.open_world_hint, Some(false), "{name}");
            assert_eq!(
                hints.read_only_hint,
                Some(tool.scope == Scope::ContextsRead),
                "{name}"
            );
        }
        assert!(
            tools["context_search"].definition.input_schema["properties"]
                .get("query")
                .is_some()
        );
    }

    #[test]
    fn a_misfit_names_the_place_and_not_the_value() {
        let tools = all().expect("our schemas compile");
        let given = json!({"id": "x", "items": [{"role": "user", "content": 5}], "secret": "hunter2"});
        let error = serde_json::from_str::<u8>("x").expect_err("not a number");
        let told = tools["context_append"].misfit(&given, &error).to_string();
        assert!(
            told.contains("/items/0/content") && told.contains("secret") && !told.contains("hunter2"),
            "{told}"
        );
    }
}
