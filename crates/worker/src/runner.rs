//! One run, from its request to its outcome: a slot, the tool's time, and the account of it.

use crate::{
    metrics,
    outcome::{Code, Ended, Failure},
    progress::Reporter,
    settings::Settings,
    slots::{Slot, Slots},
    tools::{Call, Document, Listing, Server, Tools},
};
use chassis::settings::Shutdown;
use domain::execution::ExecutionStatus;
use opentelemetry::Context;
use proto::v1;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use telemetry::recent::{self, Description, Entry};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Runs tools. Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    tools: Tools,
    slots: Slots,
    max_timeout: Duration,
    max_document_bytes: u64,
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
            tools: Tools::new(settings)?,
            slots: Slots::new(&settings.concurrency),
            max_timeout: settings.outbound.max_timeout,
            max_document_bytes: settings.outbound.max_document_bytes as u64,
            shutdown,
            patience: stopping.timeout.mul_f64(0.75),
        })))
    }

    /// Runs a tool to its end, once a slot is free. Dropping the future ends the run, and closes what it holds open.
    pub async fn run(&self, call: Call, progress: &Reporter) -> Ended {
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
        let attempt = async {
            let waiting = || progress.report("waiting for a free slot");
            let _slot = self.slot(&call.tenant, waiting).await?;
            self.attempt(&call, progress).await
        };
        self.account(&call, attempt).instrument(span).await
    }

    /// Runs a tool that has its slot already, to its end or until `cancelled`, in the span of whoever calls.
    pub async fn run_in(
        &self,
        slot: Slot,
        call: &Call,
        progress: &Reporter,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Ended {
        let attempt = async {
            let _slot = slot;
            tokio::select! {
                biased;
                () = cancelled => Err(Failure::new(Code::Cancelled, "the caller cancelled it")),
                result = self.attempt(call, progress) => result,
            }
        };
        self.account(call, attempt).await
    }

    /// A slot for a run of a tenant.
    ///
    /// # Errors
    /// As [`Slots::take`].
    pub async fn slot(&self, tenant: &str, waiting: impl FnOnce() + Send) -> Result<Slot, Failure> {
        self.0.slots.take(tenant, waiting).await
    }

    /// Asks for a document of at most `max_bytes`; 0: as large as the settings allow.
    ///
    /// # Errors
    /// As [`Tools::document`].
    pub async fn document(&self, url: &str, max_bytes: u64) -> Result<Document, Failure> {
        let limit = match max_bytes {
            0 => self.0.max_document_bytes,
            bytes => bytes.min(self.0.max_document_bytes),
        };
        self.0.tools.document(url, limit).await
    }

    /// As [`Tools::circuits`].
    pub fn circuits(&self) -> Vec<([String; 1], f64)> {
        self.0.tools.circuits()
    }

    /// Asks another MCP server for its tools, in one of the tenant's slots and by `deadline`.
    ///
    /// # Errors
    /// As [`Tools::list_upstream`], and those of [`Runner::slot`] and [`Runner::bounded`].
    pub async fn list_upstream(
        &self,
        deadline: tokio::time::Instant,
        server: &Server<'_>,
    ) -> Result<Listing, Failure> {
        let work = async {
            let _slot = self.slot(server.tenant, || ()).await?;
            self.0.tools.list_upstream(server).await
        };
        self.bounded(deadline, work).await
    }

    /// Does `work` by `deadline` and before the worker must stop.
    ///
    /// # Errors
    /// [`Code::Timeout`], [`Code::WorkerStopped`], and those of `work`.
    pub async fn bounded<T>(
        &self,
        deadline: tokio::time::Instant,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = tokio::time::timeout_at(deadline, work) => {
                done.map_err(|_| Failure::new(Code::Timeout, "not over in time"))?
            }
            () = self.last_call() => Err(stopped()),
        }
    }

    /// The product's own tools that somebody may call here.
    pub fn manifest(&self) -> Vec<v1::BuiltInTool> {
        self.0.tools.manifest()
    }

    /// How long anything may take, whoever asks.
    pub fn max_time(&self) -> Duration {
        self.0.max_timeout
    }

    async fn account(
        &self,
        call: &Call,
        attempt: impl Future<Output = Result<Value, Failure>> + Send,
    ) -> Ended {
        let account = Account::open(call);
        let result = tokio::select! {
            result = attempt => result,
            () = self.last_call() => Err(stopped()),
        };
        let (departed, runs_twice) = (call.departed.is_raised(), call.tool.runs_twice());
        let ended = Ended::new(result, departed, runs_twice, SystemTime::now());
        account.close(&ended);
        ended
    }

    async fn last_call(&self) {
        self.0.shutdown.cancelled().await;
        tokio::time::sleep(self.0.patience).await;
    }

    async fn attempt(&self, call: &Call, progress: &Reporter) -> Result<Value, Failure> {
        let time = Duration::from_millis(call.tool.timeout_ms.into()).min(self.0.max_timeout);
        let run = self.0.tools.kind(call).run(call, progress);
        let late = |_| Failure::new(Code::Timeout, format!("not over within {} ms", time.as_millis()));
        tokio::time::timeout(time, run).await.map_err(late)?
    }
}

fn stopped() -> Failure {
    Failure::new(Code::WorkerStopped, "the worker is stopping")
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
        let context = telemetry::context::current();
        recent::claim(&context);
        Self {
            call,
            started: Instant::now(),
            context,
            closed: false,
        }
    }

    fn close(mut self, ended: &Ended) {
        self.closed = true;
        let error = ended.outcome.error.as_ref();
        self.write(ended.outcome.status, error.map(|error| error.code.as_str()));
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
            attempt = call.attempt,
            status,
            code,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "tool run ended"
        );
        let nobodys = [Code::Cancelled.as_str(), Code::WorkerStopped.as_str()];
        let failed = code.is_some_and(|code| !nobodys.contains(&code));
        recent::finished(&self.context, failed, || Description {
            kind: Entry::Execution,
            name: format!("execute_tool {}", call.tool.name),
            status: code.unwrap_or(status).to_owned().into(),
            key_id: None,
        });
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
