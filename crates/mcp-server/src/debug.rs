//! The service's own pages below `/debug`. The chassis asks for the admin token.

use axum::{Router, extract::State, routing::get};
use chassis::{
    Problem,
    ops::{Page, Pretty},
};
use coordination::{Inspector, inspect::Report};
use serde_json::json;

/// What they show.
pub(crate) const PAGES: &[Page] = &[Page {
    path: "/debug/redis",
    shows: "Redis' own figures and its slow commands",
}];

/// The pages.
pub(crate) fn routes(inspector: Option<Inspector>) -> Router {
    Router::new().route("/debug/redis", get(redis).with_state(inspector))
}

/// `GET /debug/redis`
async fn redis(State(inspector): State<Option<Inspector>>) -> Result<Pretty<Report>, Problem> {
    let Some(inspector) = inspector else {
        let detail =
            "no Redis is configured (redis.url): this replica keeps limits, sessions and notices in process";
        return Err(Problem::not_found("not_configured", detail));
    };
    inspector.report().await.map(Pretty).map_err(|away| {
        Problem::unavailable("unavailable", away.to_string()).with("circuit", json!(away.circuit))
    })
}
