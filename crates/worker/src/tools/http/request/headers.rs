//! The headers of a tool's requests: those it was registered with, its credentials, and arguments.

use super::{Code, Failure, HeaderMap, HeaderName, HeaderValue, IDEMPOTENCY_KEY};
use base64::{Engine, prelude::BASE64_STANDARD};
use domain::tool::{Credentials, ToolSpec, check_header};
use http::header::{AUTHORIZATION, CONTENT_TYPE};

/// What every call of the tool sends.
pub(super) fn fixed(tool: &ToolSpec, credentials: Option<&Credentials>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in &tool.headers {
        let (name, value) = header(name, value)?;
        headers.insert(name, value);
    }
    if let Some(credentials) = credentials {
        let (name, value) = credential(credentials)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The header in which credentials are shown.
pub(in crate::tools) fn credential(credentials: &Credentials) -> Result<(HeaderName, HeaderValue), Failure> {
    let (name, mut value) = match credentials {
        Credentials::Bearer { token } => header(AUTHORIZATION.as_str(), &format!("Bearer {token}"))?,
        Credentials::Basic { username, password } => {
            let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
            header(AUTHORIZATION.as_str(), &format!("Basic {pair}"))?
        }
        Credentials::Header { name, value } => header(name, value)?,
    };
    value.set_sensitive(true);
    Ok((name, value))
}

/// Adds arguments, `(argument, header, value)`. They come from whoever calls the tool, not from whoever registered it:
/// none of them may stand in the place of a header that is there already, of one of the connection's, or of one that
/// the product sets itself.
pub(super) fn add_arguments(
    headers: &mut HeaderMap,
    arguments: Vec<(String, String, String)>,
) -> Result<(), Failure> {
    for (argument, name, value) in arguments {
        let invalid = |code, expected: &str| {
            let message =
                format!("the argument '{argument}' cannot stand in the header '{name}': {expected}");
            Failure::new(code, message)
        };
        let parsed = HeaderName::try_from(name.as_str())
            .ok()
            .filter(|parsed| ![IDEMPOTENCY_KEY, CONTENT_TYPE].contains(parsed))
            .filter(|parsed| parsed != telemetry::propagate::REQUEST_ID);
        let parsed = parsed
            .filter(|_| check_header("", &name, "x").is_ok())
            .ok_or_else(|| invalid(Code::InvalidTool, "it is not for arguments to set"))?;
        if headers.contains_key(&parsed) {
            return Err(invalid(Code::InvalidTool, "the tool sets it already"));
        }
        check_header("", &name, &value).map_err(|wrong| invalid(Code::InvalidArguments, &wrong.expected))?;
        let value = HeaderValue::try_from(value)
            .map_err(|_| invalid(Code::InvalidArguments, "no header can carry it"))?;
        headers.insert(parsed, value);
    }
    Ok(())
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let parsed = HeaderName::try_from(name)
        .ok()
        .zip(HeaderValue::try_from(value).ok());
    parsed.ok_or_else(|| Failure::new(Code::InvalidTool, format!("the header '{name}' cannot be sent")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::http::tests::tool;

    fn add(name: &str, value: &str) -> Result<HeaderMap, Failure> {
        let mut registered = tool("GET", "http://h.example/");
        registered.headers.insert("X-Team".into(), "ours".into());
        let credentials = Credentials::Header {
            name: "X-Key".into(),
            value: "secret".into(),
        };
        let mut headers = fixed(&registered, Some(&credentials))?;
        add_arguments(&mut headers, vec![("a".into(), name.into(), value.into())])?;
        Ok(headers)
    }

    #[test]
    fn an_argument_takes_no_header_but_its_own() {
        assert_eq!(add("X-Page", "7").unwrap()["x-page"], "7");
        for name in [
            "x-key", // the credentials'
            "X-TEAM",
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "traceparent",
            "Idempotency-Key",
            "X-Request-Id",
            "content-type",
            "two words",
            "",
        ] {
            assert_eq!(add(name, "v").unwrap_err().code, Code::InvalidTool, "{name}");
        }
    }

    #[test]
    fn an_argument_cannot_end_its_header_and_is_not_repeated_in_the_error() {
        let long = "x".repeat(8193);
        for value in ["a\r\nX-Key: mine", "a\nb", "a\0b", "", "grün", long.as_str()] {
            let failure = add("X-Page", value).unwrap_err();
            assert_eq!(failure.code, Code::InvalidArguments, "{value:?}");
            assert!(value.is_empty() || !failure.message.contains(value));
        }
    }
}
