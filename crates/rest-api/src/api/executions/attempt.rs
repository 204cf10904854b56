//! What workers ask for: something to run, to keep it, and to say how it ended.

use super::{ended, seen::is_built_in};
use crate::{
    api::Api,
    built_ins::BuiltIns,
    clock::now,
    error::{Found, Result},
    metrics,
    queue::report::{Ended, Next, Standing, decide},
    store::{End, HeldLease, LeaseAsk, Leased, Renewed, StoreError},
};
use domain::{
    ExecutionId, TenantId, Time,
    execution::{Execution, ExecutionError, ExecutionStatus, Outcome, digest},
    tool::Tool,
};
use proto::{
    convert::object_text,
    v1::{LeasedRun, RunCaller, RunToolRequest},
};
use std::{collections::BTreeSet, time::Duration};

/// How often handing back a run that could not be sent is tried, a second apart.
const HAND_BACK_TRIES: u32 = 10;
/// The most runs that are leased at once.
const MAX_BATCH: u32 = 32;
/// When a run of the product's own tools is offered again that is nothing for the worker that leased it.
const FOR_ANOTHER: Duration = Duration::from_secs(1);
/// When, while no worker is known to run its tool: they may be away, or be replaced by others.
const UNTIL_TOLD: Duration = Duration::from_secs(5);
/// For how long, when it has no deadline.
const NEVER_TOLD: Duration = Duration::from_secs(24 * 3600);

/// Runs that were leased together.
pub struct HandedBatch {
    /// The runs.
    pub runs: Vec<HandedRun>,
    /// There may be more that are due.
    pub more: bool,
}

/// A run that was leased and is yet to be sent. Dropped before it was [taken](Self::take), it is handed back: nothing
/// has happened, so that even what must not run twice may run.
pub struct HandedRun {
    api: Api,
    id: ExecutionId,
    token: i64,
    run: Option<LeasedRun>,
}

impl HandedRun {
    /// The execution.
    pub fn id(&self) -> ExecutionId {
        self.id
    }

    /// Its fencing token.
    pub fn token(&self) -> i64 {
        self.token
    }

    /// The message, which is sent now.
    pub fn take(mut self) -> LeasedRun {
        self.run.take().unwrap_or_default()
    }
}

impl Drop for HandedRun {
    fn drop(&mut self) {
        if self.run.is_none() {
            return;
        }
        let (api, id, token) = (self.api.clone(), self.id, self.token);
        self.api
            .tasks()
            .spawn_graceful("hand-back", move |_stop| async move {
                api.hand_back_unsent(id, token).await;
            });
    }
}

/// Why a leased run is not sent.
enum Unsent {
    /// It cannot run any more, which is its outcome.
    Hopeless(Box<Outcome>),
    /// Another worker may run it, after so long.
    NotNow(Duration),
}

impl Api {
    /// Leases at most `room` runs to a worker that runs these of the product's own tools. What cannot be run any more ends
    /// here.
    pub async fn lease(&self, worker: &str, built_ins: &BTreeSet<String>, room: u32) -> Result<HandedBatch> {
        let now = now();
        let limit = room.min(MAX_BATCH);
        let ask = LeaseAsk {
            owner: worker,
            limit,
            per_tenant: self.0.queue.running_per_tenant,
            now,
            expires_at: now + self.0.queue.lease,
        };
        let leased = self.0.store.lease_executions(&ask).await?;
        let more = leased.len() as u64 >= u64::from(limit);
        let (mut runs, mut hopeless) = (Vec::with_capacity(leased.len()), Vec::new());
        for leased in leased {
            let (id, token) = (leased.execution.id, leased.token);
            let waited = (now - leased.due).as_seconds_f64().max(0.0);
            match self.prepare(leased, built_ins, now) {
                Ok(run) => runs.push(HandedRun {
                    api: self.clone(),
                    id,
                    token,
                    run: Some(run),
                }),
                Err(Unsent::Hopeless(outcome)) => hopeless.push((id, token, outcome)),
                Err(Unsent::NotNow(wait)) => {
                    self.leave_to_another(id, token, now + wait).await;
                    continue;
                }
            }
            metrics::EXECUTION_QUEUE_WAIT.record(waited, []);
        }
        for (id, token, outcome) in hopeless {
            if let Err(error) = self.finish(id, token, &outcome).await {
                tracing::warn!(execution_id = %id, %error, "an execution that cannot run was not ended");
            }
        }
        Ok(HandedBatch { runs, more })
    }

    /// What the worker is sent, or why it is sent nothing.
    fn prepare(
        &self,
        mut leased: Leased,
        built_ins: &BTreeSet<String>,
        now: Time,
    ) -> std::result::Result<LeasedRun, Unsent> {
        let failed = |code, message| Err(hopeless(code, message));
        if !leased.key_active {
            return failed(
                "key_revoked",
                "the key that asked for it is not accepted any more",
            );
        }
        if leased.execution.deadline.is_some_and(|deadline| deadline < now) {
            return failed("deadline_exceeded", "it had not begun by its deadline");
        }
        let tool = match leased.tool.take() {
            Some(tool) => tool,
            None => leased_built_in(self.built_ins(), &leased, built_ins, now)?,
        };
        let execution = leased.execution;
        // Whoever approved or confirmed it, or may go without, meant the tool as it was then.
        let meant = execution.approved_by.is_some() || tool.spec.destructive;
        if meant && digest(tool.id, tool.version, &execution.arguments) != execution.digest {
            return failed("tool_changed", "the tool changed since its run was agreed to");
        }
        let unsealed = leased.credentials.map(|sealed| self.0.vault.unseal(&sealed));
        let Ok(credentials_json) = unsealed.transpose() else {
            tracing::error!(tool = tool.spec.name, "the tool's credentials cannot be opened");
            return failed(
                "credentials_unreadable",
                "the tool's credentials cannot be opened",
            );
        };
        let caller = is_built_in(&execution).then(|| RunCaller {
            key_id: execution.key_id.to_string(),
            key_name: leased.key_name,
            scopes: leased.key_scopes.iter().map(|scope| scope.to_string()).collect(),
        });
        let run = RunToolRequest {
            execution_id: execution.id.to_string(),
            tenant: leased.tenant,
            tool: Some(tool.into()),
            arguments_json: object_text(&execution.arguments),
            credentials_json,
            built_in: caller.is_some(),
            caller,
        };
        Ok(LeasedRun {
            run: Some(run),
            token: leased.token,
            attempt: execution.attempts,
            traceparent: leased.traceparent.unwrap_or_default(),
            lease_ms: u32::try_from(self.0.queue.lease.as_millis()).unwrap_or(u32::MAX),
            timeout_ms: 0,
        })
    }

    async fn leave_to_another(&self, id: ExecutionId, token: i64, run_at: Time) {
        if let Err(error) = self.hand_back(id, token, run_at).await {
            tracing::warn!(execution_id = %id, %error, "a run that another worker may run was not handed back");
        }
    }

    /// Keeps what a worker holds; tells what it holds no longer, and what is to end.
    pub async fn heartbeat(&self, held: &[HeldLease]) -> Result<Vec<Renewed>> {
        let expires_at = now() + self.0.queue.lease;
        Ok(self.0.store.renew_leases(held, expires_at).await?)
    }

    /// Ends an attempt: with the execution's outcome, or with another attempt to come.
    pub async fn end_attempt(
        &self,
        id: ExecutionId,
        token: i64,
        ended: Ended,
    ) -> crate::store::Result<Execution> {
        if ended.is_settled() {
            return self.finish(id, token, &ended.outcome).await;
        }
        let leased = self.0.store.leased_execution(id, token).await?;
        let standing = Standing {
            attempts: leased.execution.attempts,
            max_attempts: leased.max_attempts,
            idempotent: leased.idempotent,
            cancel_requested: leased.execution.cancel_requested,
            deadline: leased.execution.deadline,
            policy: leased.tool.and_then(|tool| tool.spec.options.retry),
        };
        let now = now();
        match decide(ended, &standing, now, rand::random()) {
            Next::Final(outcome) => self.finish(id, token, &outcome).await,
            Next::Retry { wait, error } => self.try_again(id, token, now + wait, &error).await,
        }
    }

    /// Hands back what a worker has not begun.
    pub async fn hand_back(
        &self,
        id: ExecutionId,
        token: i64,
        run_at: Time,
    ) -> crate::store::Result<Execution> {
        let end = End::HandBack { run_at };
        let execution = self.0.store.end_attempt(id, token, end).await?;
        if execution.status.is_final() {
            // It was to be cancelled meanwhile.
            count(&execution);
        }
        Ok(execution)
    }

    /// Hands back what was never sent, trying again while the database is away.
    async fn hand_back_unsent(&self, id: ExecutionId, token: i64) {
        let mut tries = 0;
        while let Err(error) = self.hand_back(id, token, now()).await {
            tries += 1;
            if tries == HAND_BACK_TRIES
                || !matches!(error, StoreError::Unavailable(_) | StoreError::InDoubt(_))
            {
                tracing::warn!(execution_id = %id, %error, "a run that was not sent was not handed back");
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Cancels an execution that was not over yet, as far as is known.
    pub(super) async fn cancel(&self, tenant: TenantId, id: ExecutionId) -> Result<Execution> {
        let cancelled = self.0.store.cancel_execution(tenant, id).await;
        let cancelled = cancelled.or_missing("execution")?;
        if cancelled.status.is_final() {
            count(&cancelled);
        }
        Ok(cancelled)
    }

    /// Queues another attempt.
    pub(super) async fn try_again(
        &self,
        id: ExecutionId,
        token: i64,
        run_at: Time,
        error: &ExecutionError,
    ) -> crate::store::Result<Execution> {
        let end = End::Retry { run_at, error };
        let execution = self.0.store.end_attempt(id, token, end).await?;
        if execution.status.is_final() {
            count(&execution);
            return Ok(execution);
        }
        let wait = (run_at - now()).to_std().unwrap_or_default();
        self.0.hub.wake_after(wait, &self.0.tasks);
        metrics::EXECUTION_RETRIES.inc([&execution.tool]);
        tracing::info!(
            execution_id = %id,
            tool = execution.tool,
            attempt = execution.attempts,
            code = error.code,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "execution will be tried again"
        );
        Ok(execution)
    }

    /// Stores an outcome.
    pub(super) async fn finish(
        &self,
        id: ExecutionId,
        token: i64,
        outcome: &Outcome,
    ) -> crate::store::Result<Execution> {
        let end = End::Final(outcome);
        let execution = self.0.store.end_attempt(id, token, end).await?;
        count(&execution);
        let code = execution.error.as_ref().map(|error| error.code.as_str());
        let (tool, attempts) = (execution.tool.as_str(), execution.attempts);
        match execution.status {
            ExecutionStatus::Dead => {
                tracing::warn!(execution_id = %id, tool, attempts, code, "execution is dead: no attempt is left");
            }
            ExecutionStatus::OutcomeUnknown => {
                tracing::warn!(execution_id = %id, tool, attempts, code, "execution's outcome is unknown");
            }
            _ => {}
        }
        Ok(execution)
    }
}

/// The product's own tool that is to run, if the key that asked for it may still call it. Waits for a worker that runs it
/// until the run's deadline: while workers are replaced, those with it and those without may take turns.
fn leased_built_in(
    known: &BuiltIns,
    leased: &Leased,
    worker_runs: &BTreeSet<String>,
    now: Time,
) -> std::result::Result<Tool, Unsent> {
    let execution = &leased.execution;
    if !is_built_in(execution) {
        return Err(hopeless("tool_removed", "the tool is not registered any more"));
    }
    let manifest = known.manifest();
    let found = manifest.as_ref().and_then(|known| known.get(&execution.tool));
    let Some(found) = found.filter(|tool| tool.is_open_to(&leased.tenant, &leased.key_scopes)) else {
        if execution.deadline.is_none() && now > execution.created_at + NEVER_TOLD {
            return Err(hopeless("tool_removed", "no worker has run the tool for a day"));
        }
        return Err(Unsent::NotNow(UNTIL_TOLD));
    };
    if !leased.key_scopes.contains(found.scope) {
        return Err(hopeless(
            "tool_removed",
            "the key that asked for it may not call the tool any more",
        ));
    }
    if !worker_runs.contains(&execution.tool) {
        return Err(Unsent::NotNow(FOR_ANOTHER));
    }
    Ok(found.tool.clone())
}

fn hopeless(code: &str, message: &str) -> Unsent {
    Unsent::Hopeless(Box::new(ended(ExecutionStatus::Failed, code, message)))
}

/// Counted once, by whoever stored the outcome.
fn count(execution: &Execution) {
    let labels = [execution.tool.as_str(), execution.status.as_str()];
    let took = execution.finished_at.unwrap_or_else(now) - execution.created_at;
    metrics::announce(&execution.tool);
    metrics::TOOL_EXECUTIONS.inc(labels);
    if let Some(error) = &execution.error {
        metrics::count_failure(&execution.tool, execution.status, &error.code);
    }
    metrics::TOOL_EXECUTION_DURATION.record(took.as_seconds_f64().max(0.0), labels);
    metrics::EXECUTION_ATTEMPTS.record(f64::from(execution.attempts), []);
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ApiKeyId, Scopes, tool::built_in};
    use proto::v1::BuiltInTool;
    use std::time::Instant;

    fn leased(scopes: Scopes) -> Leased {
        Leased {
            execution: Execution {
                id: ExecutionId::new(),
                tenant_id: TenantId::new(),
                tool_id: Some(built_in::id("query_logs")),
                tool: "query_logs".into(),
                key_id: ApiKeyId::new(),
                status: ExecutionStatus::Running,
                arguments: Default::default(),
                result: None,
                error: None,
                attempts: 1,
                priority: 0,
                run_at: None,
                deadline: None,
                cancel_requested: false,
                progress: None,
                schedule_id: None,
                digest: String::new(),
                approved_by: None,
                trace_id: None,
                created_at: now(),
                started_at: None,
                finished_at: None,
            },
            due: now(),
            token: 1,
            tenant: "acme".into(),
            tool: None,
            credentials: None,
            key_name: "k".into(),
            key_scopes: scopes,
            key_active: true,
            traceparent: None,
            max_attempts: 1,
            idempotent: true,
        }
    }

    #[test]
    fn a_tool_of_the_product_is_waited_for_as_long_as_its_key_may_call_it() {
        let told = |tenant: &str| BuiltInTool {
            name: "query_logs".into(),
            input_schema_json: r#"{"type":"object"}"#.into(),
            scope: "observe:read".into(),
            tenants: vec![tenant.into()],
            ..BuiltInTool::default()
        };
        let known = |tools: Option<Vec<BuiltInTool>>| {
            let known = BuiltIns::new(Duration::ZERO);
            tools
                .into_iter()
                .for_each(|tools| known.told(tools, Instant::now()));
            known
        };
        let runs = BTreeSet::from(["query_logs".to_owned()]);
        let waits = |known: &BuiltIns, leased: &Leased, runs: &BTreeSet<String>| {
            matches!(
                leased_built_in(known, leased, runs, now()),
                Err(Unsent::NotNow(_))
            )
        };
        let mut asked = leased(Scopes::of_a_tenant());
        assert!(waits(&known(None), &asked, &runs), "none has told");
        assert!(
            waits(&known(Some(Vec::new())), &asked, &runs),
            "one without it has"
        );
        assert!(waits(&known(Some(vec![told("globex")])), &asked, &runs));
        let known_here = known(Some(vec![told("acme")]));
        assert!(
            waits(&known_here, &asked, &BTreeSet::new()),
            "this one has it not"
        );
        let found = leased_built_in(&known_here, &asked, &runs, now());
        assert!(found.is_ok_and(|tool| tool.spec.name == "query_logs"));

        let hopeless = |known: &BuiltIns, leased: &Leased| {
            matches!(
                leased_built_in(known, leased, &runs, now()),
                Err(Unsent::Hopeless(_))
            )
        };
        assert!(hopeless(&known_here, &leased(Scopes::default())));
        asked.execution.created_at -= 2 * NEVER_TOLD;
        assert!(hopeless(&known(None), &asked));
        asked.execution.deadline = Some(now() + NEVER_TOLD);
        assert!(waits(&known(None), &asked, &runs));
    }
}
