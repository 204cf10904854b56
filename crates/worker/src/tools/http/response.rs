//! From an endpoint's answer to a run's result.

use super::connect;
use crate::{
    metrics,
    outcome::{Code, Failure},
    progress::Reporter,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The most that a result may be as JSON text, in bytes: below gRPC's 4 MiB with room for what stands around it.
const MAX_RESULT_BYTES: usize = 7 << 19;
/// JSON nested deeper is handed over as text: with what is wrapped around it, readers' limits (128) would refuse it.
pub(in crate::tools) const MAX_DEPTH: usize = 100;
/// How often the bytes that came in are reported, at most.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Some put it before their JSON.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
/// Headers that tell the caller something. Others (cookies, tracing, the server's make) are not theirs to see.
const SHOWN: [header::HeaderName; 9] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    header::HeaderName::from_static("x-request-id"),
];

/// Reads an answer to its end. From status 400 on, or when it is not what it says, it is a failure that carries the
/// answer.
pub(super) async fn read(
    answer: reqwest::Response,
    limit: usize,
    progress: &Reporter,
) -> Result<Value, Failure> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let shown = shown(&headers);
    let Some(bytes) = body(answer, limit, progress).await? else {
        return Err(too_large(status, &shown, limit));
    };
    metrics::RESPONSE_SIZE.record(f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX)), []);
    let mut result = json!({ "status": status.as_u16(), "headers": shown });
    let content = content(&headers, bytes);
    result["body"] = content.value;
    if let Some(encoding) = content.encoding {
        result["encoding"] = encoding.into();
    }
    if result.to_string().len() > MAX_RESULT_BYTES {
        return Err(too_large(status, &shown, limit));
    }
    if status.is_client_error() || status.is_server_error() {
        let message = format!("the endpoint answered {status}");
        return Err(Failure {
            result: Some(result),
            ..Failure::new(Code::HttpStatus, message)
        });
    }
    if content.garbled {
        let message = format!("the endpoint answered {status} with what it calls JSON and is not");
        return Err(Failure {
            result: Some(result),
            ..Failure::new(Code::InvalidResponse, message)
        });
    }
    Ok(result)
}

/// What comes next of a body; `None` at its end.
pub(in crate::tools) async fn part(answer: &mut reqwest::Response) -> Result<Option<Bytes>, Failure> {
    answer.chunk().await.map_err(|error| connect::failure(&error))
}

/// The whole body; `None` when it is larger than the limit.
async fn body(
    mut answer: reqwest::Response,
    limit: usize,
    progress: &Reporter,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let mut reported = Instant::now();
    loop {
        let Some(chunk) = part(&mut answer).await? else {
            return Ok(Some(bytes));
        };
        if bytes.len() + chunk.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            progress.report(format!("received {} bytes", bytes.len()));
        }
    }
}

fn too_large(status: StatusCode, shown: &Value, limit: usize) -> Failure {
    let message = format!("the endpoint's answer is larger than the limit of {limit} bytes");
    let result = json!({ "status": status.as_u16(), "headers": shown });
    Failure {
        result: Some(result),
        ..Failure::new(Code::ResponseTooLarge, message)
    }
}

/// A document that is larger than whoever asked for it wants.
pub(in crate::tools) fn document_too_large(limit: u64) -> Failure {
    let message = format!("the document is larger than the limit of {limit} bytes");
    Failure::new(Code::ResponseTooLarge, message)
}

fn shown(headers: &HeaderMap) -> Value {
    let shown = SHOWN.into_iter().filter_map(|name| {
        let values: Vec<_> = headers
            .get_all(&name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        (!values.is_empty()).then(|| (name.as_str().to_owned(), values.join(", ").into()))
    });
    Value::Object(shown.collect())
}

/// A body as a result shows it.
#[derive(Debug, Default, PartialEq)]
struct Content {
    value: Value,
    encoding: Option<&'static str>,
    /// It says that it is JSON and is not.
    garbled: bool,
}

/// JSON as it is, text as text, and what is neither in base64, with the name of that encoding.
fn content(headers: &HeaderMap, bytes: Vec<u8>) -> Content {
    if bytes.is_empty() {
        return Content::default();
    }
    let mut garbled = false;
    if is_json(headers) {
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        match serde_json::from_slice(text) {
            Ok(value) if depth(&value) <= MAX_DEPTH => {
                return Content {
                    value,
                    ..Content::default()
                };
            }
            Ok(_) => {}
            Err(_) => garbled = !is_well_formed(text),
        }
    }
    let (value, encoding) = match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_binary) => (text.into(), None),
        Ok(text) => (BASE64_STANDARD.encode(text).into(), Some("base64")),
        Err(error) => (BASE64_STANDARD.encode(error.into_bytes()).into(), Some("base64")),
    };
    Content {
        value,
        encoding,
        garbled,
    }
}

/// Whether it is JSON, if perhaps too deep or too odd to be read.
fn is_well_formed(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn is_json(headers: &HeaderMap) -> bool {
    let full = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = full
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Control characters that no text holds; as JSON each would take six bytes.
fn is_binary(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b')
}

/// How deep lists and objects are nested.
pub(in crate::tools) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_text_or_base64() {
        let of = |kind: &'static str, bytes: &[u8]| {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_TYPE, header::HeaderValue::from_static(kind))]);
            let content = content(&headers, bytes.to_vec());
            (content.value, content.encoding, content.garbled)
        };
        assert_eq!(
            of("application/json; charset=utf-8", b"{\"a\":1}"),
            (json!({"a": 1}), None, false)
        );
        assert_eq!(of("application/problem+json", b"[]"), (json!([]), None, false));
        assert_eq!(of("application/json", b"{broken"), (json!("{broken"), None, true));
        assert_eq!(
            of("text/plain", "grün\n".as_bytes()),
            (json!("grün\n"), None, false)
        );
        assert_eq!(
            of("image/png", &[0x89, b'P', 0]),
            (json!("iVAA"), Some("base64"), false)
        );
        assert_eq!(of("text/plain", b"a\0b"), (json!("YQBi"), Some("base64"), false));
        assert_eq!(of("application/json", b""), (Value::Null, None, false));
        assert_eq!(
            of("application/json", b"\xef\xbb\xbf[1]"),
            (json!([1]), None, false)
        );
        assert_eq!(
            of("application/json", b"\"\xff\""),
            (json!("Iv8i"), Some("base64"), true)
        );
        for depth in [110, 10_000] {
            let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(
                of("application/json", deep.as_bytes()),
                (json!(deep), None, false)
            );
        }
    }
}
