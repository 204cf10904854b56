//! Incidents: read, and followed while they are open.

use super::{Door, empty_is_none, parse};
use crate::error::Error;
use domain::{
    IncidentId,
    incident::{Incident, IncidentStatus},
    page::{MAX_LIMIT, Page, PageRequest},
};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use proto::{
    convert::{PageOf, timestamp},
    v1::{self, incidents_server::Incidents},
};
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tonic::{Request, Response, Status, metadata::MetadataMap};

/// How often open incidents are looked at when nothing is heard of them: hints may be lost.
const SWEEP: Duration = Duration::from_secs(5);
/// The least time between two states that a watcher is told.
const PAUSE: Duration = Duration::from_millis(100);

fn message(incident: Incident) -> v1::Incident {
    let summary = incident.summary;
    v1::Incident {
        id: incident.id.to_string(),
        context_id: incident.context_id.to_string(),
        title: summary.title,
        severity: summary.severity,
        status: summary.status.as_str().to_owned(),
        alerts: summary.alerts,
        started_at: Some(timestamp(summary.started_at)),
        resolved_at: summary.resolved_at.map(timestamp),
        updated_at: Some(timestamp(incident.updated_at)),
    }
}

fn listing(page: Page<Incident>) -> v1::ListIncidentsResponse {
    v1::ListIncidentsResponse {
        incidents: page.items.into_iter().map(message).collect(),
        next_cursor: page.next_cursor.unwrap_or_default(),
    }
}

/// The newest open incidents as they stand, then as often as they change. The caller is verified anew each time: a revoked
/// key sees no more.
fn states(door: Door, caller: MetadataMap) -> impl Stream<Item = Result<v1::ListIncidentsResponse, Status>> {
    async_stream::try_stream! {
        let tenant = door.caller(&caller).await?.tenant_id;
        let mut changes = door.api.changes().of_incidents(tenant);
        let first = PageRequest::new(Some(MAX_LIMIT), None);
        let mut shown = None;
        loop {
            let firing = Some(IncidentStatus::Firing);
            let page = door.api.list_incidents(&*door.caller(&caller).await?, firing, &first).await?;
            let versions: Vec<_> = page.items.iter().map(|one| (one.id, one.version)).collect();
            if shown.as_ref() != Some(&versions) {
                shown = Some(versions);
                yield listing(page);
                tokio::time::sleep(PAUSE).await;
                // What came in the meantime is seen by the next look.
                while !matches!(changes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
                continue;
            }
            if let Ok(Err(RecvError::Closed)) = tokio::time::timeout(SWEEP, changes.recv()).await {
                tokio::time::sleep(SWEEP).await;
            }
        }
    }
}

#[tonic::async_trait]
impl Incidents for Door {
    async fn list(
        &self,
        request: Request<v1::ListIncidentsRequest>,
    ) -> Result<Response<v1::ListIncidentsResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.into_inner();
        let status = empty_is_none(r.status).map(|s| s.parse()).transpose();
        let (status, page) = (status.map_err(Error::from)?, PageOf::from(r.page).0);
        let listed = self.api.list_incidents(&caller, status, &page).await?;
        Ok(Response::new(listing(listed)))
    }

    async fn get(&self, request: Request<v1::GetIncidentRequest>) -> Result<Response<v1::Incident>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let id: IncidentId = parse("id", &request.get_ref().id)?;
        Ok(Response::new(message(self.api.get_incident(&caller, id).await?)))
    }

    async fn postmortem(
        &self,
        request: Request<v1::GetIncidentRequest>,
    ) -> Result<Response<v1::PostmortemResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let id: IncidentId = parse("id", &request.get_ref().id)?;
        let markdown = self.api.postmortem(&caller, id).await?;
        Ok(Response::new(v1::PostmortemResponse { markdown }))
    }

    type WatchStream = BoxStream<'static, Result<v1::ListIncidentsResponse, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchIncidentsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        telemetry::recent::waits();
        // Whoever may not see them is told at once, and makes no listener.
        let one = PageRequest::new(Some(1), None);
        self.api.list_incidents(&caller, None, &one).await?;
        let states = states(self.clone(), request.into_parts().0);
        let until = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(states.take_until(until).boxed()))
    }
}
