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

/// How a try went.
enum Tried {
    Accepted,
    /// The run is another's by now, or gone.
    Lost,
    /// It will never be accepted.
    Refused(Status),
    /// It may be accepted yet.
    Failed(Status),
}

/// Reports until rest-api has it, or says that the run is another's.
pub(super) async fn deliver(queue: &Queue, holding: &Holding, report: ReportRequest) {
    let what = match report.what {
        Some(What::HandedBack(_)) => "handed_back",
        _ => "outcome",
    };
    let result = tokio::select! {
        result = tokio::time::timeout(PATIENCE, insist(queue, holding, &report, what)) => result.ok(),
        () = queue.last_call() => None,
    };
    if result.is_none() {
        tracing::error!(
            execution_id = holding.id(),
            what,
            "a report could not be brought to rest-api"
        );
    }
    metrics::REPORTS.inc([what, result.unwrap_or("given_up")]);
}

/// Tries again and again; gives the word for how it ended.
async fn insist(
    queue: &Queue,
    holding: &Holding,
    report: &ReportRequest,
    what: &'static str,
) -> &'static str {
    let mut backoff = Backoff::new();
    loop {
        let status = match once(queue, report).await {
            Tried::Accepted => return "accepted",
            Tried::Lost => {
                tracing::warn!(
                    execution_id = holding.id(),
                    what,
                    "a report came too late: the run is another's"
                );
                return "lost";
            }
            Tried::Refused(status) => {
                tracing::error!(execution_id = holding.id(), what, code = ?status.code(), error = status.message(), "a report was refused");
                return "refused";
            }
            Tried::Failed(status) => status,
        };
        metrics::REPORTS.inc([what, "retried"]);
        tracing::debug!(execution_id = holding.id(), what, code = ?status.code(), error = status.message(), "a report failed");
        tokio::time::sleep(backoff.wait()).await;
        if holding.is_lost() {
            tracing::warn!(
                execution_id = holding.id(),
                what,
                "the lease was lost before its report was accepted"
            );
            return "lost";
        }
    }
}

async fn once(queue: &Queue, report: &ReportRequest) -> Tried {
    let request = match queue.request(report.clone()) {
        Ok(request) => request,
        Err(status) => return Tried::Refused(status),
    };
    let mut client = queue.0.client.clone();
    match tokio::time::timeout(TRY, client.report(request)).await {
        Ok(Ok(_)) => Tried::Accepted,
        Ok(Err(status)) => judge(status),
        Err(_) => Tried::Failed(Status::deadline_exceeded("rest-api takes too long")),
    }
}

fn judge(status: Status) -> Tried {
    let told = status.metadata().get(proto::CODE_KEY);
    match status.code() {
        Code::Aborted if told.is_some_and(|code| code == "lease_lost") => Tried::Lost,
        // The execution is gone: its tenant was, or it was kept long enough.
        Code::NotFound if told.is_some() => Tried::Lost,
        Code::InvalidArgument | Code::OutOfRange => Tried::Refused(status),
        _ => Tried::Failed(status),
    }
}
