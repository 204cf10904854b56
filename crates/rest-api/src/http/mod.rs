//! The HTTP door: REST under `/api/v1`, described by OpenAPI. Translates; the use cases stand in [`crate::api`].

mod alerts;
mod audit;
mod built_ins;
mod contexts;
mod execute;
mod executions;
mod guard;
mod idempotency;
mod import;
mod incidents;
mod keys;
pub mod openapi;
mod schedules;
mod tools;
mod upstreams;
mod version;

pub use guard::{Guard, authenticate};
pub use import::PATH as IMPORT_PATH;

use crate::{api::Api, error::Error};
use axum::{Router, routing::get};
use chassis::extract::{Json, Path, Query};
use domain::page::{Page, PageRequest};
use guard::Caller;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;

type Answer<T> = Result<T, Error>;

/// Every route of the API, with its description.
fn described() -> OpenApiRouter<Api> {
    let api = contexts::routes()
        .merge(keys::routes())
        .merge(tools::routes())
        .merge(built_ins::routes())
        .merge(import::routes())
        .merge(execute::routes())
        .merge(executions::routes())
        .merge(schedules::routes())
        .merge(upstreams::routes())
        .merge(alerts::routes())
        .merge(incidents::routes())
        .merge(audit::routes());
    OpenApiRouter::with_openapi(openapi::base()).nest("/api/v1", api)
}

/// The API's routes.
pub fn routes(api: Api) -> Router {
    let (routes, description) = described().split_for_parts();
    let description = axum::body::Bytes::from(openapi::text(&description));
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    routes
        .with_state(api)
        .route(
            "/api/v1/openapi.json",
            get(async move || (json, description.clone())),
        )
        .route("/api/v1/docs", get(openapi::page))
}

/// The whole description, as it is served.
pub fn description() -> String {
    openapi::text(&described().into_openapi())
}

/// Which page of a listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// Entries wanted, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl From<PageQuery> for PageRequest {
    fn from(query: PageQuery) -> Self {
        Self::new(query.limit, query.cursor)
    }
}

/// One page of a listing.
#[derive(Debug, Serialize, ToSchema)]
struct Listing<T> {
    /// The entries.
    items: Vec<T>,
    /// Opaque; asks for the next page. `null` on the last one.
    next_cursor: Option<String>,
}

impl<T> Listing<T> {
    fn of<U>(page: Page<U>) -> Json<Self>
    where
        T: From<U>,
    {
        Json(Self {
            items: page.items.into_iter().map(T::from).collect(),
            next_cursor: page.next_cursor,
        })
    }
}

/// A span of time in a request: seconds, or words such as `15m`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected seconds, or a duration such as 90s, 15m, 2h or 7d"
)]
enum Span {
    /// Seconds.
    Seconds(u64),
    /// `90s`, `15m`, `2h`, `7d`.
    #[serde(with = "chassis::settings::duration")]
    #[schema(value_type = String, example = "15m")]
    Words(std::time::Duration),
}

impl Span {
    /// From now on.
    fn ahead(self) -> domain::Time {
        crate::clock::ahead(self.duration())
    }

    /// As long as it says, at most [`LONGEST`](crate::clock::LONGEST).
    fn duration(self) -> std::time::Duration {
        let said = match self {
            Self::Seconds(seconds) => std::time::Duration::from_secs(seconds),
            Self::Words(duration) => duration,
        };
        said.min(crate::clock::LONGEST)
    }
}
