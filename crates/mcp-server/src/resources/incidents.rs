//! `incidents://open`: what alerts are about now. `incident://{id}` and its postmortem: one of them.

use super::{JSON, Uri, knowledge::MARKDOWN};
use crate::{
    caller::{Caller, Upstream},
    error::Result,
    tools::{Call, view},
};
use domain::{IncidentId, Scope};
use proto::v1::{GetIncidentRequest, Incident, ListIncidentsRequest};
use rmcp::model::{Resource, ResourceContents};
use serde_json::{Value, json};

/// How many open incidents are shown.
const SHOWN: u32 = 50;

/// The one that is listed.
pub(super) fn list(caller: &Caller) -> Option<Resource> {
    caller.require(Scope::ContextsRead).ok()?;
    let resource = Resource::new(Uri::OPEN_INCIDENTS, "open incidents");
    Some(
        resource
            .with_description(
                "What alerts are about now, each with the context of its findings; subscribe to be told",
            )
            .with_mime_type(JSON),
    )
}

/// Those that are open, newest first.
pub(super) async fn open(call: Call<'_>) -> Result<ResourceContents> {
    let request = call.caller.request(ListIncidentsRequest {
        page: view::page(SHOWN, None),
        status: Some("firing".to_owned()),
    });
    let page = call.upstream.incidents.clone().list(request).await?.into_inner();
    let incidents = page.incidents.iter().map(shown).collect::<Result<Vec<_>>>()?;
    let value = json!({"incidents": incidents, "truncated": !page.next_cursor.is_empty()});
    Ok(ResourceContents::text(value.to_string(), Uri::OPEN_INCIDENTS).with_mime_type(JSON))
}

/// One of them.
pub(crate) async fn get(caller: &Caller, upstream: &Upstream, id: IncidentId) -> Result<Incident> {
    let request = caller.request(GetIncidentRequest { id: id.to_string() });
    Ok(upstream.incidents.clone().get(request).await?.into_inner())
}

/// One of them, open or not.
pub(super) async fn read(call: Call<'_>, id: IncidentId) -> Result<ResourceContents> {
    contents(&get(call.caller, call.upstream, id).await?)
}

/// An incident as a resource.
pub(crate) fn contents(incident: &Incident) -> Result<ResourceContents> {
    let uri = Uri::INCIDENTS.replace("{id}", &incident.id);
    Ok(ResourceContents::text(shown(incident)?.to_string(), uri).with_mime_type(JSON))
}

/// What it came to, as a draft.
pub(super) async fn postmortem(call: Call<'_>, id: IncidentId, uri: &str) -> Result<ResourceContents> {
    let request = call.caller.request(GetIncidentRequest { id: id.to_string() });
    let drafted = call
        .upstream
        .incidents
        .clone()
        .postmortem(request)
        .await?
        .into_inner();
    Ok(ResourceContents::text(drafted.markdown, uri).with_mime_type(MARKDOWN))
}

fn shown(incident: &Incident) -> Result<Value> {
    Ok(json!({
        "id": incident.id,
        "title": incident.title,
        "severity": incident.severity,
        "status": incident.status,
        "alerts": incident.alerts,
        "started_at": view::time(incident.started_at)?,
        "resolved_at": view::time(incident.resolved_at)?,
        "updated_at": view::time(incident.updated_at)?,
        "context": Uri::CONTEXTS.replace("{id}", &incident.context_id),
        "context_id": incident.context_id,
        "postmortem": Uri::POSTMORTEMS.replace("{id}", &incident.id),
    }))
}
