//! Refusals below MCP: problems that JSON-RPC clients can read as well.

use axum::{
    body::to_bytes,
    response::{IntoResponse, Response},
};
use chassis::Problem;
use http::{StatusCode, header};
use http_body_util::LengthLimitError;
use rmcp::model::ErrorCode;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::time::Duration;

/// The most that is read of an SDK's own error text.
const MAX_TEXT: usize = 4096;

/// The problem as a response. Beside RFC 9457's members it has JSON-RPC's, so that an MCP client that looks for an
/// `error` finds code and message. The request's id is not known here: its body was not read.
pub(crate) fn refuse(problem: Problem) -> Response {
    let code = match problem.code() {
        "parse_error" => ErrorCode::PARSE_ERROR,
        _ if problem.status().is_server_error() => ErrorCode::INTERNAL_ERROR,
        _ => ErrorCode::INVALID_REQUEST,
    };
    let error = json!({"code": code, "message": problem.detail(), "data": {"code": problem.code()}});
    problem
        .with("jsonrpc", "2.0")
        .with("id", Value::Null)
        .with("error", error)
        .into_response()
}

/// A body that could not be read: too large, or its sender went away.
pub(crate) fn unread(error: &axum::Error, limit: usize) -> Response {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    refuse(if causes.any(|cause| cause.is::<LengthLimitError>()) {
        Problem::too_large(limit)
    } else {
        Problem::bad_request("unreadable_body", "the body could not be read to its end")
    })
}

/// Gives the SDK's plain-text errors their stable codes; everything else passes. `body` is the request's.
pub(crate) async fn explained(response: Response, body: &[u8]) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if !is_error || is_json {
        return response;
    }
    let (parts, text) = response.into_parts();
    let text = to_bytes(text, MAX_TEXT).await.unwrap_or_default();
    let mut answer = refuse(problem(status, &String::from_utf8_lossy(&text), body));
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow.clone());
    }
    answer
}

fn problem(status: StatusCode, text: &str, body: &[u8]) -> Problem {
    // "Bad Request: Session ID is required" has its first half in the status.
    let detail = text.split_once(": ").map_or(text, |(_, detail)| detail);
    match status {
        StatusCode::FORBIDDEN if text.contains("Host") => Problem::forbidden("forbidden_host", detail),
        StatusCode::FORBIDDEN => Problem::forbidden("forbidden_origin", detail),
        StatusCode::NOT_FOUND => {
            Problem::not_found("session_not_found", "no such session: initialize a new one")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(status, "method_not_allowed", "this method is not served here")
        }
        StatusCode::NOT_ACCEPTABLE => Problem::new(status, "not_acceptable", detail),
        StatusCode::UNSUPPORTED_MEDIA_TYPE if text.starts_with("Unsupported") => {
            Problem::new(status, "unsupported_media_type", detail)
        }
        // The SDK says "unsupported media type" to a body that it cannot read.
        StatusCode::UNSUPPORTED_MEDIA_TYPE if serde_json::from_slice::<IgnoredAny>(body).is_ok() => {
            Problem::bad_request(
                "invalid_request",
                "the body is JSON but not one JSON-RPC message of MCP",
            )
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::bad_request("parse_error", "the body is not JSON"),
        status if status.is_client_error() => Problem::bad_request("bad_request", detail),
        _ if text.contains(crate::sessions::FULL) => {
            let detail = "this server holds as many sessions as it can";
            Problem::unavailable("too_many_sessions", detail).retry_after(Duration::from_secs(5))
        }
        _ => Problem::internal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_s_texts_get_stable_codes() {
        let unreadable = "fail to deserialize request body";
        for (status, text, body, code) in [
            (
                403,
                "Forbidden: Origin header is not allowed",
                "",
                "forbidden_origin",
            ),
            (403, "Forbidden: Host header is not allowed", "", "forbidden_host"),
            (404, "Not Found: Session not found", "", "session_not_found"),
            (415, unreadable, "{", "parse_error"),
            (415, unreadable, "[1]", "invalid_request"),
            (
                415,
                "Unsupported Media Type: Content-Type must be application/json",
                "{}",
                "unsupported_media_type",
            ),
            (
                500,
                "Encounter an error when create session: too many sessions",
                "{}",
                "too_many_sessions",
            ),
            (500, "Encounter an error when x: y", "{}", "internal"),
        ] {
            let problem = problem(
                StatusCode::from_u16(status).expect("a status"),
                text,
                body.as_bytes(),
            );
            assert_eq!(problem.code(), code, "{text}");
        }
    }
}
