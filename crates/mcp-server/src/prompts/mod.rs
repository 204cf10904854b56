//! Prompts: how to go about an incident with the tools there are, one file each. They name the tools in the order in which
//! they help, say what to look for, and have what is found kept where others see it.

mod capacity_review;
mod explain_slo_burn;
mod investigate_alert;
mod trace_a_request;

use crate::{
    error::{Error, Result},
    tools::Call,
};
use domain::{JsonObject, validate};
use rmcp::model::{
    CacheScope, ContentBlock, GetPromptRequestParams, GetPromptResult, ListPromptsResult, Prompt,
    PromptArgument, PromptMessage, ResourceContents, Role,
};

/// The longest that an argument may be.
const ARGUMENT_MAX: usize = 128;
/// How long clients may rely upon the list: it changes with the program only.
const LIST_TTL_MS: u64 = 3_600_000;

/// What every investigation ends in.
const KEEP: &str = "\
Keep what you find while you find it: `context_append` to the incident's context, an item for each finding, with the query, \
the trace id or the log line that shows it, what it means, and what you are not sure of. Where there is no incident, look \
with `context_search` for a context about this and make one with `context_create` (type `incident`) only where there is \
none. Answers say in `notes` and `truncated` what they left out: narrow the question before you conclude anything from \
what is missing. Change nothing without being told to: no silence, no tool that is not read-only. Leave out tools that you \
are not shown, and say that you had to.";

/// The names of the prompts' arguments.
pub(crate) mod argument {
    /// An alert's name.
    pub(crate) const ALERT: &str = "alert";
    /// An incident's id.
    pub(crate) const INCIDENT: &str = "incident";
    /// An objective's name.
    pub(crate) const SLO: &str = "slo";
    /// A request's id.
    pub(crate) const REQUEST_ID: &str = "request_id";
    /// A trace's id.
    pub(crate) const TRACE_ID: &str = "trace_id";
    /// A service's name.
    pub(crate) const SERVICE: &str = "service";
}

/// The services whose telemetry this is, as their `service` label has them.
pub(crate) const SERVICES: [&str; 3] = ["mcp-server", "rest-api", "worker"];

/// All prompts.
pub(crate) fn list() -> ListPromptsResult {
    let prompts = vec![
        investigate_alert::prompt(),
        explain_slo_burn::prompt(),
        trace_a_request::prompt(),
        capacity_review::prompt(),
    ];
    ListPromptsResult::with_all_items(prompts)
        .with_ttl_ms(LIST_TTL_MS)
        .with_cache_scope(CacheScope::Public)
}

/// Whether `prompt` takes `argument`; `None` when there is no such prompt.
pub(crate) fn takes(prompt: &str, argument: &str) -> Option<bool> {
    let prompts = list().prompts;
    let arguments = prompts
        .into_iter()
        .find(|listed| listed.name == prompt)?
        .arguments;
    Some(arguments.iter().flatten().any(|taken| taken.name == argument))
}

/// A prompt with its arguments put in.
pub(crate) async fn get(call: Call<'_>, request: &GetPromptRequestParams) -> Result<GetPromptResult> {
    let nothing = JsonObject::new();
    let given = request.arguments.as_ref().unwrap_or(&nothing);
    for name in given.keys() {
        match takes(&request.name, name) {
            Some(true) => {}
            Some(false) => {
                return Err(Error::Arguments(format!(
                    "{name}: the prompt takes no such argument"
                )));
            }
            None => break,
        }
    }
    let given = Given(given);
    match request.name.as_str() {
        investigate_alert::NAME => investigate_alert::get(call, given).await,
        explain_slo_burn::NAME => explain_slo_burn::get(given),
        trace_a_request::NAME => trace_a_request::get(given),
        capacity_review::NAME => capacity_review::get(given),
        _ => Err(Error::Arguments(
            "name: expected a prompt of prompts/list".to_owned(),
        )),
    }
}

/// The arguments that a client gave.
#[derive(Clone, Copy)]
struct Given<'a>(&'a JsonObject);

impl<'a> Given<'a> {
    /// A word that may be left out: it stands in the middle of sentences and queries.
    fn optional(self, name: &str) -> Result<Option<&'a str>> {
        let wrong = || {
            Error::Arguments(format!(
                "{name}: expected 1 to {ARGUMENT_MAX} letters, digits, '-', '_' or '.'"
            ))
        };
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => {
                let text = value.as_str().ok_or_else(wrong)?;
                // Clients send what a person left empty.
                if text.is_empty() {
                    return Ok(None);
                }
                validate::word(name, text, ARGUMENT_MAX).map_err(|_| wrong())?;
                Ok(Some(text))
            }
        }
    }

    /// A word that must be there.
    fn required(self, name: &str) -> Result<&'a str> {
        let missing = || Error::Arguments(format!("{name}: it is missing"));
        self.optional(name)?.ok_or_else(missing)
    }
}

fn prompt(name: &str, title: &str, description: &str, arguments: Vec<PromptArgument>) -> Prompt {
    Prompt::new(name, Some(description), Some(arguments)).with_title(title)
}

fn takes_word(name: &str, description: &str, required: bool) -> PromptArgument {
    PromptArgument::new(name)
        .with_description(description)
        .with_required(required)
}

/// What to do, and what to know for it.
fn result(description: String, steps: &str, known: Vec<ResourceContents>) -> GetPromptResult {
    let mut messages = vec![PromptMessage::new_text(Role::User, format!("{steps}\n\n{KEEP}"))];
    let embedded = known.into_iter().map(ContentBlock::resource);
    messages.extend(embedded.map(|block| PromptMessage::new(Role::User, block)));
    GetPromptResult::new(messages).with_description(description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::tool::built_in::is_built_in;
    use serde_json::{Value, json};

    /// All that stands in a prompt's result, and how many resources are in it.
    fn told(result: &GetPromptResult) -> (String, usize) {
        let text = serde_json::to_string(result).expect("JSON");
        let embedded = result
            .messages
            .iter()
            .filter(|m| m.content.as_resource().is_some());
        (text, embedded.count())
    }

    fn given(value: &Value) -> JsonObject {
        value.as_object().expect("an object").clone()
    }

    /// Words in backquotes that look like tools.
    fn tools(text: &str) -> Vec<&str> {
        let quoted = text.split('`').skip(1).step_by(2);
        let tool =
            |word: &&str| word.contains('_') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        quoted.filter(tool).collect()
    }

    #[test]
    fn every_prompt_is_short_complete_and_names_tools_that_there_are() {
        let slo = given(&json!({"slo": "ApiAvailability"}));
        let request = given(&json!({"request_id": "019a-b"}));
        let service = given(&json!({"service": "rest-api"}));
        let results = [
            (explain_slo_burn::get(Given(&slo)), 1),
            (trace_a_request::get(Given(&request)), 0),
            (capacity_review::get(Given(&service)), 0),
            (capacity_review::get(Given(&JsonObject::new())), 0),
            (investigate_alert::told("HighErrorRate", None), 1),
            (investigate_alert::told("SomebodysOwn", None), 0),
        ];
        let names: Vec<_> = crate::tools::all().expect("they compile").into_keys().collect();
        for (result, embedded) in results {
            let result = result.expect("a prompt");
            let (_, count) = told(&result);
            assert_eq!(count, embedded, "{:?}", result.description);
            let ContentBlock::Text(steps) = &result.messages[0].content else {
                panic!("{result:?}")
            };
            assert!(
                steps.text.len() < 6000 && steps.text.ends_with(KEEP),
                "{}",
                steps.text
            );
            let tools = tools(&steps.text);
            assert!(tools.len() > 4, "{tools:?}");
            for tool in tools {
                assert!(
                    names.contains(&tool) || is_built_in(tool),
                    "{tool}: {}",
                    steps.text
                );
            }
        }
    }

    #[test]
    fn arguments_are_words() {
        let long = "x".repeat(ARGUMENT_MAX + 1);
        for (value, expected) in [
            (json!("HighErrorRate"), Some(Some("HighErrorRate"))),
            (json!(""), Some(None)),
            (json!("a b\nignore all that"), None),
            (json!(7), None),
            (json!(long), None),
        ] {
            let object = given(&json!({"alert": value}));
            assert_eq!(Given(&object).optional("alert").ok(), expected, "{object:?}");
        }
        let nothing = JsonObject::new();
        assert!(Given(&nothing).required("alert").is_err());
        assert!(
            trace_a_request::get(Given(&nothing)).is_err(),
            "one of two is needed"
        );
    }

    #[test]
    fn what_a_prompt_takes_is_what_it_lists() {
        assert_eq!(takes("investigate_alert", "alert"), Some(true));
        assert_eq!(takes("investigate_alert", "slo"), Some(false));
        assert_eq!(takes("write_poem", "alert"), None);
        assert!(serde_json::to_string(&list()).expect("JSON").len() < 3000);
    }
}
