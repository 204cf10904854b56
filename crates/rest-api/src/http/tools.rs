//! `/tools`: the catalogue, and running one.

use super::{
    Answer, Caller, Json, Listing, PageQuery, Path, Query,
    contexts::given,
    version::{IfMatch, etag},
};
use crate::api::{Api, NewTool, ToolChange};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    JsonObject,
    tool::{Credentials, DEFAULT_TIMEOUT_MS, Method, Tool, ToolOptions, ToolSpec},
};
use http::{StatusCode, header::LOCATION};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get_one, update, delete_one))
}

/// A registered tool. Credentials are never shown.
#[derive(Debug, Serialize, ToSchema)]
struct ToolView {
    /// UUIDv7.
    id: Uuid,
    name: String,
    description: String,
    #[schema(value_type = String, example = "GET")]
    method: Method,
    url: String,
    headers: BTreeMap<String, String>,
    #[schema(value_type = Object)]
    input_schema: JsonObject,
    timeout_ms: u32,
    read_only: bool,
    idempotent: bool,
    destructive: bool,
    #[serde(flatten)]
    #[schema(value_type = OptionsInput)]
    options: ToolOptions,
    has_credentials: bool,
    /// Grows with every change; also the `ETag`.
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Tool> for ToolView {
    fn from(t: Tool) -> Self {
        Self {
            id: t.id.0,
            idempotent: t.spec.runs_twice(),
            name: t.spec.name,
            description: t.spec.description,
            method: t.spec.method,
            url: t.spec.url,
            headers: t.spec.headers,
            input_schema: t.spec.input_schema,
            timeout_ms: t.spec.timeout_ms,
            read_only: t.spec.read_only,
            destructive: t.spec.destructive,
            options: t.spec.options,
            has_credentials: t.has_credentials,
            version: t.version,
            created_at: t.created_at,
            updated_at: t.updated_at,
        }
    }
}

/// A tool to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolInput {
    /// 1 to 64 letters, digits, `-`, `_`, `.`.
    name: String,
    #[serde(flatten)]
    rest: ToolBody,
    #[serde(flatten)]
    #[schema(value_type = OptionsInput)]
    options: ToolOptions,
    /// Shown to the endpoint; kept encrypted, never returned.
    #[schema(value_type = Option<CredentialsInput>)]
    credentials: Option<Credentials>,
}

/// What replaces a registered tool.
#[derive(Debug, Deserialize, ToSchema)]
struct ToolUpdate {
    #[serde(flatten)]
    rest: ToolBody,
    #[serde(flatten)]
    #[schema(value_type = OptionsInput)]
    options: ToolOptions,
    /// Left out: stays as it is; `null`: removed.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<CredentialsInput>)]
    credentials: Option<Option<Credentials>>,
}

/// What a tool is, but for its name.
#[derive(Debug, Deserialize, ToSchema)]
struct ToolBody {
    /// For the agent that chooses: 1 to 4000 characters.
    description: String,
    #[serde(default)]
    #[schema(value_type = String, example = "GET")]
    method: Method,
    /// May hold `{argument}` in path and query.
    #[schema(example = "https://api.example.com/v1/cities/{city}")]
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// JSON Schema of the arguments.
    #[serde(default = "any_object")]
    #[schema(value_type = Object)]
    input_schema: JsonObject,
    /// 1 to 300000.
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
    /// It changes nothing. GET and HEAD are, unless said otherwise.
    read_only: Option<bool>,
    /// Twice is as good as once. What is read-only is.
    #[serde(default)]
    idempotent: bool,
    #[serde(default)]
    destructive: bool,
}

/// What an endpoint is shown.
#[derive(ToSchema)]
#[schema(as = Credentials)]
#[expect(
    dead_code,
    reason = "describes domain::tool::Credentials, which knows nothing of OpenAPI"
)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum CredentialsInput {
    Bearer { token: String },
    Basic { username: String, password: String },
    Header { name: String, value: String },
}

/// How a tool's requests are put together, tried again, and its answers cut to size.
#[derive(ToSchema)]
#[schema(as = ToolOptions)]
#[expect(
    dead_code,
    reason = "describes domain::tool::ToolOptions, which knows nothing of OpenAPI"
)]
struct OptionsInput {
    /// Where arguments go that are not in the URL; one that is not named goes into the query, or into the body as a
    /// property.
    #[schema(required = false)]
    places: BTreeMap<String, PlaceInput>,
    #[schema(required = false)]
    body: BodyInput,
    /// Left out: a failed attempt is not followed by another.
    retry: Option<RetryInput>,
    /// A JMESPath expression over the result (`status`, `headers`, `body`): what an agent is shown of it.
    #[schema(example = "body.items[].{id: id, name: name}")]
    selection: Option<String>,
    /// The most bytes of JSON text that an agent is shown of a result, 256 to 3145728.
    max_result_bytes: Option<u32>,
    /// The tool is another MCP server's, and changes with it only. Never given, only shown.
    #[schema(read_only)]
    upstream: Option<UpstreamToolView>,
}

/// Which tool of which other MCP server it is.
#[derive(ToSchema)]
#[schema(as = UpstreamTool)]
#[expect(dead_code, reason = "describes domain::tool::UpstreamTool")]
struct UpstreamToolView {
    /// The server's name, as it is registered here.
    server: String,
    /// The tool's name there.
    tool: String,
}

/// Where an argument goes, and under which name if not its own.
#[derive(ToSchema)]
#[schema(as = Place)]
#[expect(dead_code, reason = "describes domain::tool::Place")]
#[serde(tag = "in", rename_all = "snake_case")]
enum PlaceInput {
    Query {
        name: Option<String>,
        #[schema(required = false)]
        style: StyleInput,
    },
    Header {
        name: Option<String>,
    },
    Body {
        name: Option<String>,
    },
    WholeBody,
}

/// How a list or an object stands in a query.
#[derive(ToSchema)]
#[schema(as = QueryStyle)]
#[expect(dead_code, reason = "describes domain::tool::QueryStyle")]
#[serde(rename_all = "snake_case")]
enum StyleInput {
    Form,
    Comma,
    Space,
    Pipe,
    DeepObject,
    Json,
}

/// How a body is written.
#[derive(ToSchema)]
#[schema(as = BodyFormat)]
#[expect(dead_code, reason = "describes domain::tool::BodyFormat")]
#[serde(rename_all = "snake_case")]
enum BodyInput {
    Json,
    Form,
}

/// When a failed attempt is followed by another; only what is safe to run twice is.
#[derive(ToSchema)]
#[schema(as = RetryPolicy)]
#[expect(dead_code, reason = "describes domain::tool::RetryPolicy")]
struct RetryInput {
    /// The first one included, 1 to 20.
    #[schema(required = false, default = 3)]
    max_attempts: u32,
    /// Doubles with every attempt.
    #[schema(required = false, default = 1000)]
    initial_backoff_ms: u64,
    #[schema(required = false, default = 60000)]
    max_backoff_ms: u64,
}

fn any_object() -> JsonObject {
    JsonObject::from_iter([("type".to_owned(), "object".into())])
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_MS
}

impl ToolBody {
    fn named(self, name: String, options: ToolOptions) -> ToolSpec {
        let reads = matches!(self.method, Method::Get | Method::Head);
        ToolSpec {
            name,
            description: self.description,
            method: self.method,
            url: self.url,
            headers: self.headers,
            input_schema: self.input_schema,
            timeout_ms: self.timeout_ms,
            read_only: self.read_only.unwrap_or(reads && !self.destructive),
            idempotent: self.idempotent,
            destructive: self.destructive,
            options,
        }
    }
}

/// Registers a tool.
#[utoipa::path(post, path = "/tools", tag = "tools", request_body = ToolInput,
    responses((status = 201, body = ToolView), (status = 409, description = "The name is taken")))]
async fn create(
    State(api): State<Api>,
    Caller(caller): Caller,
    Json(input): Json<ToolInput>,
) -> Answer<Response> {
    let new = NewTool {
        spec: input.rest.named(input.name, input.options),
        credentials: input.credentials,
    };
    let tool = api.create_tool(&caller, new).await?;
    let location = [(LOCATION, format!("/api/v1/tools/{}", tool.spec.name))];
    Ok((
        StatusCode::CREATED,
        location,
        etag(tool.version),
        Json(ToolView::from(tool)),
    )
        .into_response())
}

/// The tenant's tools, by name.
#[utoipa::path(get, path = "/tools", tag = "tools", params(PageQuery), responses((status = 200, body = Listing<ToolView>)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(page): Query<PageQuery>,
) -> Answer<Json<Listing<ToolView>>> {
    Ok(Listing::of(api.list_tools(&caller, &page.into()).await?))
}

/// One tool.
#[utoipa::path(get, path = "/tools/{name}", tag = "tools", params(("name" = String, Path)),
    responses((status = 200, body = ToolView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Answer<Response> {
    let tool = api.get_tool(&caller, &name).await?;
    Ok((etag(tool.version), Json(ToolView::from(tool))).into_response())
}

/// Replaces a tool; its name stays.
#[utoipa::path(put, path = "/tools/{name}", tag = "tools", request_body = ToolUpdate,
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have")),
    responses((status = 200, body = ToolView), (status = 404), (status = 412)))]
async fn update(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    IfMatch(if_version): IfMatch,
    Json(input): Json<ToolUpdate>,
) -> Answer<Response> {
    let change = ToolChange {
        spec: input.rest.named(name, input.options),
        credentials: input.credentials,
    };
    let tool = api.update_tool(&caller, change, if_version).await?;
    Ok((etag(tool.version), Json(ToolView::from(tool))).into_response())
}

/// Removes a tool; its executions stay.
#[utoipa::path(delete, path = "/tools/{name}", tag = "tools", params(("name" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    api.delete_tool(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
