//! `/tools/import`: tools from an OpenAPI document.

mod body;
mod view;

use super::{Caller, Json};
use crate::{api::Api, error::Error};
use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use body::{ImportInput, ImportQuery};
use chassis::{Problem, http::BodyLimit};
use http::StatusCode;
use std::time::Duration;
use utoipa_axum::{router::OpenApiRouter, routes};
use view::ImportView;

/// Where it stands: its bodies may be larger than others.
pub const PATH: &str = "/api/v1/tools/import";
/// How long a body may take to arrive; the place that the import holds is not for who sends slowly.
const ARRIVAL: Duration = Duration::from_secs(60);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Makes one tool of each chosen operation of an OpenAPI 3.0 or 3.1 document. The document stands in the body's
/// `document`, at `url`, or is the body itself (`application/yaml`, `application/openapi+yaml`,
/// `application/openapi+json`), with the options in the query. A preview registers nothing and shows what would be.
#[utoipa::path(post, path = "/tools/import", tag = "tools", params(ImportQuery),
    request_body(content(
        (ImportInput = "application/json"), (String = "application/yaml"), (String = "application/openapi+json"))),
    responses(
        (status = 200, body = ImportView, description = "A preview, or nothing that was not there already"),
        (status = 201, body = ImportView, description = "Tools were registered or changed"),
        (status = 409, description = "Names are taken, and `on_conflict` is `fail`"),
        (status = 413, description = "The document is too large, by `limits.import_bytes` or by what it holds"),
        (status = 422, description = "The document cannot be read, is no OpenAPI, or could not be fetched"),
        (status = 429, description = "An import of this tenant is running")))]
async fn import(
    State(api): State<Api>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Response, Response> {
    let refuse = |error: Error| error.into_response();
    let permit = api.begin_import(&caller).map_err(refuse)?;
    let (head, body) = request.into_parts();
    let limit = head
        .extensions
        .get::<BodyLimit>()
        .map_or(api.limits().import_bytes, |limit| limit.0);
    let body = tokio::time::timeout(ARRIVAL, axum::body::to_bytes(body, limit))
        .await
        .map_err(|_| {
            Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_too_slow",
                "the body took too long to arrive",
            )
        })
        .and_then(|read| read.map_err(|_| Problem::too_large(limit)))
        .map_err(IntoResponse::into_response)?;
    let ask = body::ask(&head, body).map_err(IntoResponse::into_response)?;
    let preview = ask.preview;
    let imported = api.import_tools(&caller, ask, permit).await.map_err(refuse)?;
    let view = ImportView::of(imported, preview);
    let status = if view.wrote() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(view)).into_response())
}
