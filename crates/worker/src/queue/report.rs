//! Brings a report to rest-api. An outcome is precious: what a call did that must not be repeated is known here alone.

use super::{Queue, backoff::Backoff, held::Holding};
use crate::metrics;
use proto::v1::{ReportRequest, report_request::What};
use std::time::Duration;
use tonic::{Code, Status};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);
/// How long a report is tried. Long after its lease: if nobody took the run over, its outcome is as good as new.
const PATIENCE: Duration = Duration::from_secs(600);

/// How a try, or all of them, went.
enum Told {
    Accepted,
    /// The run is another's by now, or gone; or the report was heard before, and the answer was lost.
    Lost,
    /// It will never be accepted.
    Refused(Status),
    /// It may be accepted yet.
    Failed(Status),
}

impl Told {
    fn result(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Lost => "lost",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "retried",
        }
    }
}

/// Reports until rest-api has it, or says that the run is another's.
pub(super) async fn deliver(queue: &Queue, holding: &Holding, report: ReportRequest) {
    let what = match report.what {
        Some(What::HandedBack(_)) => "handed_back",
        _ => "outcome",
    };
    let told = tokio::select! {
        told = tokio::time::timeout(PATIENCE, insist(queue, holding, &report, what)) => told.ok(),
        () = queue.last_call() => None,
    };
    metrics::REPORTS.inc([what, told.as_ref().map_or("given_up", Told::result)]);
    let problem = match told {
        Some(Told::Accepted) => return,
        Some(Told::Lost) => {
            tracing::warn!(
                execution_id = holding.id(),
                what,
                "a report came too late: the run is another's, or it was heard before"
            );
            return;
        }
        Some(Told::Refused(status) | Told::Failed(status)) => status.message().to_owned(),
        None => "nobody heard it in time".to_owned(),
    };
    tracing::error!(execution_id = holding.id(), what, problem, "a report is lost");
}

/// Tries again and again.
async fn insist(queue: &Queue, holding: &Holding, report: &ReportRequest, what: &'static str) -> Told {
    let mut backoff = Backoff::new();
    loop {
        let told = once(queue, report).await;
        let Told::Failed(status) = told else {
            return told;
        };
        metrics::REPORTS.inc([what, "retried"]);
        tracing::debug!(
            execution_id = holding.id(),
            what,
            error = status.message(),
            "a report failed"
        );
        tokio::time::sleep(backoff.wait()).await;
        // Asked only now: while a report is on its way, its being heard looks the same to a heartbeat.
        if holding.is_lost() {
            return Told::Lost;
        }
    }
}

async fn once(queue: &Queue, report: &ReportRequest) -> Told {
    let request = match queue.request(report.clone()) {
        Ok(request) => request,
        Err(status) => return Told::Refused(status),
    };
    let mut client = queue.0.client.clone();
    match tokio::time::timeout(TRY, client.report(request)).await {
        Ok(Ok(_)) => Told::Accepted,
        Ok(Err(status)) => judge(status),
        Err(_) => Told::Failed(Status::deadline_exceeded("rest-api takes too long")),
    }
}

fn judge(status: Status) -> Told {
    let told = status.metadata().get(proto::CODE_KEY);
    match status.code() {
        Code::Aborted if told.is_some_and(|code| code == "lease_lost") => Told::Lost,
        // The execution is gone: its tenant was, or it was kept long enough.
        Code::NotFound if told.is_some() => Told::Lost,
        Code::InvalidArgument | Code::OutOfRange => Told::Refused(status),
        _ => Told::Failed(status),
    }
}
