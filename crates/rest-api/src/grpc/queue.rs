//! What waits, handed to workers.

use super::{Door, parse};
use crate::{
    clock,
    error::Error,
    queue::{LeaseStream, report::Ended},
    store::HeldLease,
};
use domain::{ExecutionId, Invalid, execution::Outcome};
use futures_util::{StreamExt as _, stream::BoxStream};
use proto::v1::{
    self, HeartbeatRequest, HeartbeatResponse, HeldRun, LeaseEvent, LeaseRequest, ReportRequest,
    ReportResponse, queue_server::Queue, report_request::What,
};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// The most runs that one heartbeat speaks of.
const MAX_HELD: usize = 10_000;
/// The longest name of a worker, bytes.
const MAX_NAME: usize = 200;

#[tonic::async_trait]
impl Queue for Door {
    type LeaseStream = BoxStream<'static, Result<LeaseEvent, Status>>;

    async fn lease(
        &self,
        request: Request<Streaming<LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        self.service(request.metadata())?;
        telemetry::recent::waits();
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        if !(1..=MAX_NAME).contains(&first.worker.len()) {
            let expected = format!("1 to {MAX_NAME} bytes in the first message");
            return Err(Error::from(Invalid::new("worker", expected)).into());
        }
        let events = LeaseStream::open(&self.api, first, requests);
        Ok(Response::new(events.map(Ok).boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        self.service(request.metadata())?;
        let runs = request.into_inner().runs;
        if runs.len() > MAX_HELD {
            let expected = format!("at most {MAX_HELD}");
            return Err(Error::from(Invalid::new("runs", expected)).into());
        }
        let held = runs.into_iter().map(held_run).collect::<Result<Vec<_>, _>>()?;
        let mut response = HeartbeatResponse::default();
        for renewed in self.api.heartbeat(&held).await? {
            if renewed.lost {
                response.lost.push(renewed.id.to_string());
            } else if renewed.cancel {
                response.cancel.push(renewed.id.to_string());
            }
        }
        Ok(Response::new(response))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.service(request.metadata())?;
        let report = request.into_inner();
        let (id, token) = held(report.held)?;
        let retry_after = report.retry_after_ms.map(Duration::from_millis);
        let stored = match report.what {
            Some(What::Outcome(outcome)) => {
                let ended = Ended {
                    outcome: Outcome::try_from(outcome).map_err(Error::from)?,
                    transient: report.transient,
                    departed: report.departed,
                    retry_after,
                };
                self.api.end_attempt(id, token, ended).await
            }
            Some(What::HandedBack(back)) => {
                let run_at = clock::ahead(Duration::from_millis(back.after_ms));
                self.api.hand_back(id, token, run_at).await
            }
            None => return Err(Error::from(Invalid::new("what", "an outcome, or handed_back")).into()),
        };
        let execution = stored.map_err(Error::from)?;
        Ok(Response::new(ReportResponse {
            status: execution.status.as_str().to_owned(),
        }))
    }
}

fn held(held: Option<v1::Held>) -> Result<(ExecutionId, i64), Error> {
    let held = held.ok_or_else(|| Invalid::new("held", "an execution and its token"))?;
    Ok((parse("held.execution_id", &held.execution_id)?, held.token))
}

fn held_run(run: HeldRun) -> Result<HeldLease, Error> {
    let (id, token) = held(run.held)?;
    Ok(HeldLease {
        id,
        token,
        progress: super::empty_is_none(Some(run.progress)),
    })
}
