//! How a request's context crosses from one service to the next: W3C trace context and baggage, the request's id, and
//! whether it is being debugged.
//!
//! [`extract`] believes all of it and is for callers that are services of ours. What comes from a client goes through
//! the HTTP layers, which take the trace context and the request id only.

use crate::context::{Request, RequestId, Sampling};
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use serde_json::{Map, Value};

/// Carries the request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Carries the trace's id, in responses.
pub const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
/// Carries the answering span's context, in responses (W3C Trace Context, level 2).
pub const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// Set to `true` (or `1`), asks that the request be sampled and log at debug level everywhere.
pub const DEBUG: HeaderName = HeaderName::from_static("x-debug-trace");

/// The context that a trusted caller sent. It always holds a request, of a new id when none was sent.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Context {
    let carrier = HeaderExtractor(headers);
    let cx = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let cx = BaggagePropagator::new().extract_with_context(&cx, &carrier);
    let id = request_id(headers).unwrap_or_else(RequestId::new);
    let remote = cx.span().span_context().clone();
    let request = Request::new(id, Some(&remote).filter(|r| r.is_valid()), Sampling::Caller);
    if asks_for_debug(headers) {
        request.set_debug();
    }
    cx.with_value(request)
}

/// The span that a client says its request belongs to, and nothing else that it says.
pub(crate) fn extract_remote(headers: &HeaderMap) -> Option<SpanContext> {
    headers.get("traceparent")?;
    let cx = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    Some(cx.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// The trace context in the `_meta` of an MCP request (`traceparent`, `tracestate`, `baggage`); `None` when there is
/// none that is valid. Of the request in hand, it keeps everything but the span.
#[must_use]
pub fn extract_meta(meta: &Map<String, Value>) -> Option<Context> {
    struct Meta<'a>(&'a Map<String, Value>);
    impl Extractor for Meta<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.as_str()
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(String::as_str).collect()
        }
    }
    meta.get("traceparent")?;
    let none = Context::map_current(|cx| cx.with_remote_span_context(SpanContext::empty_context()));
    let cx = TraceContextPropagator::new().extract_with_context(&none, &Meta(meta));
    let valid = cx.span().span_context().is_valid();
    valid.then(|| BaggagePropagator::new().extract_with_context(&cx, &Meta(meta)))
}

/// Writes `cx` into the headers of a request to a service of ours.
pub fn inject(cx: &Context, headers: &mut HeaderMap) {
    inject_outward(cx, headers);
    BaggagePropagator::new().inject_context(cx, &mut HeaderInjector(headers));
    if cx.get::<Request>().is_some_and(Request::is_debug) {
        headers.insert(DEBUG, HeaderValue::from_static("true"));
    }
}

/// Writes what a stranger may see of `cx`: the trace context and the request's id.
pub fn inject_outward(cx: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(cx, &mut HeaderInjector(headers));
    if headers.get("tracestate").is_some_and(HeaderValue::is_empty) {
        headers.remove("tracestate");
    }
    if let Some(request) = cx.get::<Request>()
        && let Ok(id) = HeaderValue::from_str(request.id().as_str())
    {
        headers.insert(REQUEST_ID, id);
    }
}

/// The request id that was sent, when it is well-formed.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<RequestId> {
    RequestId::parse(headers.get(REQUEST_ID)?.to_str().ok()?)
}

pub(crate) fn asks_for_debug(headers: &HeaderMap) -> bool {
    let asked = headers.get(DEBUG).map(HeaderValue::as_bytes);
    asked.is_some_and(|value| value == b"1" || value.eq_ignore_ascii_case(b"true"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::baggage::BaggageExt;
    use serde_json::json;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(k, v)| (HeaderName::from_static(k), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    #[test]
    fn between_our_services_everything_survives() {
        let sent = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "vendor=1"),
            ("baggage", "team=core"),
            ("x-request-id", "req-1"),
            ("x-debug-trace", "true"),
        ]);
        let cx = extract(&sent);
        let mut passed_on = HeaderMap::new();
        inject(&cx, &mut passed_on);
        assert_eq!(passed_on, sent);
    }

    #[test]
    fn strangers_see_no_baggage_and_no_debug_flag() {
        let cx = extract(&headers(&[
            ("traceparent", PARENT),
            ("baggage", "team=core"),
            ("x-debug-trace", "true"),
        ]));
        let mut sent = HeaderMap::new();
        inject_outward(&cx, &mut sent);
        let names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["traceparent", "x-request-id"]);
    }

    #[test]
    fn true_and_1_ask_for_debug_and_nothing_else_does() {
        let asks = |value: &str| asks_for_debug(&headers(&[("x-debug-trace", value)]));
        assert!(asks("true") && asks("True") && asks("1"));
        assert!(!asks("false") && !asks("0") && !asks("") && !asks("yes"));
    }

    #[test]
    fn a_malformed_request_id_is_replaced() {
        let cx = extract(&headers(&[("x-request-id", "two words")]));
        let id = cx.get::<Request>().unwrap().id().to_string();
        assert_eq!(id.len(), 36);
    }

    #[test]
    fn mcp_meta_is_a_parent_when_it_is_valid() {
        let meta = json!({ "traceparent": PARENT, "baggage": "team=core", "progressToken": 1 });
        let cx = extract_meta(meta.as_object().unwrap()).unwrap();
        assert_eq!(
            cx.span().span_context().trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(cx.baggage().get("team").unwrap().as_str(), "core");
        for bad in [
            json!({}),
            json!({ "traceparent": 5 }),
            json!({ "traceparent": "00-xyz" }),
        ] {
            assert!(extract_meta(bad.as_object().unwrap()).is_none(), "{bad}");
        }
    }
}
