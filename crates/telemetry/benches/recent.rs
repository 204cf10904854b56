//! What it costs a request that its service keeps the slow ones: `cargo bench -p telemetry --bench recent`.

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
    routing::get,
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};
use telemetry::{
    ServiceInfo, http::IdsLayer, http::SpanLayer, metrics::Registry, metrics::own, recent, recent::Kind,
    settings,
};
use tower::Service;

const ROUNDS: u32 = 100;
const EACH: u32 = 2_000;

/// A service as it stands, unsampled: routes that do nothing, and that do five pieces of work which take no time.
fn app() -> Router {
    let five = async || {
        for _ in 0..5 {
            let started = Instant::now();
            recent::child(
                Kind::Db,
                "contexts.get",
                started,
                black_box(Duration::ZERO),
                false,
            );
        }
        "x"
    };
    Router::new()
        .route("/none", get(async || "x"))
        .route("/five", get(five))
        .layer(SpanLayer::new())
        .layer(IdsLayer::new())
}

async fn time(app: &mut Router, path: &str) -> f64 {
    let started = Instant::now();
    for _ in 0..EACH {
        let request = Request::get(path).body(Body::empty()).unwrap_or_default();
        let response = app.call(request).await;
        debug_assert!(response.is_ok_and(|response| response.status() == StatusCode::OK));
    }
    started.elapsed().as_nanos() as f64 / f64::from(EACH)
}

fn settings(enabled: bool, slow_ms: u64) -> settings::RecentRequests {
    settings::RecentRequests {
        enabled,
        slow_ms,
        ..settings::RecentRequests::default()
    }
}

/// The best of many turns of each: a busy machine only ever adds.
async fn run() {
    let cases = [
        ("off", settings(false, 500), "/none"),
        ("on", settings(true, 500), "/none"),
        ("off, 5 children", settings(false, 500), "/five"),
        ("on, 5 children", settings(true, 500), "/five"),
        ("on, 5 children, all of them slow", settings(true, 0), "/five"),
    ];
    let mut app = app();
    let mut best = [f64::MAX; 5];
    for _ in 0..ROUNDS {
        for (best, (_, settings, path)) in best.iter_mut().zip(&cases) {
            recent::configure(settings);
            *best = best.min(time(&mut app, path).await);
        }
    }
    let base = [best[0], best[0], best[2], best[2], best[2]];
    for ((case, base), best) in cases.iter().zip(base).zip(best) {
        let name = case.0;
        println!(
            "a request, requests kept: {name:<36} {best:>8.0} ns  {:>6.3}",
            best / base
        );
    }
}

fn main() -> anyhow::Result<()> {
    let info = ServiceInfo {
        name: "bench",
        version: "0",
    };
    let registry = Registry::new(info.name, &[own::DECLARATIONS], &settings::Metrics::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    metrics::with_local_recorder(registry.recorder(), || runtime.block_on(run()));
    Ok(())
}
