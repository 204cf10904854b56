//! One leased run, from its slot to its report.

use super::{Queue, held::Holding, report};
use crate::{
    grpc,
    outcome::{Code, Ended, Failure},
    progress::{self, Reporter},
    tools::Call,
};
use http::{HeaderMap, HeaderValue};
use opentelemetry::KeyValue;
use proto::v1::{HandedBack, LeasedRun, ReportRequest, report_request::What};
use std::time::SystemTime;
use telemetry::{
    context::{self, Context},
    span::{self, Open},
};

/// How long a run that found no slot waits for its next turn, milliseconds; spread, so that not all come back together.
const CROWDED_MS: std::ops::RangeInclusive<u64> = 250..=1_000;

/// What became of a run here.
enum Became {
    Ended(Ended),
    /// It did not begin, and may in so many milliseconds.
    HandedBack(u64),
}

/// Runs it and reports, unless its lease is lost before.
pub(super) async fn run(queue: Queue, leased: LeasedRun, holding: Holding) {
    let origin = origin(&leased.traceparent);
    let (became, context) = tokio::select! {
        biased;
        () = holding.lost() => {
            tracing::warn!(execution_id = holding.id(), "the lease was lost: the run is stopped and not reported");
            return;
        }
        became = execute(&queue, leased, &holding, &origin) => became,
    };
    let report = message(&holding, became);
    span::in_context(report::deliver(&queue, &holding, report), context).await;
}

/// In a trace of its own, linked to the one that enqueued it; the context is that trace's.
async fn execute(queue: &Queue, leased: LeasedRun, holding: &Holding, origin: &Context) -> (Became, Context) {
    let call = match call(leased) {
        Ok(call) => call,
        Err(failure) => {
            let ended = Ended::new(Err(failure), false, false, SystemTime::now());
            return (Became::Ended(ended), context::current());
        }
    };
    let root = span::linked(origin, format!("execute_tool {}", call.tool.name), || {
        vec![
            KeyValue::new("gen_ai.operation.name", "execute_tool"),
            KeyValue::new("gen_ai.tool.name", call.tool.name.clone()),
            KeyValue::new("execution.id", call.execution_id.to_string()),
            KeyValue::new("execution.attempt", i64::from(call.attempt.unwrap_or_default())),
        ]
    });
    let (reporter, mut reports) = progress::channel();
    let work = root.run(async {
        context::set_tenant(&call.tenant);
        begin(queue, &call, holding, &reporter).await
    });
    let mut work = std::pin::pin!(work);
    let became = loop {
        tokio::select! {
            biased;
            Some(report) = reports.recv() => holding.progress(report.message),
            became = &mut work => break became,
        }
    };
    note(&root, &became);
    (became, root.context().clone())
}

/// Waits for a slot and runs. What has not begun when the worker stops is another's to begin.
async fn begin(queue: &Queue, call: &Call, holding: &Holding, progress: &Reporter) -> Became {
    let runner = &queue.0.runner;
    let slot = tokio::select! {
        biased;
        () = queue.0.stopping.cancelled() => return Became::HandedBack(0),
        () = holding.cancelled() => {
            let failure = Failure::new(Code::Cancelled, "the caller cancelled it before it began");
            return Became::Ended(Ended::new(Err(failure), false, false, SystemTime::now()));
        }
        slot = runner.slot(&call.tenant, || progress.report("waiting for a free slot")) => slot,
    };
    match slot {
        Ok(slot) if holding.is_sure() => {
            let ended = runner.run_in(slot, call, progress, holding.cancelled()).await;
            if was_stopped(&ended) && (call.tool.runs_twice() || !ended.departed) {
                // It is nobody's failure, and safe: another worker runs it at once, and it costs no attempt.
                return Became::HandedBack(0);
            }
            Became::Ended(ended)
        }
        Ok(_) => Became::HandedBack(0),
        Err(_) => Became::HandedBack(rand::random_range(CROWDED_MS)),
    }
}

fn was_stopped(ended: &Ended) -> bool {
    let error = ended.outcome.error.as_ref();
    error.is_some_and(|error| error.code == Code::WorkerStopped.as_str())
}

fn call(leased: LeasedRun) -> Result<Call, Failure> {
    let invalid = |message: String| Failure::new(Code::InvalidTool, message);
    let run = leased
        .run
        .ok_or_else(|| invalid("there is nothing to run".to_owned()))?;
    let mut call = grpc::call(run).map_err(|error| invalid(error.to_string()))?;
    call.attempt = Some(leased.attempt);
    if leased.timeout_ms > 0 {
        call.tool.timeout_ms = call.tool.timeout_ms.min(leased.timeout_ms);
    }
    Ok(call)
}

/// The trace that enqueued the run, where it was in one.
fn origin(traceparent: &str) -> Context {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        headers.insert("traceparent", value);
    }
    telemetry::propagate::extract(&headers)
}

fn note(root: &Open, became: &Became) {
    match became {
        Became::Ended(ended) => {
            root.set("execution.status", ended.outcome.status.as_str());
            if let Some(error) = &ended.outcome.error {
                root.fail(error.code.clone());
            }
        }
        Became::HandedBack(_) => root.set("execution.status", "handed_back"),
    }
}

fn message(holding: &Holding, became: Became) -> ReportRequest {
    let held = Some(holding.message());
    match became {
        Became::Ended(ended) => ReportRequest {
            held,
            transient: ended.transient,
            departed: ended.departed,
            retry_after_ms: ended.retry_after_ms(),
            what: Some(What::Outcome(ended.outcome.into())),
        },
        Became::HandedBack(after_ms) => ReportRequest {
            held,
            what: Some(What::HandedBack(HandedBack { after_ms })),
            ..ReportRequest::default()
        },
    }
}
