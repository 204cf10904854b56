//! Whether a call may be made, and the row that it becomes.

use super::Ask;
use crate::{
    api::{Api, built_ins::run_caller, tools::require_visible},
    clock::now,
    error::{Error, Found, Result},
    store::{NewExecution, SealedCredentials, Start, StoreError},
};
use domain::{
    ExecutionId, Invalid, JsonObject, Principal, Scope, Time,
    execution::digest,
    tool::{Tool, built_in::is_built_in},
    validate,
};
use proto::v1::RunCaller;
use ring::digest::{Context, SHA256};

/// The greatest priority, and the least with its sign turned.
const MAX_PRIORITY: i32 = 100;

/// How idempotency keys begin that the product itself gives: of schedules' and incidents' runs, and of confirmed calls.
const RESERVED_KEYS: [&str; 3] = ["schedule:", "incident:", "confirmed-"];

/// A call that may be made.
pub(super) struct Admitted {
    pub(super) tool: Tool,
    pub(super) sealed: Option<SealedCredentials>,
    /// The arguments as JSON text.
    pub(super) arguments: String,
    /// A person must approve it first.
    pub(super) to_approve: bool,
    /// Whose key asks, where the tool is one of the product's own.
    pub(super) caller: Option<RunCaller>,
}

/// A tool that the caller may call with these arguments.
pub(in crate::api) struct Callable {
    pub(in crate::api) tool: Tool,
    sealed: Option<SealedCredentials>,
    /// The arguments as JSON text.
    arguments: String,
    /// It is one of the product's own.
    built_in: bool,
}

impl Api {
    /// Holds a call to the caller's rights, the tool's schema and the limits.
    pub(super) async fn admit(&self, caller: &Principal, ask: &Ask) -> Result<Admitted> {
        let Callable {
            tool,
            sealed,
            arguments,
            built_in,
        } = self.callable(caller, &ask.tool, &ask.arguments).await?;
        check(ask)?;
        let unattended = ask.confirmed || caller.scopes.contains(Scope::ToolsUnattended);
        Ok(Admitted {
            to_approve: tool.spec.destructive && !unattended,
            tool,
            sealed,
            arguments,
            caller: built_in.then(|| run_caller(caller)),
        })
    }

    /// The tool, held to what every call of it is held to, now or on a schedule: the scope, the caller's rules, the tool's
    /// schema and the limits. For whoever may call it, one of the product's own comes before one that the tenant registered
    /// under its name before the product had it.
    pub(in crate::api) async fn callable(
        &self,
        caller: &Principal,
        name: &str,
        arguments: &JsonObject,
    ) -> Result<Callable> {
        let (built_in, refused) = match self.built_in(caller, name) {
            Err(refused @ Error::MissingScope(_)) => (None, Some(refused)),
            found => (found?, None),
        };
        if built_in.is_none()
            && let Err(missing) = caller.require(Scope::ToolsExecute)
        {
            // By such a name whoever may not run registered tools means one that is not there for him.
            return Err(match is_built_in(name) {
                true => refused.unwrap_or(Error::NotFound("tool")),
                false => missing.into(),
            });
        }
        let text = self.arguments_text(arguments)?;
        require_visible(caller, name, "tool")?;
        let (tool, sealed) = match &built_in {
            Some(built_in) => (built_in.tool.clone(), None),
            None => {
                let found = self.0.store.tool_to_run(caller.tenant_id, name).await;
                match (found, refused) {
                    (Err(StoreError::NotFound), Some(refused)) => return Err(refused),
                    (found, _) => found.or_missing("tool")?,
                }
            }
        };
        self.permit(caller, &tool, arguments)?;
        self.0.schemas.validate(&tool, arguments)?;
        Ok(Callable {
            tool,
            sealed,
            arguments: text,
            built_in: built_in.is_some(),
        })
    }

    fn arguments_text(&self, arguments: &JsonObject) -> Result<String> {
        let limit = self.0.limits.arguments_bytes;
        validate::object("arguments", arguments, usize::MAX)?;
        let text = serde_json::to_string(arguments).map_err(|e| Error::Internal(e.into()))?;
        if text.len() > limit {
            return Err(Error::TooLarge {
                what: "the arguments",
                limit: limit as u64,
            });
        }
        Ok(text)
    }

    /// The row of an admitted call that is to start so. What waits for approval ends when nobody gives it in time.
    pub(super) fn new_execution(
        &self,
        caller: &Principal,
        ask: &Ask,
        admitted: &Admitted,
        start: Start,
    ) -> NewExecution {
        let tool = &admitted.tool;
        let max_attempts = tool.spec.options.retry.map_or(1, |policy| policy.max_attempts);
        let key = ask.idempotency_key.clone();
        NewExecution {
            id: ExecutionId::new(),
            tool_id: tool.id,
            tool: tool.spec.name.clone(),
            key_id: caller.key_id,
            arguments: ask.arguments.clone(),
            idempotent: tool.spec.runs_twice(),
            digest: digest(tool.id, tool.version, &ask.arguments),
            trace_id: telemetry::context::current_trace_id(),
            traceparent: traceparent(),
            priority: ask.priority,
            max_attempts: i32::try_from(max_attempts).unwrap_or(i32::MAX),
            deadline: self.deadline(ask.deadline, &start),
            schedule_id: ask.schedule_id,
            idempotency: key.map(|key| (key, fingerprint(&tool.spec.name, &admitted.arguments))),
            start,
        }
    }

    fn deadline(&self, asked: Option<Time>, start: &Start) -> Option<Time> {
        let Start::AwaitingApproval = start else {
            return asked;
        };
        let approval = now() + self.0.queue.approval_time;
        Some(asked.map_or(approval, |asked| asked.min(approval)))
    }
}

/// Holds a priority to its bounds.
pub(in crate::api) fn check_priority(priority: i32) -> std::result::Result<(), Invalid> {
    if (-MAX_PRIORITY..=MAX_PRIORITY).contains(&priority) {
        return Ok(());
    }
    let expected = format!("-{MAX_PRIORITY} to {MAX_PRIORITY}");
    Err(Invalid::new("priority", expected))
}

fn check(ask: &Ask) -> std::result::Result<(), Invalid> {
    check_priority(ask.priority)?;
    // Who took a key of ours before we do would decide what becomes of our call.
    let ours = ask.confirmed || ask.of_incident || ask.schedule_id.is_some();
    let reserved = |key: &String| !ours && RESERVED_KEYS.iter().any(|prefix| key.starts_with(prefix));
    if ask.idempotency_key.as_ref().is_some_and(reserved) {
        let expected = format!("a key that does not begin with {}", RESERVED_KEYS.join(" or "));
        return Err(Invalid::new("idempotency_key", expected));
    }
    let ok = |key: &String| (1..=200).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if ask.idempotency_key.as_ref().is_some_and(|key| !ok(key)) {
        let expected = "1 to 200 visible ASCII characters";
        return Err(Invalid::new("idempotency_key", expected));
    }
    Ok(())
}

/// What tells two calls under the same idempotency key apart.
fn fingerprint(tool: &str, arguments: &str) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(tool.as_bytes());
    hash.update(&[0]);
    hash.update(arguments.as_bytes());
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(hash.finish().as_ref());
    fingerprint
}

/// The request in hand, for the run that links to it later.
fn traceparent() -> Option<String> {
    let mut headers = http::HeaderMap::new();
    telemetry::propagate::inject_outward(&telemetry::context::current(), &mut headers);
    Some(headers.get("traceparent")?.to_str().ok()?.to_owned())
}
