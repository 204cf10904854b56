//! How a caller shows its API key, the same at every door, and the metric that counts how that went.

use http::{HeaderMap, header::AUTHORIZATION};

telemetry::metrics! {
    /// Attempts to authenticate where the caller entered, by method (bearer, x_api_key, none) and result.
    pub static AUTH_ATTEMPTS: Counter["method", "result"] = "mcp_auth_attempts_total",
        known: &[&["bearer", "x_api_key", "none"], &RESULTS];
}

/// How an attempt may go.
const RESULTS: [&str; 8] = [
    "success",
    "missing",
    "malformed",
    "invalid",
    "revoked",
    "expired",
    "suspended",
    "unavailable",
];

/// An API key as it came, not yet looked at.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// `bearer`, `x_api_key` or `none`: the metric's `method`.
    pub method: &'static str,
    /// The key's text; `None` when there is none, or when it is no text.
    pub text: Option<&'a str>,
}

/// What the headers show: `Authorization: Bearer …` first, else `X-API-Key`.
pub fn presented(headers: &HeaderMap) -> Presented<'_> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().ok().and_then(|v| {
            let (scheme, rest) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(rest.trim())
        });
        return Presented {
            method: "bearer",
            text,
        };
    }
    match headers.get("x-api-key") {
        Some(value) => Presented {
            method: "x_api_key",
            text: value.to_str().ok().map(str::trim),
        },
        None => Presented {
            method: "none",
            text: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_are_understood() {
        let shown = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )]);
            let p = presented(&headers);
            (p.method, p.text.map(str::to_owned))
        };
        assert_eq!(
            shown("authorization", "bearer  k "),
            ("bearer", Some("k".to_owned()))
        );
        assert_eq!(shown("authorization", "Basic abc"), ("bearer", None));
        assert_eq!(shown("x-api-key", "k"), ("x_api_key", Some("k".to_owned())));
        assert_eq!(presented(&HeaderMap::new()).method, "none");
    }
}
