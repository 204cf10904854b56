//! `/upstreams`: other MCP servers whose tools are offered beside the tenant's own.

use super::{
    Answer, Caller, Json, Listing, PageQuery, Path, Query,
    contexts::given,
    tools::CredentialsInput,
    version::{IfMatch, etag},
};
use crate::api::{Api, NewUpstream, UpstreamChange};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    tool::{Credentials, DEFAULT_TIMEOUT_MS},
    upstream::{LeftOut, Upstream, UpstreamSpec},
};
use http::{StatusCode, header::LOCATION};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get_one, update, delete_one))
        .routes(routes!(refresh))
}

/// Another MCP server. Credentials are never shown.
#[derive(Debug, Serialize, ToSchema)]
struct UpstreamView {
    /// UUIDv7.
    id: Uuid,
    /// What its tools' names begin with, followed by `_`.
    name: String,
    url: String,
    timeout_ms: u32,
    max_result_bytes: Option<u32>,
    tools: Vec<String>,
    enabled: bool,
    has_credentials: bool,
    /// Grows with every change of what it is; also the `ETag`.
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// What is known of its server.
    state: StateView,
}

/// What is known of an upstream's server.
#[derive(Debug, Serialize, ToSchema)]
struct StateView {
    /// When it was last asked for its tools.
    asked_at: Option<DateTime<Utc>>,
    /// When it last answered; its tools are those of then.
    answered_at: Option<DateTime<Utc>>,
    /// When it is asked next, if not before.
    next_refresh_at: Option<DateTime<Utc>>,
    /// Why the last asking failed.
    error: Option<ErrorView>,
    /// Its own name.
    server: Option<String>,
    server_version: Option<String>,
    /// The revision of MCP that is spoken with it.
    #[schema(example = "2026-07-28")]
    protocol_version: Option<String>,
    /// How many of its tools are offered.
    tools: u32,
    /// How many that the patterns choose are not.
    left_out_count: u32,
    /// The first of them.
    left_out: Vec<LeftOutView>,
}

/// Why a server could not be asked.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorView {
    /// Stable: `connect_failed`, `http_status`, `address_not_allowed`, `timeout` …
    code: String,
    message: String,
}

/// A tool of the server that is not offered.
#[derive(Debug, Serialize, ToSchema)]
struct LeftOutView {
    tool: String,
    /// `name_invalid`, `name_reserved`, `name_repeated`, `name_taken`, `schema_invalid` or `too_many`.
    #[schema(value_type = String)]
    reason: domain::upstream::Reason,
}

impl From<LeftOut> for LeftOutView {
    fn from(left: LeftOut) -> Self {
        Self {
            tool: left.tool,
            reason: left.reason,
        }
    }
}

impl From<Upstream> for UpstreamView {
    fn from(u: Upstream) -> Self {
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        let error = u.error.map(|error| ErrorView {
            code: error.code,
            message: error.message,
        });
        let state = StateView {
            asked_at: u.asked_at,
            answered_at: u.answered_at,
            next_refresh_at: u.next_refresh_at,
            error,
            server: said(u.learnt.server),
            server_version: said(u.learnt.server_version),
            protocol_version: said(u.learnt.protocol_version),
            tools: u.learnt.tools,
            left_out_count: u.learnt.left_out_count,
            left_out: u.learnt.left_out.into_iter().map(Into::into).collect(),
        };
        Self {
            id: u.id.0,
            name: u.spec.name,
            url: u.spec.url,
            timeout_ms: u.spec.timeout_ms,
            max_result_bytes: u.spec.max_result_bytes,
            tools: u.spec.tools,
            enabled: u.spec.enabled,
            has_credentials: u.has_credentials,
            version: u.version,
            created_at: u.created_at,
            updated_at: u.updated_at,
            state,
        }
    }
}

/// An MCP server to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpstreamInput {
    /// What its tools' names will begin with, followed by `_`: 1 to 24 of `a` to `z`, `0` to `9` and `_`.
    #[schema(example = "github")]
    name: String,
    /// Its endpoint for Streamable HTTP.
    #[schema(example = "https://mcp.example.com/mcp")]
    url: String,
    /// How long a call may take, 1 to 300000.
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
    /// The most bytes of a result that an agent is shown, 256 to 3145728.
    max_result_bytes: Option<u32>,
    /// Which of its tools are offered: names as the server has them; `*` stands for any characters.
    #[serde(default = "all")]
    #[schema(example = json!(["get_*", "search"]))]
    tools: Vec<String>,
    #[serde(default = "yes")]
    #[schema(default = true)]
    enabled: bool,
    /// Shown to the server; kept encrypted, never returned.
    #[schema(value_type = Option<CredentialsInput>)]
    credentials: Option<Credentials>,
}

/// What replaces a registered MCP server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpstreamUpdate {
    url: String,
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
    max_result_bytes: Option<u32>,
    #[serde(default = "all")]
    tools: Vec<String>,
    #[serde(default = "yes")]
    #[schema(default = true)]
    enabled: bool,
    /// Left out: they stay as they are, unless the URL's origin is another one; `null`: removed.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<CredentialsInput>)]
    credentials: Option<Option<Credentials>>,
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_MS
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn yes() -> bool {
    true
}

/// Registers another MCP server and asks it for its tools, which appear as `{name}_{tool}`. One that does not answer is
/// registered all the same: `state.error` says why.
#[utoipa::path(post, path = "/upstreams", tag = "upstreams", request_body = UpstreamInput,
    responses((status = 201, body = UpstreamView),
        (status = 409, description = "The name is taken, or there are as many as there may be")))]
async fn create(
    State(api): State<Api>,
    Caller(caller): Caller,
    Json(input): Json<UpstreamInput>,
) -> Answer<Response> {
    let spec = UpstreamSpec {
        name: input.name,
        url: input.url,
        timeout_ms: input.timeout_ms,
        max_result_bytes: input.max_result_bytes,
        tools: input.tools,
        enabled: input.enabled,
    };
    let new = NewUpstream {
        spec,
        credentials: input.credentials,
    };
    let upstream = api.create_upstream(&caller, new).await?;
    let location = [(LOCATION, format!("/api/v1/upstreams/{}", upstream.spec.name))];
    Ok((
        StatusCode::CREATED,
        location,
        etag(upstream.version),
        Json(UpstreamView::from(upstream)),
    )
        .into_response())
}

/// The tenant's MCP servers, by name.
#[utoipa::path(get, path = "/upstreams", tag = "upstreams", params(PageQuery),
    responses((status = 200, body = Listing<UpstreamView>)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(page): Query<PageQuery>,
) -> Answer<Json<Listing<UpstreamView>>> {
    Ok(Listing::of(api.list_upstreams(&caller, &page.into()).await?))
}

/// One MCP server.
#[utoipa::path(get, path = "/upstreams/{name}", tag = "upstreams", params(("name" = String, Path)),
    responses((status = 200, body = UpstreamView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Answer<Response> {
    let upstream = api.get_upstream(&caller, &name).await?;
    Ok((etag(upstream.version), Json(UpstreamView::from(upstream))).into_response())
}

/// Replaces what is registered of an MCP server, and asks it anew; its name stays.
#[utoipa::path(put, path = "/upstreams/{name}", tag = "upstreams", request_body = UpstreamUpdate,
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have")),
    responses((status = 200, body = UpstreamView), (status = 404), (status = 412)))]
async fn update(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    IfMatch(if_version): IfMatch,
    Json(input): Json<UpstreamUpdate>,
) -> Answer<Response> {
    let spec = UpstreamSpec {
        name,
        url: input.url,
        timeout_ms: input.timeout_ms,
        max_result_bytes: input.max_result_bytes,
        tools: input.tools,
        enabled: input.enabled,
    };
    let change = UpstreamChange {
        spec,
        credentials: input.credentials,
    };
    let upstream = api.update_upstream(&caller, change, if_version).await?;
    Ok((etag(upstream.version), Json(UpstreamView::from(upstream))).into_response())
}

/// Removes an MCP server and its tools; their executions stay.
#[utoipa::path(delete, path = "/upstreams/{name}", tag = "upstreams",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have")),
    responses((status = 204), (status = 404), (status = 412)))]
async fn delete_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    IfMatch(if_version): IfMatch,
) -> Answer<StatusCode> {
    api.delete_upstream(&caller, &name, if_version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks an MCP server for its tools now; `state.error` says how it went.
#[utoipa::path(post, path = "/upstreams/{name}/refresh", tag = "upstreams", params(("name" = String, Path)),
    responses((status = 200, body = UpstreamView), (status = 404)))]
async fn refresh(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Answer<Response> {
    let upstream = api.refresh_upstream(&caller, &name).await?;
    Ok((etag(upstream.version), Json(UpstreamView::from(upstream))).into_response())
}
