use axum::extract::State;
use chassis::{Problem, ops::Pretty};
use coordination::{Inspector, inspect::Report};
use serde_json::json;

/// `GET /debug/redis`
pub(super) async fn redis(State(inspector): State<Option<Inspector>>) -> Result<Pretty<Report>, Problem> {
    let Some(inspector) = inspector else {
        let detail =
            "no Redis is configured (redis.url): this replica keeps limits, cache and notices in process";
        return Err(Problem::not_found("not_configured", detail));
    };
    inspector.report().await.map(Pretty).map_err(|away| {
        Problem::unavailable("unavailable", away.to_string()).with("circuit", json!(away.circuit))
    })
}
