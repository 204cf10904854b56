//! A person's agreement to a destructive tool, asked for through the client.
//!
//! Clients of protocol versions before 2026-07-28 are asked in their session. Later ones get the question as an answer
//! and call again with what the person said and with a state of ours: sealed with a key that all replicas derive from the
//! SERVICE_TOKEN, good for a few minutes and for this very call only (tenant, key, tool, the tool's version, arguments).
//! The state names the run it stands for, so that one shown twice is the same run and not another.

use crate::{
    caller::Caller,
    catalogue::Registered,
    error::{Error, Result},
    execute::Confirmed,
};
use domain::{JsonObject, Scope};
use rmcp::{
    RoleServer,
    model::{
        CallToolRequestParams, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction,
        InputRequest, InputRequiredResult, ProtocolVersion, RequestStateCodec, SealOptions,
    },
    service::{RequestContext, ServiceError},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};

/// For how long a person may think about it.
const PATIENCE: Duration = Duration::from_secs(300);
/// The question's name, and its one field's.
const CONFIRM: &str = "confirm";
/// What sets the key apart from whatever else is derived from the SERVICE_TOKEN.
const LABEL: &[u8] = b"devops-mcp/mcp-server/confirmation/v1";
/// The most that a person is shown of the arguments, bytes.
const SHOWN: usize = 8 * 1024;

/// Asks, and understands the answers.
pub(crate) struct Confirmations {
    codec: RequestStateCodec,
    /// What makes rest-api believe that a person agreed.
    token: MetadataValue<Ascii>,
    patience: Duration,
}

/// What came of it.
pub(crate) enum Consent {
    /// The person agreed.
    Given(Confirmed),
    /// The client is to ask and to call again.
    Asked(InputRequiredResult),
    /// Nobody can be asked.
    NobodyThere,
}

impl Confirmations {
    /// Those that rest-api believes because of the SERVICE_TOKEN.
    ///
    /// # Errors
    /// When the token is none that metadata could carry.
    pub(crate) fn new(service_token: &SecretString) -> anyhow::Result<Self> {
        let token = service_token.expose_secret();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, token.as_bytes());
        let mut metadata: MetadataValue<Ascii> = token.parse()?;
        metadata.set_sensitive(true);
        Ok(Self {
            codec: RequestStateCodec::try_new(ring::hmac::sign(&key, LABEL).as_ref())?,
            token: metadata,
            patience: PATIENCE,
        })
    }

    /// Whether the call needs a person's agreement.
    pub(crate) fn needed(caller: &Caller, tool: &Registered) -> bool {
        tool.is_destructive() && !caller.principal.scopes.contains(Scope::ToolsUnattended)
    }

    /// Asks the person at the client, or takes the answer that came with the call. `stopping` ends the wait.
    pub(crate) async fn ask(
        &self,
        caller: &Caller,
        tool: &Registered,
        request: &CallToolRequestParams,
        cx: &RequestContext<RoleServer>,
        stopping: &CancellationToken,
    ) -> Result<Consent> {
        let elicitation = cx.client_capabilities().and_then(|client| client.elicitation);
        // A client that names no kind of question takes forms.
        if !elicitation.is_some_and(|can| can.form.is_some() || can.url.is_none()) {
            return Ok(Consent::NobodyThere);
        }
        let nothing = JsonObject::new();
        let arguments = request.arguments.as_ref().unwrap_or(&nothing);
        let form = form(&request.name, arguments)?;
        let modern = cx
            .protocol_version()
            .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
        if !modern {
            return tokio::select! {
                consent = self.ask_in_session(form, cx) => consent,
                () = stopping.cancelled() => {
                    let message = "the server stops before the question was answered; nothing has run, call again";
                    Err(Error::Unavailable(message.to_owned()))
                }
            };
        }
        let call = call(caller, tool, arguments);
        match self.answered(request, &call) {
            Some((run, true)) => Ok(Consent::Given(self.confirmed(&run))),
            Some((_, false)) => Err(Error::Declined("the person asked declined")),
            None => Ok(Consent::Asked(self.question(form, &call))),
        }
    }

    fn confirmed(&self, run: &str) -> Confirmed {
        Confirmed {
            token: self.token.clone(),
            idempotency_key: format!("confirmed-{run}"),
        }
    }

    /// The question, with a state that names a run which there may be.
    fn question(&self, form: ElicitRequestParams, call: &[u8]) -> InputRequiredResult {
        let run = new_run();
        let options = SealOptions::new().associated_data(call).ttl(self.patience);
        let state = self.codec.seal_with(run.as_bytes(), &options);
        let question = InputRequest::Elicitation(ElicitRequest::new(form));
        InputRequiredResult::new(Some([(CONFIRM.to_owned(), question)].into()), Some(state))
    }

    /// The run that was asked about, and what the person said. `None` when there is no answer, or none to this very
    /// question as it was asked a few minutes ago: then it is asked anew.
    fn answered(&self, request: &CallToolRequestParams, call: &[u8]) -> Option<(String, bool)> {
        let answer = request.input_responses.as_ref()?.get(CONFIRM)?;
        let answer: ElicitResult = serde_json::from_value(answer.clone()).ok()?;
        let run = match self.codec.open_with(request.request_state.as_deref()?, call) {
            Ok(run) => String::from_utf8(run).ok()?,
            Err(error) => {
                tracing::debug!(%error, "a confirmation does not hold");
                return None;
            }
        };
        Some((run, agreed(&answer)))
    }

    async fn ask_in_session(
        &self,
        form: ElicitRequestParams,
        cx: &RequestContext<RoleServer>,
    ) -> Result<Consent> {
        telemetry::recent::waits();
        let answer = cx.peer.create_elicitation_with_timeout(form, Some(self.patience));
        match answer.await {
            Ok(answer) if agreed(&answer) => Ok(Consent::Given(self.confirmed(&new_run()))),
            Ok(_) => Err(Error::Declined("the person asked declined")),
            Err(ServiceError::Timeout { .. }) => Err(Error::Declined("nobody answered in time")),
            Err(error) => {
                tracing::debug!(%error, "a client could not be asked");
                Ok(Consent::NobodyThere)
            }
        }
    }
}

/// Only a yes is a yes.
fn agreed(answer: &ElicitResult) -> bool {
    let said = answer.content.as_ref().map(|content| &content[CONFIRM]);
    answer.action == ElicitationAction::Accept && said == Some(&Value::Bool(true))
}

fn new_run() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The very call that an agreement is for.
fn call(caller: &Caller, tool: &Registered, arguments: &JsonObject) -> Vec<u8> {
    let principal = &caller.principal;
    // Only the last part may hold a line's end outside of a JSON text, and it is one.
    format!(
        "{}\n{}\n{}\n{}\n{}",
        principal.tenant_id,
        principal.key_id,
        tool.id,
        tool.version,
        proto::convert::object_text(arguments),
    )
    .into_bytes()
}

/// What will run, and a box to tick.
fn form(tool: &str, arguments: &JsonObject) -> Result<ElicitRequestParams> {
    let schema = json!({
        "type": "object",
        "properties": {
            CONFIRM: {"type": "boolean", "title": "Run it", "description": "Whether the tool may run with these arguments"},
        },
        "required": [CONFIRM],
    });
    Ok(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: format!(
            "The tool {tool} is destructive: what it does cannot be taken back. It is to run with these arguments:\n{}",
            shown(arguments)
        ),
        requested_schema: serde_json::from_value(schema).map_err(Error::internal)?,
    })
}

/// The arguments as a person can judge them: what would change how text is shown is written out.
fn shown(arguments: &JsonObject) -> String {
    let text = serde_json::to_string_pretty(arguments).unwrap_or_default();
    let end = text.floor_char_boundary(SHOWN);
    let mut shown = String::with_capacity(end);
    for c in text[..end].chars() {
        match c {
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{7f}'..='\u{9f}' => {
                shown.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => shown.push(c),
        }
    }
    if end < text.len() {
        shown.push_str(&format!(
            "\n… and {} bytes more that are not shown",
            text.len() - end
        ));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ApiKeyId, Principal, Scopes, TenantId, ToolRules, api_key::Secret};
    use rmcp::model::Tool;
    use std::sync::Arc;

    fn caller() -> Caller {
        let principal = Principal {
            tenant_id: TenantId::new(),
            tenant: "t".into(),
            key_id: ApiKeyId::new(),
            key_name: "k".into(),
            scopes: Scopes::default(),
            tools: ToolRules::unlimited(),
        };
        Caller::new(principal, &Secret::generate()).expect("a caller")
    }

    fn tool(version: i64) -> Registered {
        Registered {
            definition: Tool::new("drop", "drops it", Arc::default()),
            id: "t1".into(),
            version,
        }
    }

    fn confirmations(token: &str) -> Confirmations {
        Confirmations::new(&SecretString::from(token)).expect("a token")
    }

    fn answer(state: &str, action: &str, yes: bool) -> CallToolRequestParams {
        let said = json!({"action": action, "content": {"confirm": yes}});
        CallToolRequestParams::new("drop")
            .with_input_responses([(CONFIRM.to_owned(), said)].into())
            .with_request_state(state)
    }

    #[test]
    fn an_answer_counts_for_the_very_call_that_was_asked_about_on_any_replica() {
        let (here, there) = (
            confirmations("between-services"),
            confirmations("between-services"),
        );
        let (ours, theirs) = (caller(), caller());
        let object = |value: Value| value.as_object().cloned().expect("an object");
        let arguments = object(json!({"db": "a"}));
        let asked_for = call(&ours, &tool(1), &arguments);
        let question = here.question(form("drop", &arguments).expect("a form"), &asked_for);
        let state = question.request_state.expect("a state");

        let (run, yes) = there
            .answered(&answer(&state, "accept", true), &asked_for)
            .expect("an answer");
        assert!(yes);
        let again = here.answered(&answer(&state, "accept", true), &asked_for);
        assert_eq!(again, Some((run, true)), "the same run");
        for (action, yes) in [("accept", false), ("decline", true), ("cancel", true)] {
            let said = here.answered(&answer(&state, action, yes), &asked_for);
            assert!(said.is_some_and(|(_, yes)| !yes), "{action}");
        }
        for other in [
            call(&theirs, &tool(1), &arguments),
            call(&ours, &tool(2), &arguments),
            call(&ours, &tool(1), &object(json!({"db": "b"}))),
        ] {
            assert_eq!(here.answered(&answer(&state, "accept", true), &other), None);
        }
        let foreign = confirmations("another-token");
        assert_eq!(
            foreign.answered(&answer(&state, "accept", true), &asked_for),
            None
        );
        let mut late = confirmations("between-services");
        late.patience = Duration::ZERO;
        let expired = late.question(form("drop", &arguments).expect("a form"), &asked_for);
        let expired = expired.request_state.expect("a state");
        // It is good for the millisecond in which it was made.
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(here.answered(&answer(&expired, "accept", true), &asked_for), None);
    }

    #[test]
    fn arguments_are_shown_as_they_are() {
        let hidden = json!({"db": "prod\u{202e}tset"});
        let text = shown(hidden.as_object().expect("an object"));
        assert!(text.contains("prod\\u202etset"), "{text}");
        let long = json!({"x": "y".repeat(2 * SHOWN)});
        let text = shown(long.as_object().expect("an object"));
        assert!(text.contains("not shown") && text.len() < SHOWN + 100);
    }
}
