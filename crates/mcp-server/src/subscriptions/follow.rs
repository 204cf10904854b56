//! One resource, followed through whatever becomes of the stream that tells of it.

use super::Counted;
use crate::{
    caller::{Caller, Upstream},
    error::{Error, Result},
    resources::Uri,
};
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use proto::v1::{
    Execution, GetContextRequest, GetExecutionRequest, ListIncidentsResponse, WatchIncidentsRequest,
};
use std::{sync::Arc, time::Duration};
use tonic::{Code, Status};

/// The first and the longest pause before a stream is opened anew. An execution's ends when nothing more is to come;
/// that it was run again is noticed after the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What tells one state from the next.
type Mark = String;

/// A followed resource.
pub(crate) struct Follow {
    upstream: Upstream,
    caller: Arc<Caller>,
    uri: Uri,
    marks: BoxStream<'static, std::result::Result<Mark, Status>>,
    known: Mark,
    pause: Duration,
    _counted: Counted,
}

/// What became of it.
enum News {
    Changed,
    Gone,
    /// The caller may not see it any more.
    Refused,
}

impl Follow {
    /// Begins with the state as it is now.
    pub(super) async fn begin(
        upstream: Upstream,
        caller: Arc<Caller>,
        uri: Uri,
        counted: Counted,
    ) -> Result<Self> {
        let mut marks = open(&upstream, &caller, uri);
        let ended = || Error::Unavailable("rest-api ended the subscription; try again".to_owned());
        let known = marks.try_next().await?.ok_or_else(ended)?;
        Ok(Self {
            upstream,
            caller,
            uri,
            marks,
            known,
            pause: FIRST_PAUSE,
            _counted: counted,
        })
    }

    /// An item for every change, the resource's end included, which is the last; ends without one when the caller may
    /// not see it any more.
    pub(crate) fn changes(self) -> BoxStream<'static, ()> {
        let next = async |follow: Option<Self>| {
            let mut follow = follow?;
            match follow.news().await {
                News::Changed => Some(((), Some(follow))),
                News::Gone => Some(((), None)),
                News::Refused => None,
            }
        };
        stream::unfold(Some(self), next).boxed()
    }

    async fn news(&mut self) -> News {
        loop {
            match self.marks.next().await {
                Some(Ok(mark)) if mark == self.known => continue,
                Some(Ok(mark)) => {
                    self.known = mark;
                    self.pause = FIRST_PAUSE;
                    return News::Changed;
                }
                Some(Err(status)) => match status.code() {
                    Code::NotFound => return News::Gone,
                    Code::Unauthenticated | Code::PermissionDenied => return News::Refused,
                    code => tracing::debug!(?code, "a resource's stream was lost"),
                },
                None => {}
            }
            tokio::time::sleep(self.pause).await;
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            self.marks = open(&self.upstream, &self.caller, self.uri);
        }
    }
}

/// The resource's states, from the one that it is in.
fn open(
    upstream: &Upstream,
    caller: &Caller,
    uri: Uri,
) -> BoxStream<'static, std::result::Result<Mark, Status>> {
    let upstream = upstream.clone();
    match uri {
        Uri::Context(id) => {
            let request = caller.request(GetContextRequest { id: id.to_string() });
            let opened = async move { upstream.contexts.clone().watch(request).await };
            let stream = stream::once(opened).map_ok(tonic::Response::into_inner);
            stream
                .try_flatten()
                .map_ok(|context| context.version.to_string())
                .boxed()
        }
        Uri::Execution(id) | Uri::Result(id, _) => {
            let request = caller.request(GetExecutionRequest { id: id.to_string() });
            let opened = async move { upstream.executions.clone().follow(request).await };
            let stream = stream::once(opened).map_ok(tonic::Response::into_inner);
            stream.try_flatten().map_ok(|execution| mark(&execution)).boxed()
        }
        Uri::OpenIncidents => {
            let request = caller.request(WatchIncidentsRequest {});
            let opened = async move { upstream.incidents.clone().watch(request).await };
            let stream = stream::once(opened).map_ok(tonic::Response::into_inner);
            stream.try_flatten().map_ok(|list| incidents(&list)).boxed()
        }
        // Only what changes is followed.
        _ => stream::once(async { Err(Status::not_found("it does not change")) }).boxed(),
    }
}

fn incidents(list: &ListIncidentsResponse) -> Mark {
    let state = |incident: &proto::v1::Incident| {
        let updated = incident.updated_at.unwrap_or_default();
        format!("{} {}.{}", incident.id, updated.seconds, updated.nanos)
    };
    list.incidents.iter().map(state).collect::<Vec<_>>().join(" ")
}

fn mark(execution: &Execution) -> Mark {
    let Execution {
        status,
        attempts,
        cancel_requested,
        progress,
        ..
    } = execution;
    format!(
        "{status} {attempts} {cancel_requested} {}",
        progress.as_deref().unwrap_or_default()
    )
}
