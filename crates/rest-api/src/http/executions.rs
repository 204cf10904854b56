//! `/executions`: what ran.

use super::{Answer, Caller, Json, Listing, Path, Query};
use crate::{api::Api, store::ExecutionFilter};
use axum::extract::State;
use chrono::{DateTime, Utc};
use domain::{
    ExecutionId, JsonObject,
    execution::{Execution, ExecutionError, ExecutionStatus},
    page::PageRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get_one))
}

/// One run of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExecutionView {
    /// UUIDv7; also the `Idempotency-Key` that the tool's endpoint was sent.
    id: Uuid,
    tool: String,
    /// `running`, `succeeded`, `failed`, `cancelled`, `outcome_unknown` …
    status: &'static str,
    #[schema(value_type = Object)]
    arguments: JsonObject,
    /// What the endpoint answered.
    result: Option<Value>,
    error: Option<ErrorView>,
    attempts: i32,
    /// The trace that asked for it.
    trace_id: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

/// Why it did not succeed.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorView {
    /// Stable.
    code: String,
    message: String,
}

impl From<Execution> for ExecutionView {
    fn from(e: Execution) -> Self {
        let error = e
            .error
            .map(|ExecutionError { code, message }| ErrorView { code, message });
        Self {
            id: e.id.0,
            tool: e.tool,
            status: e.status.as_str(),
            arguments: e.arguments,
            result: e.result,
            error,
            attempts: e.attempts,
            trace_id: e.trace_id,
            created_at: e.created_at,
            started_at: e.started_at,
            finished_at: e.finished_at,
        }
    }
}

/// Which executions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Entries wanted, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only this tool's.
    tool: Option<String>,
    /// Only those that stand so.
    #[param(value_type = Option<String>)]
    status: Option<ExecutionStatus>,
    /// Asked for at or after this time, RFC 3339.
    created_since: Option<DateTime<Utc>>,
}

/// Executions, newest first.
#[utoipa::path(get, path = "/executions", tag = "executions", params(ListQuery),
    responses((status = 200, body = Listing<ExecutionView>)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Listing<ExecutionView>>> {
    let page = PageRequest::new(query.limit, query.cursor);
    let filter = ExecutionFilter {
        tool: query.tool,
        status: query.status,
        created_since: query.created_since,
    };
    Ok(Listing::of(api.list_executions(&caller, &filter, &page).await?))
}

/// One execution.
#[utoipa::path(get, path = "/executions/{id}", tag = "executions", params(("id" = Uuid, Path)),
    responses((status = 200, body = ExecutionView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ExecutionId>,
) -> Answer<Json<ExecutionView>> {
    Ok(Json(api.get_execution(&caller, id).await?.into()))
}
