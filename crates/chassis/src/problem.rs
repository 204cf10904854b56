//! Errors as clients see them: `application/problem+json` (RFC 9457) with a stable `code`, the request id and the trace id.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Map, Value, json};
use std::{borrow::Cow, time::Duration};

/// The content type of a problem.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// One clear error. Made where the request fails, sent as a response.
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    title: Cow<'static, str>,
    detail: String,
    extra: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem. `code` is stable and for programs (`not_found`), `detail` is for people and tells nothing secret.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").into();
        let detail = detail.into();
        Self(Box::new(Parts {
            status,
            code,
            title,
            detail,
            extra: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no credential, or not a good one.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: a good credential that may not do this.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404: not there, or another tenant's.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 409: not in this state.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the request body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail).with("limit_bytes", limit)
    }

    /// 429: come back later.
    pub fn too_many(retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests").retry_after(retry_after)
    }

    /// 503: something that this needs is away.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    /// 500: our fault. What went wrong is logged, not told.
    pub fn internal() -> Self {
        let detail = "the request failed inside the service; the request id leads to the reason in its logs";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// A better title than the status's own.
    pub fn title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.0.title = title.into();
        self
    }

    /// A further member.
    pub fn with(mut self, member: &'static str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(member.into(), value.into());
        self
    }

    /// When trying again makes sense: the `Retry-After` header (whole seconds, rounded up) and a member in milliseconds.
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
            .with("retry_after_ms", millis)
    }

    /// A further header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What it says to people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }
}

/// The stable code of a problem: an extension of its response, for layers that keep count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts {
            status,
            code,
            title,
            detail,
            extra,
            headers,
        } = *self.0;
        let mut body = json!({
            "type": format!("urn:devops-mcp:problem:{code}"),
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "detail": detail,
        });
        for (member, value) in extra {
            body[member] = value;
        }
        if let Some(id) = telemetry::context::current_request_id() {
            body["request_id"] = id.as_str().into();
        }
        if let Some(id) = telemetry::context::current_trace_id() {
            body["trace_id"] = id.into();
        }
        // A terminal's prompt is to stand on a line of its own.
        let mut response = Response::new(Body::from(format!("{body}\n")));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        response.extensions_mut().insert(Code(code));
        response
    }
}

/// The status that stands for a gRPC code.
pub fn http_status(code: tonic::Code) -> StatusCode {
    use tonic::Code;
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// The problem of an error that came without a body: from the router, mostly.
pub(crate) fn for_status(status: StatusCode) -> Problem {
    let (code, detail) = match status {
        StatusCode::BAD_REQUEST => ("bad_request", "the request cannot be understood"),
        StatusCode::UNAUTHORIZED => ("unauthenticated", "a credential is needed"),
        StatusCode::FORBIDDEN => ("forbidden", "this is not allowed"),
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this path does not take this method"),
        StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request took too long"),
        StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "the request body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("unsupported_media_type", "this content type is not taken here")
        }
        StatusCode::TOO_MANY_REQUESTS => ("rate_limited", "too many requests"),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "the service cannot take this request now"),
        status if status.is_server_error() => return Problem::internal().with_status(status),
        _ => ("request_failed", "the request was refused"),
    };
    Problem::new(status, code, detail)
}

impl Problem {
    fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self.0.title = status.canonical_reason().unwrap_or("Error").into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_carries_its_members_and_headers() {
        let response = Problem::too_large(1024)
            .retry_after(Duration::from_millis(1500))
            .into_response();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()[CONTENT_TYPE], CONTENT_TYPE_PROBLEM);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let body = axum::body::to_bytes(response.into_body(), 1 << 16)
            .await
            .expect("a body in memory");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            body,
            json!({
                "type": "urn:devops-mcp:problem:payload_too_large", "title": "Payload Too Large", "status": 413,
                "code": "payload_too_large", "detail": "the request body is larger than 1024 bytes",
                "limit_bytes": 1024, "retry_after_ms": 1500,
            })
        );
    }
}
