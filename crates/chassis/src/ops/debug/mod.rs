//! `/debug`: what a running process shows of itself to whoever holds the admin token.

mod heap;
mod index;
mod pprof;
mod requests;
mod tasks;

pub use index::Page;
pub(super) use index::with_index;

use crate::Host;
use axum::Router;

/// All pages below `/debug` that every service has.
pub(super) fn routes(host: &Host) -> Router {
    Router::new()
        .merge(heap::routes())
        .merge(pprof::routes(host))
        .merge(requests::routes(host))
        .merge(tasks::routes(host))
}
