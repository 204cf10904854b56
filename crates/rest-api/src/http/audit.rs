//! `/audit`.

use super::{Answer, Caller, Json, Listing, Query};
use crate::{api::Api, error::Error, store::AuditFilter};
use axum::extract::State;
use chrono::{DateTime, Utc};
use domain::{
    ApiKeyId, Invalid,
    audit::{Outcome, Record},
    page::PageRequest,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One call, or rejected authentications that were counted together.
#[derive(Debug, Serialize, ToSchema)]
struct AuditRecordView {
    /// UUIDv7.
    id: Uuid,
    /// When it began.
    at: DateTime<Utc>,
    /// Whether it is of the asking key's tenant; else nobody knows whose it is.
    own: bool,
    key_id: Option<Uuid>,
    /// The key's name; of a rejected one the first characters.
    key_name: String,
    /// Where the caller entered.
    #[schema(value_type = DoorInput)]
    door: &'static str,
    /// A tool's name, a method with its route, or `authenticate`.
    #[schema(example = "POST /api/v1/contexts")]
    action: String,
    /// SHA-256, in hex: of a call's arguments as JSON with sorted members and without spaces, of any other request's
    /// body, except where that may hold credentials.
    arguments_hash: Option<String>,
    /// A call's arguments as JSON with what looks secret taken out and long texts cut; only where the setting
    /// `audit.arguments` is `redacted`.
    arguments: Option<String>,
    #[schema(value_type = OutcomeInput)]
    outcome: &'static str,
    /// The stable code of its error; of what was rejected, why.
    code: Option<String>,
    duration_ms: f64,
    trace_id: Option<String>,
    execution_id: Option<Uuid>,
    /// How many such there were.
    count: i64,
    /// Where rejected authentications came from, as far as the service sees.
    address: Option<String>,
}

impl From<Record> for AuditRecordView {
    fn from(r: Record) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: r.id,
            at: r.at,
            own: r.tenant_id.is_some(),
            key_id: r.key_id.map(|id| id.0),
            key_name: r.key_name,
            door: r.door.as_str(),
            action: r.action,
            arguments_hash: some(r.arguments_hash),
            arguments: r.arguments,
            outcome: r.outcome.as_str(),
            code: some(r.code),
            duration_ms: r.duration_us as f64 / 1000.0,
            trace_id: some(r.trace_id),
            execution_id: r.execution_id.map(|id| id.0),
            count: r.count,
            address: some(r.address),
        }
    }
}

/// Where callers enter.
#[derive(ToSchema)]
#[schema(as = Door)]
#[expect(dead_code, reason = "describes domain::audit::Door")]
#[serde(rename_all = "snake_case")]
enum DoorInput {
    Mcp,
    Rest,
}

/// How a call ended.
#[derive(ToSchema)]
#[schema(as = AuditOutcome)]
#[expect(dead_code, reason = "describes domain::audit::Outcome")]
#[serde(rename_all = "snake_case")]
enum OutcomeInput {
    Ok,
    Error,
    /// The caller may not do this, or is not known.
    Denied,
    /// The caller went away, or did not want it any more.
    Cancelled,
}

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Entries wanted, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only this key's.
    #[param(value_type = Option<Uuid>)]
    key_id: Option<ApiKeyId>,
    /// Only calls of this tool, or this action, as it is shown.
    tool: Option<String>,
    /// Only those that ended so.
    #[param(value_type = Option<OutcomeInput>)]
    outcome: Option<String>,
    /// Only those that began then or later.
    since: Option<DateTime<Utc>>,
    /// Only those that began before.
    until: Option<DateTime<Utc>>,
    /// Only those of this trace: 32 hexadecimal digits.
    trace_id: Option<String>,
}

impl AuditQuery {
    fn parts(self) -> Result<(AuditFilter, PageRequest), Invalid> {
        let hex = |text: &String| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if self.trace_id.as_ref().is_some_and(|text| !hex(text)) {
            return Err(Invalid::new("trace_id", "32 hexadecimal digits"));
        }
        if self.tool.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Invalid::new(
                "tool",
                "a tool's name, or another action as it is shown",
            ));
        }
        let filter = AuditFilter {
            key_id: self.key_id,
            action: self.tool,
            outcome: self.outcome.as_deref().map(str::parse::<Outcome>).transpose()?,
            trace_id: self.trace_id.map(|text| text.to_ascii_lowercase()),
            since: self.since,
            until: self.until,
        };
        Ok((filter, PageRequest::new(self.limit, self.cursor)))
    }
}

/// Who called what, when, and how it ended, newest first: calls of tools over MCP, requests over REST that may change
/// something, and rejected authentications, counted together by the minute. A record may appear a moment after its call.
/// Rejected authentications with keys that are nobody's are shown to keys with `platform:observe` alone.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Listing<AuditRecordView>), (status = 400), (status = 403)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<AuditQuery>,
) -> Answer<Json<Listing<AuditRecordView>>> {
    let (filter, page) = query.parts().map_err(Error::from)?;
    Ok(Listing::of(api.list_audit(&caller, &filter, &page).await?))
}
