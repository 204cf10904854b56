//! `/schedules`.

use super::{
    Answer, Caller, Json, Listing, PageQuery, Path, Query,
    version::{IfMatch, etag},
};
use crate::{api::Api, clock::now};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    JsonObject, ScheduleId,
    schedule::{MissedRuns, NewSchedule, Schedule, SchedulePatch, Timetable},
};
use http::{StatusCode, header::LOCATION};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// How many of the next runs are shown.
const SHOWN_RUNS: usize = 5;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get_one, update, delete_one))
}

/// A tool that runs again and again, by the clock.
#[derive(Debug, Serialize, ToSchema)]
struct ScheduleView {
    /// UUIDv7.
    id: Uuid,
    name: String,
    tool: String,
    #[schema(value_type = Object)]
    arguments: JsonObject,
    cron: String,
    timezone: String,
    #[schema(value_type = MissedInput)]
    missed_runs: MissedRuns,
    enabled: bool,
    /// Why it switched itself off: `key_revoked`, `tool_removed`, `arguments_invalid`, `not_allowed` …
    disabled_reason: Option<String>,
    priority: i32,
    /// The key that its runs run as: the one that made it or last changed it.
    key_id: Uuid,
    /// When it runs next; empty while it is off.
    next_runs: Vec<DateTime<Utc>>,
    /// For when its last run was due.
    last_run_at: Option<DateTime<Utc>>,
    last_execution_id: Option<Uuid>,
    /// Grows with every change, not with every run; also the `ETag`.
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Schedule> for ScheduleView {
    fn from(s: Schedule) -> Self {
        Self {
            id: s.id.0,
            next_runs: next_runs(&s),
            name: s.spec.name,
            tool: s.spec.tool,
            arguments: s.spec.arguments,
            cron: s.spec.cron,
            timezone: s.spec.timezone,
            missed_runs: s.spec.missed_runs,
            enabled: s.spec.enabled,
            disabled_reason: s.disabled_reason,
            priority: s.spec.priority,
            key_id: s.key_id.0,
            last_run_at: s.last_run_at,
            last_execution_id: s.last_execution_id.map(|id| id.0),
            version: s.version,
            created_at: s.created_at,
            updated_at: s.updated_at,
        }
    }
}

fn next_runs(schedule: &Schedule) -> Vec<DateTime<Utc>> {
    let spec = &schedule.spec;
    match Timetable::parse(&spec.cron, &spec.timezone) {
        Ok(times) if spec.enabled => times.upcoming(now(), SHOWN_RUNS),
        _ => Vec::new(),
    }
}

/// What is done about runs whose time passed while nothing could start them.
#[derive(ToSchema)]
#[schema(as = MissedRuns)]
#[expect(dead_code, reason = "describes domain::schedule::MissedRuns")]
#[serde(rename_all = "snake_case")]
enum MissedInput {
    /// Nothing: the next one runs at its time.
    Skip,
    /// One run stands for all of them.
    RunOnce,
    /// Each of them runs, the last 100 at most.
    RunAll,
}

/// A schedule to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScheduleInput {
    /// Unique in its tenant: 1 to 100 characters.
    name: String,
    /// The tool's name.
    tool: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    arguments: JsonObject,
    /// Minute, hour, day of the month, month, day of the week; or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`.
    #[schema(example = "30 6 * * MON-FRI")]
    cron: String,
    /// An IANA time zone; UTC unless said.
    #[serde(default = "utc")]
    #[schema(example = "Europe/Berlin", default = "UTC")]
    timezone: String,
    #[serde(default)]
    #[schema(value_type = MissedInput, default = "run_once")]
    missed_runs: MissedRuns,
    #[serde(default = "yes")]
    #[schema(default = true)]
    enabled: bool,
    /// Its runs' priority, -100 to 100.
    #[serde(default)]
    priority: i32,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn yes() -> bool {
    true
}

/// What changes of a schedule; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScheduleUpdate {
    name: Option<String>,
    #[schema(value_type = Option<Object>)]
    arguments: Option<JsonObject>,
    cron: Option<String>,
    timezone: Option<String>,
    #[schema(value_type = Option<MissedInput>)]
    missed_runs: Option<MissedRuns>,
    enabled: Option<bool>,
    priority: Option<i32>,
}

/// Makes a schedule. Its runs run as the asking key, which needs what the call itself needs; a destructive tool needs
/// `tools:unattended`, since nobody is there to confirm it.
#[utoipa::path(post, path = "/schedules", tag = "schedules", request_body = ScheduleInput,
    responses((status = 201, body = ScheduleView), (status = 403), (status = 404, description = "No such tool"),
        (status = 409, description = "The name is taken, or there are as many as there may be")))]
async fn create(
    State(api): State<Api>,
    Caller(caller): Caller,
    Json(input): Json<ScheduleInput>,
) -> Answer<Response> {
    let new = NewSchedule {
        name: input.name,
        tool: input.tool,
        arguments: input.arguments,
        cron: input.cron,
        timezone: input.timezone,
        missed_runs: input.missed_runs,
        enabled: input.enabled,
        priority: input.priority,
    };
    let schedule = api.create_schedule(&caller, new).await?;
    let location = [(LOCATION, format!("/api/v1/schedules/{}", schedule.id))];
    Ok((
        StatusCode::CREATED,
        location,
        etag(schedule.version),
        Json(ScheduleView::from(schedule)),
    )
        .into_response())
}

/// The tenant's schedules, newest first.
#[utoipa::path(get, path = "/schedules", tag = "schedules", params(PageQuery),
    responses((status = 200, body = Listing<ScheduleView>)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(page): Query<PageQuery>,
) -> Answer<Json<Listing<ScheduleView>>> {
    Ok(Listing::of(api.list_schedules(&caller, &page.into()).await?))
}

/// One schedule.
#[utoipa::path(get, path = "/schedules/{id}", tag = "schedules", params(("id" = Uuid, Path)),
    responses((status = 200, body = ScheduleView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ScheduleId>,
) -> Answer<Response> {
    let schedule = api.get_schedule(&caller, id).await?;
    Ok((etag(schedule.version), Json(ScheduleView::from(schedule))).into_response())
}

/// Changes a schedule; its tool stays. Its runs run as the asking key from then on, unless `{"enabled": false}` is all
/// that changes.
#[utoipa::path(patch, path = "/schedules/{id}", tag = "schedules", request_body = ScheduleUpdate,
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have")),
    responses((status = 200, body = ScheduleView), (status = 404), (status = 412)))]
async fn update(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ScheduleId>,
    IfMatch(if_version): IfMatch,
    Json(input): Json<ScheduleUpdate>,
) -> Answer<Response> {
    let patch = SchedulePatch {
        name: input.name,
        arguments: input.arguments,
        cron: input.cron,
        timezone: input.timezone,
        missed_runs: input.missed_runs,
        enabled: input.enabled,
        priority: input.priority,
    };
    let schedule = api.update_schedule(&caller, id, patch, if_version).await?;
    Ok((etag(schedule.version), Json(ScheduleView::from(schedule))).into_response())
}

/// Deletes a schedule; its executions stay.
#[utoipa::path(delete, path = "/schedules/{id}", tag = "schedules",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have")),
    responses((status = 204), (status = 404), (status = 412)))]
async fn delete_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ScheduleId>,
    IfMatch(if_version): IfMatch,
) -> Answer<StatusCode> {
    api.delete_schedule(&caller, id, if_version).await?;
    Ok(StatusCode::NO_CONTENT)
}
