use crate::{Common, Problem, same_secret};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION, header::WWW_AUTHENTICATE};
use std::sync::Arc;

/// Lets only the holder of the admin token through.
pub(super) async fn guard(State(common): State<Arc<Common>>, request: Request, next: Next) -> Response {
    let Some(expected) = &common.admin_token else {
        let detail = "the admin pages are closed: no admin token is configured (set ADMIN_TOKEN)";
        return Problem::forbidden("admin_closed", detail).into_response();
    };
    match token(request.headers()) {
        Some(given) if same_secret(&given, expected) => next.run(request).await,
        given => {
            let path = request.uri().path();
            tracing::warn!(path, given = given.is_some(), "admin access refused");
            Problem::unauthorized("the admin token is needed: as Bearer, or as the password of HTTP Basic")
                // Basic first: it makes browsers ask.
                .header(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"admin\", Bearer"),
                )
                .into_response()
        }
    }
}

/// The token of a Bearer header, or the password of a Basic one: browsers cannot send Bearer.
fn token(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}
