//! `/contexts`.

use super::{
    Answer, Caller, Json, Listing, PageQuery, Path, Query, Span, idempotency,
    version::{IfMatch, etag},
};
use crate::api::{Api, ItemsPage, Search};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{
    ContextId, JsonObject,
    context::{
        Context, ContextFilter, ContextItem, ContextPatch, ContextStatus, NewContext, NewItem, SearchHit,
    },
    page::PageRequest,
};
use http::{StatusCode, header::LOCATION};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(search))
        .routes(routes!(get_one, update, delete_one))
        .routes(routes!(append, list_items))
}

/// A context: an agent's working memory.
#[derive(Debug, Serialize, ToSchema)]
struct ContextView {
    /// UUIDv7.
    id: Uuid,
    /// A person's name for it.
    name: String,
    /// `manual`, `conversation`, `incident`, `tool_result` or the tenant's own word.
    #[serde(rename = "type")]
    kind: String,
    agent_id: Option<String>,
    session_id: Option<String>,
    #[schema(value_type = Object)]
    metadata: JsonObject,
    /// `active` or `archived`.
    status: &'static str,
    /// Grows with every change; also the `ETag`.
    version: i64,
    item_count: i64,
    /// The items' content, bytes.
    size_bytes: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
}

impl From<Context> for ContextView {
    fn from(c: Context) -> Self {
        Self {
            id: c.id.0,
            name: c.name,
            kind: c.kind,
            agent_id: c.agent_id,
            session_id: c.session_id,
            metadata: c.metadata,
            status: c.status.as_str(),
            version: c.version,
            item_count: c.item_count,
            size_bytes: c.size_bytes,
            created_at: c.created_at,
            updated_at: c.updated_at,
            expires_at: c.expires_at,
        }
    }
}

/// One entry of a context.
#[derive(Debug, Serialize, ToSchema)]
struct ItemView {
    /// Its place, from 1, without gaps.
    sequence: i64,
    role: String,
    content: String,
    #[schema(value_type = Object)]
    metadata: JsonObject,
    created_at: DateTime<Utc>,
}

impl From<ContextItem> for ItemView {
    fn from(i: ContextItem) -> Self {
        let ContextItem {
            sequence,
            role,
            content,
            metadata,
            created_at,
        } = i;
        Self {
            sequence,
            role,
            content,
            metadata,
            created_at,
        }
    }
}

/// An item to append.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ItemInput {
    /// `user`, `assistant`, `system`, `tool` or the tenant's own word.
    role: String,
    content: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: JsonObject,
}

impl From<ItemInput> for NewItem {
    fn from(i: ItemInput) -> Self {
        Self {
            role: i.role,
            content: i.content,
            metadata: i.metadata,
        }
    }
}

fn new_items(items: Vec<ItemInput>) -> Vec<NewItem> {
    items.into_iter().map(Into::into).collect()
}

/// A context to make.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ContextInput {
    /// 1 to 200 characters.
    name: String,
    /// `manual` unless said otherwise.
    #[serde(rename = "type", default = "manual")]
    kind: String,
    agent_id: Option<String>,
    session_id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: JsonObject,
    /// Deleted by itself after this time.
    expires_in: Option<Span>,
    /// First items.
    #[serde(default)]
    items: Vec<ItemInput>,
}

fn manual() -> String {
    "manual".to_owned()
}

/// Makes a context.
#[utoipa::path(post, path = "/contexts", tag = "contexts", request_body = ContextInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat for a day")),
    responses((status = 201, body = ContextView), (status = 422, description = "Idempotency-Key used for another body")))]
async fn create(
    State(api): State<Api>,
    Caller(caller): Caller,
    key: idempotency::Key,
    Json(input): Json<ContextInput>,
) -> Answer<Response> {
    let key = key.of(&api, "POST /contexts", &input)?;
    let new = NewContext {
        name: input.name,
        kind: input.kind,
        agent_id: input.agent_id,
        session_id: input.session_id,
        metadata: input.metadata,
        expires_at: input.expires_in.map(Span::ahead),
    };
    let made = api
        .create_context(&caller, &new, &new_items(input.items), key.as_ref())
        .await?;
    Ok(idempotency::mark(made, |context| {
        let location = [(LOCATION, format!("/api/v1/contexts/{}", context.id))];
        let etag = etag(context.version);
        (
            StatusCode::CREATED,
            location,
            etag,
            Json(ContextView::from(context)),
        )
            .into_response()
    }))
}

/// Which contexts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Entries wanted, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only this type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// `active` or `archived`.
    #[param(value_type = Option<String>)]
    status: Option<ContextStatus>,
    agent_id: Option<String>,
    session_id: Option<String>,
    /// Changed at or after this time, RFC 3339.
    updated_since: Option<DateTime<Utc>>,
}

/// Contexts, last changed first.
#[utoipa::path(get, path = "/contexts", tag = "contexts", params(ListQuery),
    responses((status = 200, body = Listing<ContextView>)))]
async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Listing<ContextView>>> {
    let page = PageRequest::new(query.limit, query.cursor);
    let filter = ContextFilter {
        kind: query.kind,
        status: query.status,
        agent_id: query.agent_id,
        session_id: query.session_id,
        updated_since: query.updated_since,
    };
    Ok(Listing::of(api.list_contexts(&caller, &filter, &page).await?))
}

/// What is searched for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// Words, all of which must occur; quotes make phrases.
    q: String,
    /// Hits wanted, 1 to 50.
    #[param(minimum = 1, maximum = 50, default = 10)]
    limit: Option<u32>,
    /// Only this type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// `active` or `archived`.
    #[param(value_type = Option<String>)]
    status: Option<ContextStatus>,
}

/// A context that was found.
#[derive(Debug, Serialize, ToSchema)]
struct HitView {
    context: ContextView,
    /// The item that matched best; 0: the name did.
    sequence: i64,
    /// HTML-escaped, with `<mark>` around the words.
    snippet: String,
    /// Greater is better; comparable within one search only.
    score: f64,
}

/// What a search found.
#[derive(Debug, Serialize, ToSchema)]
struct HitsView {
    /// Best first.
    items: Vec<HitView>,
    /// There were more.
    truncated: bool,
}

/// Searches names and items, full text.
#[utoipa::path(get, path = "/contexts/search", tag = "contexts", params(SearchQuery),
    responses((status = 200, body = HitsView)))]
async fn search(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<SearchQuery>,
) -> Answer<Json<HitsView>> {
    let filter = ContextFilter {
        kind: query.kind,
        status: query.status,
        ..ContextFilter::default()
    };
    let search = Search {
        query: query.q,
        limit: query.limit.unwrap_or(0),
        filter,
    };
    // The parameter's name here; `query` elsewhere.
    let (hits, truncated) = api
        .search_contexts(&caller, &search)
        .await
        .map_err(|error| error.rename("query", "q"))?;
    let view = |SearchHit {
                    context,
                    sequence,
                    snippet,
                    score,
                }| HitView {
        context: context.into(),
        sequence,
        snippet,
        score,
    };
    Ok(Json(HitsView {
        items: hits.into_iter().map(view).collect(),
        truncated,
    }))
}

/// One context.
#[utoipa::path(get, path = "/contexts/{id}", tag = "contexts", params(("id" = Uuid, Path)),
    responses((status = 200, body = ContextView), (status = 404)))]
async fn get_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ContextId>,
) -> Answer<Response> {
    let context = api.get_context(&caller, id).await?;
    Ok((etag(context.version), Json(ContextView::from(context))).into_response())
}

/// A change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ContextChange {
    name: Option<String>,
    #[schema(value_type = Option<String>, example = "archived")]
    status: Option<ContextStatus>,
    /// The whole new metadata.
    #[schema(value_type = Option<Object>)]
    metadata: Option<JsonObject>,
    /// Deleted by itself after this time; `null` keeps it for good.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Span>)]
    expires_in: Option<Option<Span>>,
}

/// Tells `null` from a field that is not there.
pub(super) fn given<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// Changes a context.
#[utoipa::path(patch, path = "/contexts/{id}", tag = "contexts", request_body = ContextChange,
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have")),
    responses((status = 200, body = ContextView), (status = 404), (status = 412, description = "It has another version")))]
async fn update(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ContextId>,
    IfMatch(if_version): IfMatch,
    Json(change): Json<ContextChange>,
) -> Answer<Response> {
    let patch = ContextPatch {
        name: change.name,
        status: change.status,
        metadata: change.metadata,
        expires_at: change.expires_in.map(|span| span.map(Span::ahead)),
    };
    let context = api.update_context(&caller, id, &patch, if_version).await?;
    Ok((etag(context.version), Json(ContextView::from(context))).into_response())
}

/// Deletes a context and its items.
#[utoipa::path(delete, path = "/contexts/{id}", tag = "contexts",
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have")),
    responses((status = 204), (status = 404), (status = 412)))]
async fn delete_one(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ContextId>,
    IfMatch(if_version): IfMatch,
) -> Answer<StatusCode> {
    api.delete_context(&caller, id, if_version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Items to append, 1 to 100.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ItemsInput {
    items: Vec<ItemInput>,
}

/// What was appended.
#[derive(Debug, Serialize, ToSchema)]
struct AppendedView {
    /// The context afterwards.
    context: ContextView,
    /// The items as kept.
    items: Vec<ItemView>,
}

/// Appends items.
#[utoipa::path(post, path = "/contexts/{id}/items", tag = "contexts", request_body = ItemsInput,
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must have"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the call safe to repeat for a day")),
    responses((status = 201, body = AppendedView), (status = 404), (status = 412), (status = 413)))]
async fn append(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ContextId>,
    IfMatch(if_version): IfMatch,
    key: idempotency::Key,
    Json(input): Json<ItemsInput>,
) -> Answer<Response> {
    let key = key.of(&api, &format!("POST /contexts/{id}/items"), &input)?;
    let made = api
        .append_items(&caller, id, &new_items(input.items), if_version, key.as_ref())
        .await?;
    Ok(idempotency::mark(made, |appended| {
        let etag = etag(appended.context.version);
        let items = appended.items.into_iter().map(Into::into).collect();
        (
            StatusCode::CREATED,
            etag,
            Json(AppendedView {
                context: appended.context.into(),
                items,
            }),
        )
            .into_response()
    }))
}

/// Which items.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ItemsQuery {
    /// Entries wanted, 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// `asc` (the default) or `desc`.
    #[serde(default)]
    order: Order,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Asc,
    Desc,
}

/// A context's items in order; a page ends early where its content would grow too large.
#[utoipa::path(get, path = "/contexts/{id}/items", tag = "contexts", params(("id" = Uuid, Path), ItemsQuery),
    responses((status = 200, body = Listing<ItemView>), (status = 404)))]
async fn list_items(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(id): Path<ContextId>,
    Query(query): Query<ItemsQuery>,
) -> Answer<Json<Listing<ItemView>>> {
    let page = PageRequest::from(PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    });
    let asked = ItemsPage {
        page,
        max_bytes: 0,
        newest_first: query.order == Order::Desc,
    };
    Ok(Listing::of(api.list_items(&caller, id, &asked).await?.items))
}
