//! `/alerts`: where Alertmanager delivers.

use super::{Answer, Caller, Json};
use crate::{
    api::{Api, Received},
    clock::now,
    metrics,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chassis::Problem;
use chrono::{DateTime, Utc};
use domain::incident::{Alert, IncidentStatus, MAX_ALERTS, Notification, Said};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The only version of the message that there is since Alertmanager 0.6.
const VERSION: &str = "4";
/// Earlier times are no time: Alertmanager writes the year 1 for none.
const FIRST_YEAR: i64 = 946_684_800;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(receive))
}

/// Alertmanager's webhook, version 4. What else it holds is ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    /// `4`
    #[schema(example = "4")]
    version: String,
    /// The group: one incident of it is open at a time.
    #[schema(example = "{}:{alertname=\"HighLatency\"}")]
    group_key: String,
    /// How many alerts `max_alerts` cut away.
    #[serde(default)]
    truncated_alerts: u64,
    /// Whether any of the group's alerts fires.
    #[schema(value_type = String, example = "firing")]
    status: IncidentStatus,
    /// At most 1000.
    alerts: Vec<WebhookAlert>,
}

/// One alert of a webhook.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WebhookAlert {
    /// `firing` or `resolved`.
    #[schema(value_type = String, example = "firing")]
    status: IncidentStatus,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    starts_at: DateTime<Utc>,
    #[serde(default)]
    ends_at: Option<DateTime<Utc>>,
    #[serde(default, rename = "generatorURL")]
    generator_url: String,
    #[serde(default)]
    fingerprint: String,
}

impl From<WebhookAlert> for Alert {
    fn from(told: WebhookAlert) -> Self {
        let now = now();
        let is_time = |time: &DateTime<Utc>| time.timestamp() >= FIRST_YEAR;
        // Another machine's clock may be ahead of ours.
        let starts = Some(told.starts_at).filter(is_time).unwrap_or(now);
        let start_guessed = starts >= now;
        let said = Said {
            fingerprint: told.fingerprint,
            labels: told.labels,
            annotations: told.annotations,
            generator_url: told.generator_url,
        };
        let mut alert = Self::new(&said, starts.min(now));
        alert.start_guessed = start_guessed;
        match told.status {
            IncidentStatus::Firing => alert,
            IncidentStatus::Resolved => {
                let end = told.ends_at.filter(is_time).unwrap_or(now).min(now);
                alert.ended(end, now)
            }
        }
    }
}

/// What a notification came to.
#[derive(Debug, Serialize, ToSchema)]
struct ReceivedView {
    /// The incident that it is about; `null` when it tells of the end of what was never heard of.
    incident: Option<Uuid>,
    /// The incident's context.
    context: Option<Uuid>,
    /// `firing` or `resolved`: the incident's.
    #[schema(value_type = Option<String>)]
    status: Option<IncidentStatus>,
    /// `opened`, `changed`, `resolved`; `repeated`: all of it was known; `ignored`: no incident is open, and it opens none.
    #[schema(value_type = String)]
    result: &'static str,
}

impl From<Received> for ReceivedView {
    fn from(received: Received) -> Self {
        let incident = received.incident.as_ref();
        Self {
            incident: incident.map(|incident| incident.id.0),
            context: incident.map(|incident| incident.context_id.0),
            status: incident.map(|incident| incident.summary.status),
            result: received.heard.as_str(),
        }
    }
}

/// Takes Alertmanager's webhook: a group that fires opens an incident with a context of its own, what follows is told
/// there, and the group's end closes it. The tenant is the key's, which needs `alerts:receive`, and `observe:read` for the
/// cause to be looked for. The same told again changes nothing.
#[utoipa::path(post, path = "/alerts", tag = "incidents", request_body = Webhook,
    responses((status = 200, body = ReceivedView), (status = 400), (status = 403),
        (status = 413, description = "The body is too large: set `max_alerts`"),
        (status = 422, description = "The body is no webhook of Alertmanager's")))]
async fn receive(
    State(api): State<Api>,
    Caller(caller): Caller,
    body: Result<Json<Webhook>, Problem>,
) -> Response {
    let received = match body {
        Ok(Json(webhook)) => take(&api, &caller, webhook)
            .await
            .map_err(IntoResponse::into_response),
        Err(problem) => Err(problem.into_response()),
    };
    received.map_or_else(
        |refused| {
            metrics::INCIDENT_NOTIFICATIONS.inc(["refused"]);
            refused
        },
        IntoResponse::into_response,
    )
}

async fn take(api: &Api, caller: &domain::Principal, webhook: Webhook) -> Answer<Json<ReceivedView>> {
    if webhook.version != VERSION {
        return Err(domain::Invalid::new("version", "\"4\"").into());
    }
    let told = Notification {
        group_key: webhook.group_key,
        over: webhook.status == IncidentStatus::Resolved,
        // More are refused, and not read.
        alerts: webhook
            .alerts
            .into_iter()
            .take(MAX_ALERTS + 1)
            .map(Alert::from)
            .collect(),
        truncated: webhook.truncated_alerts,
    };
    Ok(Json(api.receive_alerts(caller, &told).await?.into()))
}
