//! One run, from its request to its outcome: a slot, the tool's time, and the account of it.

use crate::{
    metrics,
    outcome::{Code, Failure},
    progress::Reporter,
    settings::Settings,
    slots::Slots,
    tools::{Call, Tools},
};
use chassis::settings::Shutdown;
use domain::execution::{ExecutionStatus, Outcome};
use opentelemetry::Context;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Runs tools. Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    tools: Tools,
    slots: Slots,
    max_timeout: Duration,
    shutdown: CancellationToken,
    /// How long runs may go on after `shutdown`.
    patience: Duration,
}

impl Runner {
    /// Prepares the tools. Runs that are not over when most of the time for stopping is end with what is known of
    /// them, which a connection that is cut would not say.
    ///
    /// # Errors
    /// As [`Tools::new`].
    pub fn new(
        settings: &Settings,
        stopping: &Shutdown,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Inner {
            tools: Tools::new(&settings.outbound)?,
            slots: Slots::new(&settings.concurrency),
            max_timeout: settings.outbound.max_timeout,
            shutdown,
            patience: stopping.timeout.mul_f64(0.75),
        })))
    }

    /// Runs a tool to its end. Dropping the future ends the run, and closes what it holds open.
    pub async fn run(&self, call: Call, progress: &Reporter) -> Outcome {
        let span = telemetry::span::child(|| {
            tracing::info_span!(
                "execute_tool",
                otel.name = format!("execute_tool {}", call.tool.name),
                gen_ai.operation.name = "execute_tool",
                gen_ai.tool.name = call.tool.name,
                tenant.id = call.tenant,
                execution.id = %call.execution_id,
                execution.status = tracing::field::Empty,
                error.r#type = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
            )
        });
        let account = Account::open(&call);
        async {
            let attempt = tokio::select! {
                attempt = self.attempt(&call, progress) => attempt,
                () = self.last_call() => Err(Failure::new(Code::WorkerStopped, "the worker is stopping")),
            };
            let outcome = match attempt {
                Ok(result) => Outcome {
                    status: ExecutionStatus::Succeeded,
                    result: Some(result),
                    error: None,
                },
                Err(failure) => failure.into_outcome(call.may_have_acted()),
            };
            account.close(&outcome);
            outcome
        }
        .instrument(span)
        .await
    }

    async fn last_call(&self) {
        self.0.shutdown.cancelled().await;
        tokio::time::sleep(self.0.patience).await;
    }

    async fn attempt(&self, call: &Call, progress: &Reporter) -> Result<Value, Failure> {
        let _slot = self
            .0
            .slots
            .take(&call.tenant, || progress.report("waiting for a free slot"))
            .await?;
        let time = Duration::from_millis(call.tool.timeout_ms.into()).min(self.0.max_timeout);
        let run = self.0.tools.kind(call).run(call, progress);
        let late = |_| Failure::new(Code::Timeout, format!("not over within {} ms", time.as_millis()));
        tokio::time::timeout(time, run).await.map_err(late)?
    }
}

/// Counts a run and logs its end, also when its caller leaves: then it is dropped before it was closed.
struct Account<'a> {
    call: &'a Call,
    started: Instant,
    /// For the log line of a run that is dropped, which happens outside of its request.
    context: Context,
    closed: bool,
}

impl<'a> Account<'a> {
    fn open(call: &'a Call) -> Self {
        Self {
            call,
            started: Instant::now(),
            context: telemetry::context::current(),
            closed: false,
        }
    }

    fn close(mut self, outcome: &Outcome) {
        self.closed = true;
        self.write(
            outcome.status,
            outcome.error.as_ref().map(|error| error.code.as_str()),
        );
    }

    fn write(&self, status: ExecutionStatus, code: Option<&str>) {
        let (call, took, status) = (self.call, self.started.elapsed(), status.as_str());
        metrics::TOOL_RUNS.inc([&call.tool.name, status]);
        metrics::TOOL_RUN_DURATION.record(took.as_secs_f64(), [&call.tool.name]);
        let span = tracing::Span::current();
        span.record("execution.status", status);
        if let Some(code) = code {
            span.record("error.type", code);
            span.record("otel.status_code", "ERROR");
        }
        tracing::info!(
            tool = call.tool.name,
            execution_id = %call.execution_id,
            status,
            code,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "tool run ended"
        );
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if !self.closed {
            let _request = self.context.clone().attach();
            let status = Code::Cancelled.status(self.call.may_have_acted());
            self.write(status, Some(Code::Cancelled.as_str()));
        }
    }
}
