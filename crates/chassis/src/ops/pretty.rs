use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Serialize;

/// JSON as people read it in a terminal: laid out over lines, the last one ended.
#[derive(Clone, Copy, Debug)]
pub struct Pretty<T>(pub T);

impl<T: Serialize> IntoResponse for Pretty<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string_pretty(&self.0) {
            Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
            Err(error) => {
                tracing::error!(%error, "a page cannot be written");
                crate::Problem::internal().into_response()
            }
        }
    }
}
