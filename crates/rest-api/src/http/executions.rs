//! `/executions`: what ran, runs, or is to run.

use super::{Answer, Caller, Json, Listing, Path, Query};
use crate::{api::Api, store::ExecutionFilter};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    ExecutionId, JsonObject, ScheduleId,
    execution::{Attempt, Execution, ExecutionError, ExecutionStatus},
    page::PageRequest,
};
use http::{
    StatusCode,
    header::{LOCATION, RETRY_AFTER},
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
        .routes(routes!(attempts))
        .routes(routes!(cancel))
        .routes(routes!(approve))
        .routes(routes!(replay))
}

/// One run of a tool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExecutionView {
    /// UUIDv7; also the `Idempotency-Key` that the tool's endpoint is sent.
    id: Uuid,
    tool: String,
    /// `queued`, `awaiting_approval`, `running`, or how it ended: `succeeded`, `failed`, `cancelled`, `dead`,
    /// `outcome_unknown`.
    status: &'static str,
    #[schema(value_type = Object)]
    arguments: JsonObject,
    /// What the endpoint answered.
    result: Option<Value>,
    /// Why the tool's selection was not applied, where it was asked for and could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_selected: Option<String>,
    error: Option<ErrorView>,
    /// How often it was taken up.
    attempts: i32,
    /// Those with a higher one run first.
    priority: i32,
    /// When it may be taken up, while it is queued.
    run_at: Option<DateTime<Utc>>,
    /// When it ends if it has not begun by then.
    deadline: Option<DateTime<Utc>>,
    /// It is to end.
    cancel_requested: bool,
    /// How far its run has come.
    progress: Option<String>,
    /// The schedule that asked for it.
    schedule_id: Option<Uuid>,
    /// What an approval is given for.
    digest: String,
    /// The key that asked for it.
    key_id: Uuid,
    /// The key that approved it.
    approved_by: Option<Uuid>,
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

impl From<ExecutionError> for ErrorView {
    fn from(ExecutionError { code, message }: ExecutionError) -> Self {
        Self { code, message }
    }
}

impl From<Execution> for ExecutionView {
    fn from(e: Execution) -> Self {
        Self {
            id: e.id.0,
            tool: e.tool,
            status: e.status.as_str(),
            arguments: e.arguments,
            result: e.result,
            not_selected: None,
            error: e.error.map(Into::into),
            attempts: e.attempts,
            priority: e.priority,
            run_at: e.run_at,
            deadline: e.deadline,
            cancel_requested: e.cancel_requested,
            progress: e.progress,
            schedule_id: e.schedule_id.map(|id| id.0),
            digest: e.digest,
            key_id: e.key_id.0,
            approved_by: e.approved_by.map(|id| id.0),
            trace_id: e.trace_id,
            created_at: e.created_at,
            started_at: e.started_at,
            finished_at: e.finished_at,
        }
    }
}

/// One time that a worker took it up.
#[derive(Debug, Serialize, ToSchema)]
struct AttemptView {
    number: i32,
    /// The worker, or the replica that waited with its caller.
    owner: String,
    /// How it ended: a status, or `retried`, `lost`, `handed_back`.
    outcome: String,
    error: Option<ErrorView>,
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
}

impl From<Attempt> for AttemptView {
    fn from(a: Attempt) -> Self {
        Self {
            number: a.number,
            owner: a.owner,
            outcome: a.outcome,
            error: a.error.map(Into::into),
            started_at: a.started_at,
            finished_at: a.finished_at,
        }
    }
}

/// The attempts that are over.
#[derive(Debug, Serialize, ToSchema)]
struct Attempts {
    items: Vec<AttemptView>,
}

/// How a result is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// The whole result.
    #[default]
    Whole,
    /// As the tool's selection shows it to agents.
    Selected,
}

/// How a result is shown.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct ViewQuery {
    /// `whole` (the default), or `selected`: as the tool's selection shows it to agents.
    #[param(value_type = Option<String>, example = "selected")]
    pub(super) view: Shape,
}

/// Shows an execution as it was asked to be.
pub(super) async fn show(api: &Api, execution: Execution, shape: Shape) -> Answer<ExecutionView> {
    if shape == Shape::Whole {
        return Ok(execution.into());
    }
    let view = api.view(execution).await?;
    let text = view.shown.result_json.as_deref();
    let result = text.and_then(|text| serde_json::from_str(text).ok());
    Ok(ExecutionView {
        result,
        not_selected: view.shown.not_selected,
        ..view.execution.into()
    })
}

/// 200 with an execution that is final; 202 with one that is not, where to look for it, and when.
pub(super) async fn stands(api: &Api, execution: Execution, shape: Shape) -> Answer<Response> {
    if execution.status.is_final() {
        return Ok(Json(show(api, execution, shape).await?).into_response());
    }
    let location = format!("/api/v1/executions/{}", execution.id);
    let headers = [(LOCATION, location), (RETRY_AFTER, "1".to_owned())];
    let body = Json(ExecutionView::from(execution));
    Ok((StatusCode::ACCEPTED, headers, body).into_response())
}

/// Which executions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Entries wanted, 1 to 200. With a key that is limited to some tools, a page may hold fewer.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only this tool's.
    tool: Option<String>,
    /// Only those that stand so, e.g. `dead`.
    #[param(value_type = Option<String>)]
    status: Option<ExecutionStatus>,
    /// Asked for at or after this time, RFC 3339.
    created_since: Option<DateTime<Utc>>,
    /// Asked for before this time, RFC 3339.
    created_until: Option<DateTime<Utc>>,
    /// Only those that this schedule asked for.
    #[param(value_type = Option<Uuid>)]
    schedule: Option<ScheduleId>,
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
        created_until: query.created_until,
        schedule_id: query.schedule,
    };
    Ok(Listing::of(api.list_executions(&caller, &filter, &page).await?))
}

/// One execution.
#[utoipa::path(get, path = "/executions/{id}", tag = "executions", params(("id" = Uuid, Path), ViewQuery),
    responses((status = 200, body = ExecutionView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ExecutionId>,
    Query(query): Query<ViewQuery>,
) -> Answer<Json<ExecutionView>> {
    let execution = api.get_execution(&caller, id).await?;
    Ok(Json(show(&api, execution, query.view).await?))
}

/// The attempts of an execution that are over, in order.
#[utoipa::path(get, path = "/executions/{id}/attempts", tag = "executions", params(("id" = Uuid, Path)),
    responses((status = 200, body = Attempts), (status = 404)))]
async fn attempts(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ExecutionId>,
) -> Answer<Json<Attempts>> {
    let attempts = api.list_attempts(&caller, id).await?;
    Ok(Json(Attempts {
        items: attempts.into_iter().map(Into::into).collect(),
    }))
}

/// Ends what waits (200), asks what runs to end (202). What is over stays as it is.
#[utoipa::path(post, path = "/executions/{id}/cancel", tag = "executions", params(("id" = Uuid, Path)),
    responses((status = 200, body = ExecutionView, description = "It is over"),
        (status = 202, body = ExecutionView, description = "It runs, and will end"), (status = 404)))]
async fn cancel(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ExecutionId>,
) -> Answer<Response> {
    let execution = api.cancel_execution(&caller, id).await?;
    stands(&api, execution, Shape::Whole).await
}

/// What is approved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Approval {
    /// The execution's `digest`: these arguments, and the tool as it was when it was asked for.
    digest: String,
}

/// Lets a destructive tool's run begin. Needs `executions:approve`, and another key than the one that asked.
#[utoipa::path(post, path = "/executions/{id}/approve", tag = "executions", request_body = Approval,
    params(("id" = Uuid, Path)),
    responses((status = 202, body = ExecutionView), (status = 403, description = "`own_request`, or a scope is missing"),
        (status = 404), (status = 409, description = "`wrong_status`, `digest_mismatch` or `tool_changed`")))]
async fn approve(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ExecutionId>,
    Json(approval): Json<Approval>,
) -> Answer<Response> {
    let execution = api.approve_execution(&caller, id, &approval.digest).await?;
    stands(&api, execution, Shape::Whole).await
}

/// How to replay.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Replay {
    /// Needed for `outcome_unknown` of a tool that is not idempotent: whoever asks knows that the call may have had its
    /// effect.
    acknowledge_unknown: bool,
}

/// Queues again what ended without success, under the same id. The body may be left out.
#[utoipa::path(post, path = "/executions/{id}/replay", tag = "executions", request_body = Option<Replay>,
    params(("id" = Uuid, Path)),
    responses((status = 202, body = ExecutionView), (status = 403), (status = 404),
        (status = 409, description = "`wrong_status` or `outcome_unknown`")))]
async fn replay(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ExecutionId>,
    body: Option<Json<Replay>>,
) -> Answer<Response> {
    let acknowledge = body.is_some_and(|Json(replay)| replay.acknowledge_unknown);
    let execution = api.replay_execution(&caller, id, acknowledge).await?;
    stands(&api, execution, Shape::Whole).await
}
