//! Profiles of memory and CPU, in the format of pprof.

use crate::Host;
use axum::Router;

pub(super) fn routes(_host: &Host) -> Router {
    Router::new()
}
