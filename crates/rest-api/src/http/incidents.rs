//! `/incidents`: what alerts came to.

use super::{Answer, Caller, Json, Listing, Path, Query};
use crate::api::Api;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    IncidentId,
    incident::{Incident, IncidentStatus},
    page::PageRequest,
};
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get_one))
        .routes(routes!(resolve))
        .routes(routes!(postmortem))
}

/// What the alerts of one group came to.
#[derive(Debug, Serialize, ToSchema)]
struct IncidentView {
    /// UUIDv7.
    id: Uuid,
    /// The context that tells of it. It may have been deleted.
    context_id: Uuid,
    /// In the alerts' own words, e.g. `HighLatency: rest-api`.
    title: String,
    /// The worst of its alerts', in their own words.
    severity: String,
    /// `firing` or `resolved`.
    #[schema(value_type = String)]
    status: IncidentStatus,
    /// Its alerts' names, each once.
    alerts: Vec<String>,
    started_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Incident> for IncidentView {
    fn from(incident: Incident) -> Self {
        let summary = incident.summary;
        Self {
            id: incident.id.0,
            context_id: incident.context_id.0,
            title: summary.title,
            severity: summary.severity,
            status: summary.status,
            alerts: summary.alerts,
            started_at: summary.started_at,
            resolved_at: summary.resolved_at,
            created_at: incident.created_at,
            updated_at: incident.updated_at,
        }
    }
}

/// Which incidents.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct IncidentQuery {
    /// `firing` or `resolved`: only those.
    #[param(value_type = Option<String>)]
    status: Option<IncidentStatus>,
    /// Entries wanted, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The tenant's incidents, newest first.
#[utoipa::path(get, path = "/incidents", tag = "incidents", params(IncidentQuery),
    responses((status = 200, body = Listing<IncidentView>)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<IncidentQuery>,
) -> Answer<Json<Listing<IncidentView>>> {
    let page = PageRequest::new(query.limit, query.cursor);
    Ok(Listing::of(
        api.list_incidents(&caller, query.status, &page).await?,
    ))
}

/// One incident.
#[utoipa::path(get, path = "/incidents/{id}", tag = "incidents", params(("id" = Uuid, Path)),
    responses((status = 200, body = IncidentView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<IncidentId>,
) -> Answer<Json<IncidentView>> {
    Ok(Json(api.get_incident(&caller, id).await?.into()))
}

/// Closes an incident whose end is not told, since its alerts were silenced or are gone. Where they still fire, the next
/// that is told of them, two minutes later at the earliest, opens another one. Needs `contexts:write`.
#[utoipa::path(post, path = "/incidents/{id}/resolve", tag = "incidents", params(("id" = Uuid, Path)),
    responses((status = 200, body = IncidentView), (status = 404)))]
async fn resolve(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<IncidentId>,
) -> Answer<Json<IncidentView>> {
    Ok(Json(api.resolve_incident(&caller, id).await?.into()))
}

/// A draft of its postmortem: the timeline, what was seen with its queries, traces and log lines, what is open.
#[utoipa::path(get, path = "/incidents/{id}/postmortem", tag = "incidents", params(("id" = Uuid, Path)),
    responses((status = 200, body = String, content_type = "text/markdown"), (status = 404)))]
async fn postmortem(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<IncidentId>,
) -> Answer<Response> {
    let markdown = api.postmortem(&caller, id).await?;
    Ok(([(CONTENT_TYPE, "text/markdown; charset=utf-8")], markdown).into_response())
}
