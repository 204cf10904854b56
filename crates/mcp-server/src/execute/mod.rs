//! Runs of registered tools. rest-api runs them in the caller's name, and keeps them: as executions.
//!
//! A client either waits ([`run`]: progress goes to it as it comes, and when it cancels or goes away, the call to rest-api
//! is dropped, which cancels the run), or it does tasks: then the run is queued ([`enqueue`]) and followed ([`follow`]),
//! and goes on whoever leaves.

mod shape;

pub(crate) use shape::{EXECUTION, limit, result};

use crate::{
    caller::{Caller, Upstream, in_time},
    error::{Error, Result},
};
use domain::{ExecutionId, JsonObject, Scope};
use proto::v1::{
    Execution, GetExecutionRequest, ListExecutionsRequest, ListExecutionsResponse, Progress,
    RunExecutionRequest, run_execution_event::Event,
};
use rmcp::{
    RoleServer,
    model::{ProgressNotificationParam, ProgressToken},
    service::Peer,
};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tonic::{
    Status, Streaming,
    metadata::{Ascii, MetadataValue},
};

/// How long the status of a finished run is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// Under which metadata key the SERVICE_TOKEN stands beside the caller's own credential: rest-api believes a
/// confirmation only from a service.
const SERVICE_TOKEN: &str = "devops-mcp-service-token";

/// A call of a registered tool, or of one of the product's own that workers run.
pub(crate) struct Run<'a> {
    /// The scope that it needs, where that is known here.
    pub(crate) scope: Option<Scope>,
    /// The tool's name.
    pub(crate) tool: &'a str,
    /// What it is called with.
    pub(crate) arguments: JsonObject,
    /// That a person agreed to it.
    pub(crate) confirmed: Option<Confirmed>,
}

/// That a person agreed to one call.
pub(crate) struct Confirmed {
    /// What makes rest-api believe it.
    pub(crate) token: MetadataValue<Ascii>,
    /// The same agreement shown again is the same run.
    pub(crate) idempotency_key: String,
}

impl Run<'_> {
    fn request(self, caller: &Caller) -> Result<tonic::Request<RunExecutionRequest>> {
        if let Some(scope) = self.scope {
            caller.require(scope)?;
        }
        if domain::validate::word("name", self.tool, 64).is_err() || !caller.principal.tools.allow(self.tool)
        {
            return Err(Error::UnknownTool(self.tool.to_owned()));
        }
        let mut request = caller.request(RunExecutionRequest {
            tool: self.tool.to_owned(),
            arguments_json: proto::convert::object_text(&self.arguments),
            ..Default::default()
        });
        if let Some(Confirmed {
            token,
            idempotency_key,
        }) = self.confirmed
        {
            request.metadata_mut().insert(SERVICE_TOKEN, token);
            request.get_mut().confirmed = true;
            request.get_mut().idempotency_key = Some(idempotency_key);
        }
        Ok(request)
    }
}

/// The catalogue here may be a moment behind: whether the tool exists is rest-api's to say.
fn unknown(tool: &str, error: Error) -> Error {
    match error {
        Error::Refused { not_found: true, .. } => Error::UnknownTool(tool.to_owned()),
        error => error,
    }
}

/// Runs the tool and waits: for its end, or until its time is over, or until a person must approve it.
pub(crate) async fn run(
    caller: &Caller,
    upstream: &Upstream,
    run: Run<'_>,
    reporter: &Reporter<'_>,
) -> Result<Execution> {
    let tool = run.tool;
    let request = run.request(caller)?;
    let events = upstream.executions.clone().run(request).await;
    let mut events = events
        .map_err(|status| unknown(tool, status.into()))?
        .into_inner();
    let mut began = false;
    loop {
        let event = events
            .message()
            .await
            .map_err(|status| unknown(tool, ended(status, began)))?;
        match event.and_then(|event| event.event) {
            Some(Event::Progress(progress)) => reporter.report(progress).await,
            Some(Event::Execution(execution)) => {
                // The status follows the last message; dropping the stream before it would count as a cancellation.
                let _ = tokio::time::timeout(GRACE, events.message()).await;
                return Ok(execution);
            }
            None => return Err(Error::Lost),
        }
        began = true;
    }
}

/// Once a run has begun, the loss of rest-api leaves its outcome open.
fn ended(status: Status, began: bool) -> Error {
    let told = status.metadata().contains_key(proto::CODE_KEY);
    match Error::from(status) {
        Error::Unavailable(_) if began && !told => Error::Lost,
        error => error,
    }
}

/// Queues a run.
pub(crate) async fn enqueue(caller: &Caller, upstream: &Upstream, run: Run<'_>) -> Result<Execution> {
    let tool = run.tool;
    let request = run.request(caller)?;
    let mut client = upstream.executions.clone();
    let queued = in_time(async { Ok(client.enqueue(request).await?.into_inner()) }).await;
    queued.map_err(|error| unknown(tool, error))
}

/// An execution as it stands.
pub(crate) async fn get(caller: &Caller, upstream: &Upstream, id: ExecutionId) -> Result<Execution> {
    let request = caller.request(GetExecutionRequest { id: id.to_string() });
    in_time(async { Ok(upstream.executions.clone().get(request).await?.into_inner()) }).await
}

/// An execution as it stands, then every change of it, until it is over.
pub(crate) async fn follow(caller: &Caller, upstream: &Upstream, id: &str) -> Result<Streaming<Execution>> {
    let request = caller.request(GetExecutionRequest { id: id.to_owned() });
    in_time(async { Ok(upstream.executions.clone().follow(request).await?.into_inner()) }).await
}

/// Has an execution end.
pub(crate) async fn cancel(caller: &Caller, upstream: &Upstream, id: &str) -> Result<Execution> {
    let request = caller.request(GetExecutionRequest { id: id.to_owned() });
    in_time(async { Ok(upstream.executions.clone().cancel(request).await?.into_inner()) }).await
}

/// A page of the caller's executions, the newest first.
pub(crate) async fn list(
    caller: &Caller,
    upstream: &Upstream,
    limit: u32,
    cursor: Option<String>,
) -> Result<ListExecutionsResponse> {
    let request = caller.request(ListExecutionsRequest {
        page: crate::tools::view::page(limit, cursor),
        ..Default::default()
    });
    in_time(async { Ok(upstream.executions.clone().list(request).await?.into_inner()) }).await
}

/// Where a run's progress goes.
pub(crate) struct Reporter<'a> {
    peer: &'a Peer<RoleServer>,
    token: Option<ProgressToken>,
    told: AtomicU32,
}

impl<'a> Reporter<'a> {
    /// To `peer`, which calls this run `token`; without one it does not want to know.
    pub(crate) fn new(peer: &'a Peer<RoleServer>, token: Option<ProgressToken>) -> Self {
        Self {
            peer,
            token,
            told: AtomicU32::new(0),
        }
    }

    async fn report(&self, progress: Progress) {
        let Some(token) = self.token.clone() else { return };
        let mut param = ProgressNotificationParam::new(token, progress.progress);
        param.total = progress.total;
        param.message = Some(progress.message).filter(|message| !message.is_empty());
        if let Err(error) = self.peer.notify_progress(param).await {
            tracing::debug!(%error, "progress was not delivered");
        }
    }

    /// Tells the words of a progress whose numbers are not known: it counts them, for progress must grow.
    pub(crate) async fn say(&self, message: String) {
        let progress = f64::from(self.told.fetch_add(1, Ordering::Relaxed) + 1);
        self.report(Progress {
            progress,
            total: None,
            message,
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losing_rest_api_in_a_run_leaves_the_outcome_open() {
        assert_eq!(ended(Status::unavailable("gone"), true), Error::Lost);
        assert_eq!(ended(Status::unavailable("gone"), false).code(), "unavailable");
    }
}
