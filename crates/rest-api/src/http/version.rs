//! Optimistic concurrency: a thing's version as `ETag` and `If-Match`.

use crate::error::Error;
use axum::extract::FromRequestParts;
use domain::Invalid;
use http::{
    HeaderMap, HeaderName,
    header::{ETAG, IF_MATCH},
    request::Parts,
};

/// The `ETag` of a version.
pub(super) fn etag(version: i64) -> [(HeaderName, String); 1] {
    [(ETAG, format!("\"{version}\""))]
}

/// The version that `If-Match` asks for; `None` without the header, and for `*`.
pub(super) struct IfMatch(pub(super) Option<i64>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        Ok(Self(parse(&parts.headers)?))
    }
}

fn parse(headers: &HeaderMap) -> Result<Option<i64>, Invalid> {
    let invalid = || Invalid::new("If-Match", "one ETag as it was answered, e.g. \"3\", or *");
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    match value.to_str().map_err(|_| invalid())?.trim() {
        "*" => Ok(None),
        text => {
            let quoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            quoted.and_then(|v| v.parse().ok()).map(Some).ok_or_else(invalid)
        }
    }
}
