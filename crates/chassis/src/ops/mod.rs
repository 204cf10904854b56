//! What operators and machines ask a service for: `/metrics`, `/healthz`, `/readyz`, and `/admin` and `/debug` for
//! whoever holds the admin token.
//!
//! These stand outside of the service's middleware stack: no API key, no rate limit, not in the `http_*` metrics, and
//! reachable when the service has too much to do.

mod debug;
mod guard;
mod log_level;

use crate::{Host, Readiness, http::EdgeLayer, settings::Http};
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use std::time::Duration;
use telemetry::http::IdsLayer;

/// The whole HTTP surface: the ops pages, and behind them the service's own `api`. `admin` holds the service's own
/// pages below `/admin` and `/debug`.
pub fn router(host: &Host, admin: Router, api: Router) -> Router {
    let admin = Router::new()
        .route("/admin/log-level", get(log_level::show).put(log_level::change))
        .with_state(log_level::LogLevel::new(host))
        .merge(debug::routes(host))
        .merge(admin)
        .route_layer(axum::middleware::from_fn_with_state(
            host.common.clone(),
            guard::guard,
        ));
    // Counted by nobody, but with ids: whoever changed the log level can be found.
    let ids = ["/metrics", "/healthz", "/readyz", "/admin", "/debug"]
        .into_iter()
        .fold(IdsLayer::new(), IdsLayer::exclude);
    Router::new()
        .route("/metrics", get(metrics).with_state(host.telemetry.clone()))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(host.readiness.clone()))
        .merge(admin)
        .layer(EdgeLayer::new(&bounds()))
        .layer(ids)
        .fallback_service(api)
}

/// The ops pages' own bounds, so that neither they nor the API can crowd the other out. A profile takes its time.
fn bounds() -> Http {
    Http {
        max_body_bytes: 64 << 10,
        max_in_flight: 64,
        request_timeout: Duration::from_secs(600),
        ..Http::default()
    }
}

/// Prometheus text, or OpenMetrics with exemplars for who asks for it.
async fn metrics(State(telemetry): State<telemetry::Handle>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let (content_type, text) = telemetry.render(accept);
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// 200 when requests are welcome. Dependencies are told, and decide nothing.
async fn ready(State(readiness): State<Readiness>) -> Response {
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness.report())).into_response()
}
