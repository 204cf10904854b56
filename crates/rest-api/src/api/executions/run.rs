//! A call that waits.

use super::{Ask, flight::Flight};
use crate::{
    api::Api,
    clock::now,
    error::{Error, Found, Result},
    store::{FIRST_TOKEN, Made, Start},
};
use domain::{
    ExecutionId, Principal, TenantId,
    execution::{Execution, ExecutionStatus},
    tool::{Tool, ToolOptions},
};
use proto::v1::{Progress, RunToolRequest};
use std::time::Duration;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

/// How long a waiting replica's lease holds unless it is renewed.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How many tidings of progress may wait for a slow caller; more are dropped.
const WAITING_EVENTS: usize = 32;

/// What a caller that waits is told.
#[derive(Debug)]
pub enum RunEvent {
    /// How far the run has come.
    Progress(Progress),
    /// The execution with its stored outcome, or as it stands when the tool's time is over or a person must approve it
    /// first; nothing follows.
    Finished(Box<Execution>),
}

/// A run that somebody waits for. Dropping it cancels what it began.
pub struct Waiting {
    events: mpsc::Receiver<Result<RunEvent>>,
    /// Begun by an earlier call with the same idempotency key.
    replayed: bool,
    options: ToolOptions,
    _cancel: Option<DropGuard>,
}

impl Waiting {
    /// What comes next; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<RunEvent>> {
        self.events.recv().await
    }

    /// Whether an earlier call with the same idempotency key had begun it.
    pub fn replayed(&self) -> bool {
        self.replayed
    }

    /// How the tool wants its results to be shown.
    pub fn options(&self) -> &ToolOptions {
        &self.options
    }

    /// Waits for the end, or for as long as the tool's time.
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

impl Api {
    /// Runs a tool. Needs `tools:execute`, or the scope of a tool of the product's own. The row is inserted before anything runs.
    pub async fn run_tool(&self, caller: &Principal, ask: Ask) -> Result<Waiting> {
        let until = Instant::now();
        let admitted = self.admit(caller, &ask).await?;
        let until = until + Duration::from_millis(admitted.tool.spec.timeout_ms.into());
        if admitted.to_approve {
            let made = self.put(caller, &ask, &admitted, Start::AwaitingApproval).await?;
            return Ok(match made {
                Made::New(execution) => told(execution, admitted.tool.spec.options),
                Made::Before(execution) => self.attend(execution, until, admitted.tool.spec.options),
            });
        }
        let start = Start::Leased {
            owner: self.0.replica.clone(),
            expires_at: now() + LEASE,
        };
        let new = self.new_execution(caller, &ask, &admitted, start);
        let sealed = admitted.sealed.as_ref();
        let credentials_json = sealed.map(|sealed| self.0.vault.unseal(sealed)).transpose()?;
        let request = RunToolRequest {
            execution_id: new.id.to_string(),
            tenant: caller.tenant.clone(),
            tool: Some(admitted.tool.clone().into()),
            arguments_json: admitted.arguments.clone(),
            credentials_json,
            built_in: admitted.caller.is_some(),
            caller: admitted.caller.clone(),
        };
        let made = self.0.store.create_execution(caller.tenant_id, &new).await;
        match made.or_missing("tool")? {
            Made::New(execution) => Ok(self.take_off(&execution, admitted.tool, until, request)),
            Made::Before(execution) => {
                self.require_own(caller, &execution).await?;
                Ok(self.attend(execution, until, admitted.tool.spec.options))
            }
        }
    }

    /// Starts the run's task; it belongs to the caller's trace. It goes on when the caller leaves, to end what it began and
    /// to store what became of it.
    fn take_off(
        &self,
        execution: &Execution,
        tool: Tool,
        until: Instant,
        request: RunToolRequest,
    ) -> Waiting {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let cancelled = CancellationToken::new();
        let options = tool.spec.options.clone();
        let flight = Flight {
            api: self.clone(),
            id: execution.id,
            tenant: execution.tenant_id,
            token: FIRST_TOKEN,
            tool,
            until,
            waiter: self.0.hub.waiter(execution.id),
            left: cancelled.clone(),
            events: sender,
        };
        let context = telemetry::context::current();
        let task = flight.fly(request).instrument(tracing::Span::current());
        self.0.tasks.spawn_graceful("execution", move |_stop| {
            telemetry::span::in_context(task, context)
        });
        Waiting {
            events,
            replayed: false,
            options,
            _cancel: Some(cancelled.drop_guard()),
        }
    }

    /// Waits for what an earlier call began, and changes nothing about it.
    fn attend(&self, execution: Execution, until: Instant, options: ToolOptions) -> Waiting {
        if !waits(execution.status) {
            return Waiting {
                replayed: true,
                ..told(execution, options)
            };
        }
        let (sender, events) = mpsc::channel(1);
        let (api, tenant, id) = (self.clone(), execution.tenant_id, execution.id);
        self.0.tasks.spawn("attend", async move {
            let end = tokio::select! {
                end = api.wait_for_end(tenant, id, until) => end,
                () = sender.closed() => return,
            };
            let _ = sender.send(end.map(|e| RunEvent::Finished(Box::new(e)))).await;
        });
        Waiting {
            events,
            replayed: true,
            options,
            _cancel: None,
        }
    }

    /// Waits until an execution is final, or waits for a person, or the time is over, or the service stops; answers it as
    /// it stands then.
    pub(super) async fn wait_for_end(
        &self,
        tenant: TenantId,
        id: ExecutionId,
        until: Instant,
    ) -> Result<Execution> {
        let mut waiter = self.0.hub.waiter(id);
        loop {
            let found = self.0.store.get_execution(tenant, id).await;
            let over = Instant::now() >= until || self.0.shutdown.is_cancelled();
            match found.or_missing("execution") {
                Ok(execution) if over || !waits(execution.status) => return Ok(execution),
                // The database may be back in time.
                Err(Error::Unavailable { .. }) if !over => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            tokio::select! {
                () = waiter.changed() => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.0.shutdown.cancelled() => {}
            }
        }
    }
}

/// Whether it is worth waiting for its end: it comes by itself.
fn waits(status: ExecutionStatus) -> bool {
    matches!(status, ExecutionStatus::Queued | ExecutionStatus::Running)
}

/// Nothing is to be waited for.
fn told(execution: Execution, options: ToolOptions) -> Waiting {
    let (sender, events) = mpsc::channel(1);
    // The channel has room for the one event there is.
    let _ = sender.try_send(Ok(RunEvent::Finished(Box::new(execution))));
    Waiting {
        events,
        replayed: false,
        options,
        _cancel: None,
    }
}
