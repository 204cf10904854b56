//! The service's own pages below `/debug`: its database and its Redis. The chassis asks for the admin token.

mod database;
mod redis;

use crate::store::{DatabaseSettings, SharedStore};
use axum::{Router, routing::get};
use chassis::ops::Page;
use coordination::Inspector;

/// What they show.
pub(crate) const PAGES: &[Page] = &[
    Page {
        path: "/debug/database/slow-queries",
        shows: "the statements that took most of the database's time",
    },
    Page {
        path: "/debug/database/pool",
        shows: "the connections to the database, and who waits for one",
    },
    Page {
        path: "/debug/redis",
        shows: "Redis' own figures and its slow commands",
    },
];

/// The pages.
pub(crate) fn routes(store: SharedStore, settings: DatabaseSettings, redis: Option<Inspector>) -> Router {
    let database = database::Pages { store, settings };
    Router::new()
        .route("/debug/database/slow-queries", get(database::slow_queries))
        .route("/debug/database/pool", get(database::pool))
        .with_state(database)
        .route("/debug/redis", get(redis::redis).with_state(redis))
}
