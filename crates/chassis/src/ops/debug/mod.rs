//! `/debug`: what a running process shows of itself to whoever holds the admin token.

mod pprof;
mod requests;
mod tasks;

use crate::Host;
use axum::Router;

/// All pages below `/debug` that every service has.
pub(super) fn routes(host: &Host) -> Router {
    Router::new()
        .merge(pprof::routes(host))
        .merge(requests::routes(host))
        .merge(tasks::routes(host))
}
