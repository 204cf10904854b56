//! `/keys`.

use super::{Answer, Caller, Json, Listing, PageQuery, Path, Query, Span};
use crate::{
    api::{Api, IssuedKey, NewKey},
    error::Result,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{ApiKeyId, Scopes, ToolRule, ToolRules, api_key::ApiKey};
use http::{StatusCode, header::LOCATION};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get_one, revoke))
        .routes(routes!(rotate))
}

/// An API key's record.
#[derive(Debug, Serialize, ToSchema)]
struct KeyView {
    /// UUIDv7.
    id: Uuid,
    name: String,
    /// The secret's first characters.
    prefix: String,
    #[schema(value_type = Vec<String>, example = json!(["contexts:read"]))]
    scopes: Scopes,
    /// The tools that it may see and call; `null`: all.
    #[schema(value_type = Option<Vec<RuleInput>>)]
    tools: ToolRules,
    created_at: DateTime<Utc>,
    /// To the minute.
    last_used_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    /// Refused from then on; may lie ahead after a rotation.
    revoked_at: Option<DateTime<Utc>>,
}

impl From<ApiKey> for KeyView {
    fn from(k: ApiKey) -> Self {
        Self {
            id: k.id.0,
            name: k.name,
            prefix: k.prefix,
            scopes: k.scopes,
            tools: k.tools,
            created_at: k.created_at,
            last_used_at: k.last_used_at,
            expires_at: k.expires_at,
            revoked_at: k.revoked_at,
        }
    }
}

/// A new key; the secret is shown this once.
#[derive(Serialize, ToSchema)]
struct IssuedView {
    #[serde(flatten)]
    key: KeyView,
    /// Keep it: it cannot be shown again.
    secret: String,
}

fn issued(issued: IssuedKey) -> Response {
    let location = [(LOCATION, format!("/api/v1/keys/{}", issued.key.id))];
    let view = IssuedView {
        secret: issued.secret.expose().to_owned(),
        key: issued.key.into(),
    };
    (
        StatusCode::CREATED,
        location,
        [(http::header::CACHE_CONTROL, "no-store")],
        Json(view),
    )
        .into_response()
}

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyInput {
    /// 1 to 100 characters.
    name: String,
    /// At most those of the key that asks.
    #[schema(value_type = Vec<String>, example = json!(["contexts:read", "tools:execute"]))]
    scopes: Scopes,
    /// The tools that it may see and call, at most those of the key that asks. Left out: all.
    #[schema(value_type = Option<Vec<RuleInput>>)]
    tools: Option<Vec<ToolRule>>,
    /// Refused after this time.
    expires_in: Option<Span>,
}

/// These tools, with these arguments.
#[derive(ToSchema)]
#[schema(as = ToolRule)]
#[expect(
    dead_code,
    reason = "describes domain::ToolRule, which knows nothing of OpenAPI"
)]
struct RuleInput {
    /// A tool's name; `*` stands for any characters.
    #[schema(example = "github_*")]
    tools: String,
    /// A JSON Schema that the arguments must meet. Left out: any that the tool takes.
    #[schema(value_type = Option<Object>)]
    arguments: Option<domain::JsonObject>,
}

fn rules(tools: Option<Vec<ToolRule>>) -> Result<ToolRules> {
    match tools {
        Some(rules) => Ok(ToolRules::limited(rules)?),
        None => Ok(ToolRules::unlimited()),
    }
}

/// Makes an API key.
#[utoipa::path(post, path = "/keys", tag = "keys", request_body = KeyInput,
    responses((status = 201, body = IssuedView), (status = 403, description = "A scope or a tool that the asking key does not have"),
        (status = 409, description = "The tenant has as many active keys as it may have")))]
async fn create(
    State(api): State<Api>,
    Caller(caller): Caller,
    Json(input): Json<KeyInput>,
) -> Answer<Response> {
    let new = NewKey {
        name: input.name,
        scopes: input.scopes,
        tools: rules(input.tools)?,
        expires_at: input.expires_in.map(Span::ahead),
    };
    Ok(issued(api.create_key(&caller, new).await?))
}

/// The tenant's keys, newest first, revoked ones too.
#[utoipa::path(get, path = "/keys", tag = "keys", params(PageQuery), responses((status = 200, body = Listing<KeyView>)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(page): Query<PageQuery>,
) -> Answer<Json<Listing<KeyView>>> {
    Ok(Listing::of(api.list_keys(&caller, &page.into()).await?))
}

/// One key's record.
#[utoipa::path(get, path = "/keys/{id}", tag = "keys", params(("id" = Uuid, Path)),
    responses((status = 200, body = KeyView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ApiKeyId>,
) -> Answer<Json<KeyView>> {
    Ok(Json(api.get_key(&caller, id).await?.into()))
}

/// Revokes a key: within a second it works nowhere any more.
#[utoipa::path(delete, path = "/keys/{id}", tag = "keys", params(("id" = Uuid, Path)),
    responses((status = 200, body = KeyView), (status = 404)))]
async fn revoke(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ApiKeyId>,
) -> Answer<Json<KeyView>> {
    Ok(Json(api.revoke_key(&caller, id).await?.into()))
}

/// How a key is rotated.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// How much longer the old key works; at most 30 days, none unless said.
    overlap: Option<Span>,
}

/// Makes a successor with the same name, scopes and expiry; the old key works for `overlap` more.
#[utoipa::path(post, path = "/keys/{id}/rotate", tag = "keys", params(("id" = Uuid, Path)), request_body = Rotation,
    responses((status = 201, body = IssuedView), (status = 404)))]
async fn rotate(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ApiKeyId>,
    Json(rotation): Json<Rotation>,
) -> Answer<Response> {
    let overlap = rotation.overlap.map_or(Duration::ZERO, Span::duration);
    Ok(issued(api.rotate_key(&caller, id, overlap).await?))
}
