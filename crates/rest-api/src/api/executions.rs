//! Executions: runs a tool through a worker, stores the outcome, then tells the caller.
//!
//! The run goes on in a task of its own: a caller that leaves cancels it, and what became of it is stored all the
//! same.

use super::Api;
use crate::{
    clock::now,
    error::{Error, Found, Result},
    metrics,
    runner::{Run, Told},
    store::{ExecutionFilter, NewExecution, StoreError},
};
use domain::{
    ExecutionId, JsonObject, Principal, Scope, TenantId,
    execution::{Execution, ExecutionError, ExecutionStatus, Outcome},
    page::{Page, PageRequest},
    tool::Tool,
    validate,
};
use proto::v1::{Progress, RunToolRequest};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

/// How long a lease holds unless it is renewed.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// What a run may take beyond its tool's own time before the worker is given up.
const GRACE: Duration = Duration::from_secs(10);
/// How often storing an outcome is tried, a second apart.
const STORE_ATTEMPTS: u32 = 5;
/// How many tidings of progress may wait for a slow caller; more are dropped.
const WAITING_EVENTS: usize = 32;

/// What a caller that waits is told.
#[derive(Debug)]
pub enum RunEvent {
    /// How far the run has come.
    Progress(Progress),
    /// The execution with its stored outcome; nothing follows.
    Finished(Box<Execution>),
}

/// A run that somebody waits for. Dropping it cancels the run.
pub struct Waiting {
    events: mpsc::Receiver<Result<RunEvent>>,
    _cancel: DropGuard,
}

impl Waiting {
    /// What comes next; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<RunEvent>> {
        self.events.recv().await
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the outcome could not be stored, or no worker took it up.
    pub async fn finished(mut self) -> Result<Execution> {
        while let Some(event) = self.next().await {
            if let RunEvent::Finished(execution) = event? {
                return Ok(*execution);
            }
        }
        Err(Error::Internal(anyhow::anyhow!("the run ended without a word")))
    }
}

/// One run in flight: what it needs to end well.
struct Flight {
    api: Api,
    id: ExecutionId,
    tenant: TenantId,
    token: i64,
    tool: Tool,
    started: Instant,
    cancelled: CancellationToken,
    events: mpsc::Sender<Result<RunEvent>>,
}

impl Api {
    /// Runs a tool. Needs `tools:execute`. The row is inserted before anything runs.
    pub async fn run_tool(&self, caller: &Principal, name: &str, arguments: JsonObject) -> Result<Waiting> {
        caller.require(Scope::ToolsExecute)?;
        let limit = self.0.limits.arguments_bytes;
        validate::object("arguments", &arguments, usize::MAX)?;
        let text = serde_json::to_string(&arguments).map_err(|e| Error::Internal(e.into()))?;
        if text.len() > limit {
            return Err(Error::TooLarge {
                what: "the arguments",
                limit: limit as u64,
            });
        }
        let (tool, sealed) = self
            .0
            .store
            .tool_to_run(caller.tenant_id, name)
            .await
            .or_missing("tool")?;
        self.0.schemas.validate(&tool, &arguments)?;
        let credentials_json = sealed.map(|sealed| self.0.vault.unseal(&sealed)).transpose()?;
        let new = self.new_execution(caller, &tool, arguments);
        let request = RunToolRequest {
            execution_id: new.id.to_string(),
            tenant: caller.tenant.clone(),
            tool: Some(tool.clone().into()),
            arguments_json: text,
            credentials_json,
        };
        let started = Instant::now();
        let token = self.0.store.begin_execution(caller.tenant_id, &new).await?;
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let cancelled = CancellationToken::new();
        let flight = Flight {
            api: self.clone(),
            id: new.id,
            tenant: caller.tenant_id,
            token,
            tool,
            started,
            cancelled: cancelled.clone(),
            events: sender,
        };
        self.take_off(flight, request);
        Ok(Waiting {
            events,
            _cancel: cancelled.drop_guard(),
        })
    }

    /// One execution. Needs `tools:read` or `tools:execute`, as the listing.
    pub async fn get_execution(&self, caller: &Principal, id: ExecutionId) -> Result<Execution> {
        super::tools::require_catalogue(caller)?;
        self.0
            .store
            .get_execution(caller.tenant_id, id)
            .await
            .or_missing("execution")
    }

    /// Executions, newest first.
    pub async fn list_executions(
        &self,
        caller: &Principal,
        filter: &ExecutionFilter,
        page: &PageRequest,
    ) -> Result<Page<Execution>> {
        super::tools::require_catalogue(caller)?;
        Ok(self
            .0
            .store
            .list_executions(caller.tenant_id, filter, page)
            .await?)
    }

    fn new_execution(&self, caller: &Principal, tool: &Tool, arguments: JsonObject) -> NewExecution {
        NewExecution {
            id: ExecutionId::new(),
            tool_id: tool.id,
            tool: tool.spec.name.clone(),
            key_id: caller.key_id,
            arguments,
            idempotent: tool.spec.runs_twice(),
            trace_id: telemetry::context::current_trace_id(),
            lease_owner: self.0.replica.clone(),
            lease_expires_at: now() + LEASE,
        }
    }

    /// Starts the run's task; it belongs to the caller's trace.
    fn take_off(&self, flight: Flight, request: RunToolRequest) {
        let context = telemetry::context::current();
        let task = flight.fly(request).instrument(tracing::Span::current());
        self.0.tasks.spawn_graceful("execution", move |_stop| {
            telemetry::span::in_context(task, context)
        });
    }
}

impl Flight {
    async fn fly(self, request: RunToolRequest) {
        metrics::TOOL_EXECUTIONS_IN_FLIGHT.add(1.0, []);
        let (outcome, told) = match self.api.0.runner.run(request).await {
            Ok(run) => (self.follow(run).await, None),
            Err(status) => self.refused(&status),
        };
        let stored = self.store(&outcome).await;
        metrics::TOOL_EXECUTIONS_IN_FLIGHT.sub(1.0, []);
        let answer = match told {
            Some(error) => Err(error),
            None => stored.map(|execution| RunEvent::Finished(Box::new(execution))),
        };
        // The caller may have left; the outcome is stored all the same.
        let _ = self.events.send(answer).await;
    }

    /// Follows a run to its end, renewing the lease, until the caller leaves or the worker is given up.
    async fn follow(&self, mut run: Run) -> Outcome {
        let deadline =
            tokio::time::sleep(Duration::from_millis(u64::from(self.tool.spec.timeout_ms)) + GRACE);
        tokio::pin!(deadline);
        let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + RENEW, RENEW);
        loop {
            tokio::select! {
                told = run.next() => match told {
                    Ok(Told::Outcome(outcome)) => return outcome,
                    // A slow caller misses some progress; it never holds up the run.
                    Ok(Told::Progress(progress)) => drop(self.events.try_send(Ok(RunEvent::Progress(progress)))),
                    Err(status) => return self.lost("worker_lost", &format!("the worker was lost: {}", status.message())),
                },
                () = self.cancelled.cancelled() => return self.left(),
                () = &mut deadline => return self.lost("timeout", "the worker did not answer in time"),
                _ = renew.tick() => if let Err(StoreError::LeaseLost) = self.renew().await {
                    return self.lost("lease_lost", "another took the execution over");
                },
            }
        }
    }

    async fn renew(&self) -> crate::store::Result<()> {
        self.api
            .0
            .store
            .renew_lease(self.id, self.token, now() + LEASE)
            .await
    }

    /// The worker did not take the run up. It may have, when the way broke after the request had been sent.
    fn refused(&self, status: &tonic::Status) -> (Outcome, Option<Error>) {
        let reason = status.message();
        tracing::warn!(tool = self.tool.spec.name, code = ?status.code(), reason, "no worker took the run up");
        let outcome = if never_left(status) {
            ended(
                ExecutionStatus::Failed,
                "worker_unavailable",
                "no worker took the run up",
            )
        } else {
            self.lost("worker_lost", "the worker was lost as it was asked")
        };
        (outcome, Some(Error::Unavailable { what: "a worker" }))
    }

    /// The caller left.
    fn left(&self) -> Outcome {
        if self.tool.spec.runs_twice() {
            ended(ExecutionStatus::Cancelled, "cancelled", "the caller left")
        } else {
            ended(
                ExecutionStatus::OutcomeUnknown,
                "cancelled",
                "the caller left; the call may have had its effect",
            )
        }
    }

    fn lost(&self, code: &str, message: &str) -> Outcome {
        let status = if self.tool.spec.runs_twice() {
            ExecutionStatus::Failed
        } else {
            ExecutionStatus::OutcomeUnknown
        };
        ended(status, code, message)
    }

    /// Stores the outcome, trying again while the database is away.
    async fn store(&self, outcome: &Outcome) -> Result<Execution> {
        for attempt in 1.. {
            match self
                .api
                .0
                .store
                .finish_execution(self.id, self.token, outcome)
                .await
            {
                Ok(execution) => {
                    self.count(outcome);
                    return Ok(execution);
                }
                Err(StoreError::LeaseLost) => {
                    // Somebody else has ended it: what is stored is the truth.
                    return self
                        .api
                        .0
                        .store
                        .get_execution(self.tenant, self.id)
                        .await
                        .or_missing("execution");
                }
                Err(StoreError::Unavailable(_)) if attempt < STORE_ATTEMPTS => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Counted once, by whoever stored the outcome.
    fn count(&self, outcome: &Outcome) {
        let labels = [self.tool.spec.name.as_str(), outcome.status.as_str()];
        metrics::TOOL_EXECUTIONS.inc(labels);
        metrics::TOOL_EXECUTION_DURATION.record(self.started.elapsed().as_secs_f64(), labels);
    }
}

/// Whether a refused request certainly was not taken up: the worker said so itself, or was never reached.
fn never_left(status: &tonic::Status) -> bool {
    let first = std::error::Error::source(status);
    first.is_none() || std::iter::successors(first, |e| e.source()).any(|e| e.is::<tonic::ConnectError>())
}

fn ended(status: ExecutionStatus, code: &str, message: &str) -> Outcome {
    let error = ExecutionError {
        code: code.to_owned(),
        message: message.to_owned(),
    };
    Outcome {
        status,
        result: None,
        error: Some(error),
    }
}
