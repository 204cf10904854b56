use super::{EdgeLayer, LargerBody};
use crate::{Common, faults};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    response::IntoResponse,
    routing::Route,
};
use std::convert::Infallible;
use telemetry::http::{IdsLayer, SpanLayer};
use tower::{Layer, Service};

/// Puts the whole middleware stack around a service's routes. A request goes down this list, its response up:
///
/// 1. **Ids**: request id, remote trace context, metrics, access log. Outermost, so that whatever happens below is
///    counted and logged and says its ids. Panics, too: they have become responses by then.
/// 2. **Edge**: panics, requests in flight, body size, time. Before authentication, because an anonymous flood must not
///    reach it. What it and the router refuse gets a problem as its body.
/// 3. **Authenticate**: the service's own. Before the span, because only a known caller may ask for a trace.
/// 4. **Span**: decides about sampling and makes the server span, back-dated to the request's arrival, so that the time
///    spent above is in it.
/// 5. **Routes**, with the faults that a test has planted there. axum matches the route before any of these run, so all
///    of them know its template.
///
/// Metrics, probes and admin pages stand outside of it: see [`crate::ops`]. Above those as well stands what closes a
/// connection that is old, or whose server drains, with its answer ([`super::serve()`]): it goes by the connection, of
/// which nothing here knows, and holds for a probe's connection as for any other.
pub fn stack<L>(routes: Router, authenticate: L, common: &Common) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    around(routes, authenticate, EdgeLayer::new(&common.http), common)
}

/// As [`stack`], with one path whose requests may be larger than others.
pub fn stack_with<L>(routes: Router, authenticate: L, common: &Common, larger: LargerBody) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    let edge = EdgeLayer::new(&common.http).with(larger);
    around(routes, authenticate, edge, common)
}

fn around<L>(routes: Router, authenticate: L, edge: EdgeLayer, common: &Common) -> Router
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    faults::plant(routes, &common.test_faults)
        // Last layer, outermost: read from the bottom up.
        .layer(SpanLayer::new())
        .layer(authenticate)
        // axum's own limit is replaced by the edge's, which holds for every way of reading a body.
        .layer(DefaultBodyLimit::disable())
        .layer(edge)
        .layer(IdsLayer::new())
}
