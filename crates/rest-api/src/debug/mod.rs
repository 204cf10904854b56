//! The service's own pages below `/debug`: its database and its Redis. The chassis asks for the admin token.

mod database;
mod redis;

use crate::store::{DatabaseSettings, SharedStore};
use axum::{Router, routing::get};
use coordination::Inspector;

/// The pages.
pub(crate) fn routes(store: SharedStore, settings: DatabaseSettings, redis: Option<Inspector>) -> Router {
    let database = database::Pages { store, settings };
    Router::new()
        .route("/debug/database/slow-queries", get(database::slow_queries))
        .route("/debug/database/pool", get(database::pool))
        .with_state(database)
        .route("/debug/redis", get(redis::redis).with_state(redis))
}
