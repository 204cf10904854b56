//! What operators and machines ask a service for: `/metrics`, `/healthz`, `/readyz`, and `/admin` and `/debug` for
//! whoever holds the admin token.
//!
//! These stand outside of the service's middleware stack: no API key, no rate limit, not in the `http_*` metrics, and
//! reachable when the service has too much to do.

mod debug;
mod guard;
mod log_level;
mod pretty;

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

pub use debug::Page;
pub use pretty::Pretty;

/// How many admin pages may be in the making at once.
const ADMIN_IN_FLIGHT: usize = 8;

/// The longest that a scrape or a probe may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a profile may take beside the time it was asked for: its names have to be found.
const NAMING_TIMEOUT: Duration = Duration::from_secs(60);

/// The whole HTTP surface: the ops pages, and behind them the service's own `api`. `admin` holds the service's own
/// pages below `/admin` and `/debug`, `pages` says what those show.
pub fn router(host: &Host, admin: Router, pages: &'static [Page], api: Router) -> Router {
    // Counted by nobody, but with ids: whoever changed the log level can be found.
    let ids = ["/metrics", "/healthz", "/readyz", "/admin", "/debug"]
        .into_iter()
        .fold(IdsLayer::new(), IdsLayer::exclude);
    Router::new()
        .route("/metrics", get(metrics).with_state(host.telemetry.clone()))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(host.readiness.clone()))
        .route_layer(EdgeLayer::new(&bounds(64, SCRAPE_TIMEOUT)))
        .merge(self::admin(host, admin, pages))
        .layer(ids)
        .fallback_service(api)
}

/// The pages that need the admin token. They have few places of their own: whoever holds the token can still not crowd
/// out probes and scrapes; whoever does not holds no place.
fn admin(host: &Host, own: Router, pages: &'static [Page]) -> Router {
    let longest = Duration::from_secs(host.common.monitoring.profiling.max_seconds);
    let edge = EdgeLayer::new(&bounds(ADMIN_IN_FLIGHT, longest + NAMING_TIMEOUT));
    let guard = guard::Guard::new(host.common.clone());
    let shown = Router::new()
        .route("/admin/log-level", get(log_level::show).put(log_level::change))
        .with_state(log_level::LogLevel::new(host))
        .merge(debug::routes(host))
        .merge(own);
    debug::with_index(host, shown, pages)
        .route_layer(edge)
        .route_layer(axum::middleware::from_fn_with_state(guard, guard::guard))
}

/// The ops pages' own bounds, so that neither they nor the API can crowd the other out.
fn bounds(max_in_flight: usize, request_timeout: Duration) -> Http {
    Http {
        max_body_bytes: 64 << 10,
        max_in_flight,
        request_timeout,
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
