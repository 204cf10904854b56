//! A run in flight: handed to a worker directly, while its caller waits.

use super::{
    ended,
    run::{LEASE, RunEvent},
};
use crate::{
    api::Api,
    clock::now,
    error::{Error, Found, Result},
    metrics,
    queue::{Waiter, report::Ended},
    runner::{Run, Told},
    store::{HeldLease, StoreError},
};
use domain::{
    ExecutionId, TenantId,
    execution::{Execution, ExecutionError, ExecutionStatus, Outcome},
    tool::Tool,
};
use proto::v1::RunToolRequest;
use std::time::Duration;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// What a run may take beyond its tool's own time before the worker is given up.
const GRACE: Duration = Duration::from_secs(10);
/// How long storing an outcome is tried while the database is away: about as long as the lease may hold.
const STORE_FOR: Duration = LEASE;
/// How long its caller waits for that.
const CALLER_WAITS: Duration = Duration::from_secs(5);

/// What it needs to end well.
pub(super) struct Flight {
    pub(super) api: Api,
    pub(super) id: ExecutionId,
    pub(super) tenant: TenantId,
    pub(super) token: i64,
    pub(super) tool: Tool,
    /// How long the caller waits.
    pub(super) until: Instant,
    pub(super) waiter: Waiter,
    /// The caller left.
    pub(super) left: CancellationToken,
    pub(super) events: mpsc::Sender<Result<RunEvent>>,
}

/// How the flight ended.
enum Landing {
    /// By a word of the worker, or on purpose.
    Ended(Ended),
    /// The worker was lost: this is all that is known.
    Lost(&'static str),
    /// Another holds the execution by now.
    TakenOver,
}

impl Flight {
    pub(super) async fn fly(self, request: RunToolRequest) {
        metrics::TOOL_EXECUTIONS_IN_FLIGHT.add(1.0, []);
        let answer = self.run(request).await;
        metrics::TOOL_EXECUTIONS_IN_FLIGHT.sub(1.0, []);
        let answer = answer.map(|execution| RunEvent::Finished(Box::new(execution)));
        // The caller may have left; the outcome is stored all the same.
        let _ = self.events.send(answer).await;
    }

    async fn run(&self, request: RunToolRequest) -> Result<Execution> {
        let landing = match self.api.0.runner.run(request).await {
            Ok(run) => self.follow(run).await,
            Err(status) if never_left(&status) => return self.refused(&status).await,
            Err(status) => {
                tracing::warn!(
                    tool = self.tool.spec.name,
                    reason = status.message(),
                    "the worker was lost as it was asked"
                );
                Landing::Lost("the worker was lost as it was asked")
            }
        };
        let execution = self.store(&landing).await?;
        if execution.status.is_final() {
            return Ok(execution);
        }
        self.wait().await
    }

    /// Follows a run to its end, renewing the lease, until the caller leaves or the worker is given up.
    async fn follow(&self, mut run: Run) -> Landing {
        let deadline =
            tokio::time::sleep(Duration::from_millis(u64::from(self.tool.spec.timeout_ms)) + GRACE);
        tokio::pin!(deadline);
        // From when it was asked for, and the lease reckoned: the row, or the worker, may have been waited for since.
        let asked = self.until - Duration::from_millis(self.tool.spec.timeout_ms.into());
        let mut renew = tokio::time::interval_at((asked + RENEW).max(Instant::now()), RENEW);
        let mut progress = None;
        loop {
            tokio::select! {
                told = run.next() => match told {
                    Ok(Told::Ended(ended)) => return Landing::Ended(ended),
                    Ok(Told::Progress(told)) => {
                        progress = Some(told.message.clone()).filter(|message| !message.is_empty());
                        // A slow caller misses some progress; it never holds up the run.
                        drop(self.events.try_send(Ok(RunEvent::Progress(told))));
                    }
                    Err(status) => {
                        tracing::warn!(tool = self.tool.spec.name, reason = status.message(), "the worker was lost");
                        return Landing::Lost("the worker was lost");
                    }
                },
                () = self.left.cancelled() => return self.cancelled("the caller left"),
                () = self.waiter.cancelled() => return self.cancelled("it was cancelled"),
                () = &mut deadline => return Landing::Ended(self.late()),
                _ = renew.tick() => match self.renew(progress.clone()).await {
                    Renewal::Held => {}
                    Renewal::Cancelled => return self.cancelled("it was cancelled"),
                    Renewal::Lost => return Landing::TakenOver,
                },
            }
        }
    }

    async fn renew(&self, progress: Option<String>) -> Renewal {
        let held = HeldLease {
            id: self.id,
            token: self.token,
            progress,
        };
        match self.api.0.store.renew_leases(&[held], now() + LEASE).await {
            Ok(renewed) => match renewed.first() {
                Some(one) if one.lost => Renewal::Lost,
                Some(one) if one.cancel => Renewal::Cancelled,
                _ => Renewal::Held,
            },
            // The lease is long enough for another try.
            Err(_) => Renewal::Held,
        }
    }

    /// No worker took the run up, so nothing has left: the caller may try again.
    async fn refused(&self, status: &tonic::Status) -> Result<Execution> {
        let reason = status.message();
        tracing::warn!(tool = self.tool.spec.name, code = ?status.code(), reason, "no worker took the run up");
        let message = "no worker took the run up";
        let outcome = ended(ExecutionStatus::Failed, "worker_unavailable", message);
        self.store(&Landing::Ended(settled(outcome))).await?;
        Err(Error::Unavailable { what: "a worker" })
    }

    /// The run is dropped, and with it the worker's call. What may have had its effect is not known to be cancelled.
    fn cancelled(&self, why: &str) -> Landing {
        Landing::Ended(settled(if self.tool.spec.runs_twice() {
            ended(ExecutionStatus::Cancelled, "cancelled", why)
        } else {
            let message = format!("{why}; the call may have had its effect");
            ended(ExecutionStatus::OutcomeUnknown, "cancelled", &message)
        }))
    }

    fn late(&self) -> Ended {
        let status = if self.tool.spec.runs_twice() {
            ExecutionStatus::Failed
        } else {
            ExecutionStatus::OutcomeUnknown
        };
        Ended {
            outcome: ended(status, "timeout", "the worker did not answer in time"),
            transient: true,
            departed: true,
            retry_after: None,
        }
    }

    /// Stores how it landed, trying again while the database is away: what is not stored is not known when the lease ends.
    async fn store(&self, landing: &Landing) -> Result<Execution> {
        let (started, mut told) = (Instant::now(), false);
        loop {
            let stored = match landing {
                Landing::Ended(ended) if self.handed_back(ended) => {
                    self.api.hand_back(self.id, self.token, now()).await
                }
                Landing::Ended(ended) => self.api.end_attempt(self.id, self.token, ended.clone()).await,
                Landing::Lost(why) => self.store_loss(why).await,
                Landing::TakenOver => Err(StoreError::LeaseLost),
            };
            match stored {
                Ok(execution) => return Ok(execution),
                // Somebody else has ended it or taken it over: what is stored is the truth.
                Err(StoreError::LeaseLost) => {
                    let stored = self.api.0.store.get_execution(self.tenant, self.id).await;
                    return stored.or_missing("execution");
                }
                // Stored twice does no harm: the second time it is not the token's any more.
                Err(StoreError::Unavailable(_) | StoreError::InDoubt(_)) if started.elapsed() < STORE_FOR => {
                    if !told && started.elapsed() >= CALLER_WAITS {
                        told = true;
                        let away = Error::Unavailable { what: "the database" };
                        drop(self.events.try_send(Err(away)));
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the worker only stopped, and another may run it: that is no failure of the tool's.
    fn handed_back(&self, ended: &Ended) -> bool {
        let stopped = ended
            .outcome
            .error
            .as_ref()
            .is_some_and(|e| e.code == "worker_stopped");
        stopped && (self.tool.spec.runs_twice() || !ended.departed)
    }

    /// What is safe runs again, whatever the tool's policy says: nobody knows that it failed.
    async fn store_loss(&self, why: &str) -> crate::store::Result<Execution> {
        if self.tool.spec.runs_twice() {
            let error = ExecutionError {
                code: "worker_lost".to_owned(),
                message: why.to_owned(),
            };
            return self.api.try_again(self.id, self.token, now(), &error).await;
        }
        let message = format!("{why}; the call may have had its effect");
        let outcome = ended(ExecutionStatus::OutcomeUnknown, "worker_lost", &message);
        self.api.finish(self.id, self.token, &outcome).await
    }

    /// Waits for the attempts that follow, which any worker may make. Nobody needs them when the caller leaves.
    async fn wait(&self) -> Result<Execution> {
        tokio::select! {
            end = self.api.wait_for_end(self.tenant, self.id, self.until) => end,
            () = self.left.cancelled() => self.api.cancel(self.tenant, self.id).await,
        }
    }
}

enum Renewal {
    Held,
    Cancelled,
    Lost,
}

fn settled(outcome: Outcome) -> Ended {
    Ended {
        outcome,
        transient: false,
        departed: true,
        retry_after: None,
    }
}

/// Whether a refused request certainly was not taken up: the worker said so itself, or was never reached.
fn never_left(status: &tonic::Status) -> bool {
    let first = std::error::Error::source(status);
    first.is_none() || std::iter::successors(first, |e| e.source()).any(|e| e.is::<tonic::ConnectError>())
}
