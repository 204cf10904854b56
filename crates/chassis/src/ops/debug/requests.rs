//! The last slow, failed and debugged requests.

use crate::Host;
use axum::Router;

pub(super) fn routes(_host: &Host) -> Router {
    Router::new()
}
