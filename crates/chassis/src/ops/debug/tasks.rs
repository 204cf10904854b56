//! The live tasks of the runtime.

use crate::Host;
use axum::Router;

pub(super) fn routes(_host: &Host) -> Router {
    Router::new()
}
