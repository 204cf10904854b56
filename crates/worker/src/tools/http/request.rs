//! From a tool's registration and its arguments to requests.

mod headers;
mod pairs;
mod placement;

use crate::{
    outcome::{Code, Failure},
    tools::Call,
};
use bytes::Bytes;
use domain::tool::{Method, UrlTemplate};
pub(in crate::tools) use headers::credential;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use placement::Placed;
use url::Url;

/// The header under which the endpoint is told that two requests are one call.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One request of a call: the first, or one that a redirect led to.
pub(in crate::tools) struct Hop {
    pub(super) method: http::Method,
    pub(super) url: Url,
    /// The address as spans may show it: without arguments, wherever they stand.
    pub(super) span_url: String,
    /// The tool's headers and credentials. They go to the origin that they were registered for and nowhere else.
    headers: HeaderMap,
    body: Option<Bytes>,
    idempotency_key: Option<HeaderValue>,
}

impl Hop {
    /// The first request of a call.
    pub(super) fn first(call: &Call) -> Result<Self, Failure> {
        let tool = &call.tool;
        let template = UrlTemplate::parse(&tool.url)
            .map_err(|expected| Failure::new(Code::InvalidTool, format!("url: expected {expected}")))?;
        let mut url = template
            .fill(&call.arguments)
            .map_err(|error| Failure::new(Code::InvalidArguments, error.to_string()))?;
        let mut headers = headers::fixed(tool, call.credentials.as_ref())?;
        let Placed { query, own, body } =
            Placed::new(tool, &template.arguments(), url.query(), &call.arguments)?;
        headers::add_arguments(&mut headers, own)?;
        pairs::append_query(&mut url, &query);
        let body = body.map(|(content_type, bytes)| {
            if let Some(content_type) = content_type {
                headers.entry(CONTENT_TYPE).or_insert(content_type);
            }
            bytes
        });
        let idempotency_key = HeaderValue::from_str(&call.execution_id.to_string())
            .map_err(|_| Failure::new(Code::InvalidTool, "the execution's id is no header value"))?;
        let span_url = tool.url.split('?').next().unwrap_or_default().to_owned();
        Ok(Self {
            method: method(tool.method),
            url,
            span_url,
            headers,
            body,
            idempotency_key: Some(idempotency_key),
        })
    }

    /// A message to another server: a POST of JSON with these headers, credentials among them.
    pub(in crate::tools) fn message(
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        idempotency_key: Option<HeaderValue>,
    ) -> Result<Self, Failure> {
        let parsed = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = parsed
            .ok_or_else(|| Failure::new(Code::InvalidTool, "url: expected an http or https address"))?;
        Ok(Self {
            method: http::Method::POST,
            span_url: url.as_str().split('?').next().unwrap_or_default().to_owned(),
            url,
            headers,
            body: Some(body),
            idempotency_key,
        })
    }

    /// The request for a document, which is nobody's call: no credentials, no key.
    pub(super) fn document(url: &str) -> Result<Self, Failure> {
        let refused = |expected| Failure::new(Code::InvalidArguments, format!("url: expected {expected}"));
        let mut url = Url::parse(url).map_err(|_| refused("an absolute http or https address"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(refused("an absolute http or https address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("an address without user and password"));
        }
        url.set_fragment(None);
        Ok(Self {
            method: http::Method::GET,
            span_url: url.origin().ascii_serialization(), // path and query may hold a secret
            url,
            headers: HeaderMap::new(),
            body: None,
            idempotency_key: None,
        })
    }

    /// The request as the client takes it.
    pub(super) fn request(&self) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method.clone(), self.url.clone());
        *request.headers_mut() = self.headers.clone();
        if let Some(key) = &self.idempotency_key {
            request.headers_mut().insert(IDEMPOTENCY_KEY, key.clone());
        }
        *request.body_mut() = self.body.clone().map(Into::into);
        request
    }

    /// The request that a redirect asks for; `None` when the answer is no redirect.
    pub(super) fn redirected(&self, status: StatusCode, answer: &HeaderMap) -> Result<Option<Self>, Failure> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = answer.get(LOCATION) else {
            return Ok(None);
        };
        let url = location
            .to_str()
            .ok()
            .and_then(|location| self.url.join(location).ok());
        let mut url = url
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Failure::new(
                    Code::InvalidRedirect,
                    "the endpoint redirects to what is no HTTP address",
                )
            })?;
        // A password in it would become credentials that nobody registered.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        let mut hop = Self {
            method: self.method.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            idempotency_key: self.idempotency_key.clone(),
            span_url: url.origin().ascii_serialization(), // the endpoint may repeat arguments in its path
            url,
        };
        if hop.url.origin() != self.url.origin() {
            let content_type = hop.headers.remove(CONTENT_TYPE);
            hop.headers = content_type
                .map(|value| (CONTENT_TYPE, value))
                .into_iter()
                .collect();
        }
        // As RFC 9110 has it for 303, and as browsers do it for the older two.
        let becomes_get = match status.as_u16() {
            303 => hop.method != http::Method::HEAD,
            301 | 302 => hop.method == http::Method::POST,
            _ => false,
        };
        if becomes_get {
            hop.method = http::Method::GET;
            hop.body = None;
            hop.headers.remove(CONTENT_TYPE);
        }
        Ok(Some(hop))
    }
}

fn method(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Patch => http::Method::PATCH,
        Method::Delete => http::Method::DELETE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::http::tests::{call, tool};
    use domain::tool::Credentials;
    use http::header::AUTHORIZATION;
    use serde_json::{Value, json};

    fn redirect(hop: &Hop, status: u16, to: &'static str) -> Result<Option<Hop>, Failure> {
        let answer = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(to))]);
        hop.redirected(StatusCode::from_u16(status).unwrap(), &answer)
    }

    #[test]
    fn arguments_go_into_url_query_or_body() {
        let arguments = json!({"id": "a/b", "tag": ["x", "y&z"], "deep": {"k": 1}, "none": null, "n": 7});
        let get = Hop::first(&call(
            tool("GET", "http://h.example/{id}?fixed=1"),
            arguments.clone(),
        ))
        .unwrap();
        assert_eq!(
            get.url.as_str(),
            "http://h.example/a%2Fb?fixed=1&deep=%7B%22k%22%3A1%7D&n=7&tag=x&tag=y%26z"
        );
        assert!(get.body.is_none());
        let post = Hop::first(&call(tool("POST", "http://h.example/{id}"), arguments)).unwrap();
        assert_eq!(post.url.as_str(), "http://h.example/a%2Fb");
        let body: Value = serde_json::from_slice(&post.body.unwrap()).unwrap();
        assert_eq!(
            body,
            json!({"tag": ["x", "y&z"], "deep": {"k": 1}, "none": null, "n": 7})
        );
        let plain = Hop::first(&call(tool("GET", "http://h.example/x"), json!({}))).unwrap();
        assert_eq!(plain.url.as_str(), "http://h.example/x");
    }

    #[test]
    fn what_was_registered_for_one_origin_does_not_reach_another() {
        let mut call = call(tool("POST", "https://a.example/x"), json!({"k": "v"}));
        call.tool.headers.insert("X-Team".into(), "ours".into());
        call.credentials = Some(Credentials::Bearer { token: "t".into() });
        let first = Hop::first(&call).unwrap();
        let near = redirect(&first, 307, "/y").unwrap().unwrap();
        assert!(near.headers.contains_key(AUTHORIZATION) && near.headers.contains_key("x-team"));
        assert_eq!((near.method.as_str(), near.body.is_some()), ("POST", true));
        for away in [
            "https://b.example/y",
            "http://a.example/y",
            "https://a.example:444/",
            "https://u:p@b.example/",
        ] {
            let hop = redirect(&first, 308, away).unwrap().unwrap();
            assert_eq!(hop.headers.keys().collect::<Vec<_>>(), [CONTENT_TYPE], "{away}");
            assert!(hop.url.username().is_empty() && hop.url.password().is_none());
            let back = redirect(&hop, 307, "https://a.example/x").unwrap().unwrap();
            assert!(
                !back.headers.contains_key(AUTHORIZATION),
                "once dropped, they do not come back"
            );
        }
        let see_other = redirect(&first, 303, "/done").unwrap().unwrap();
        assert_eq!(
            (see_other.method.as_str(), see_other.body.is_some()),
            ("GET", false)
        );
        assert!(redirect(&first, 200, "/y").unwrap().is_none());
        for nowhere in ["file:///etc/passwd", "http://", "gopher://h/"] {
            assert_eq!(
                redirect(&first, 302, nowhere).err().unwrap().code,
                Code::InvalidRedirect,
                "{nowhere}"
            );
        }
    }

    #[test]
    fn credentials_become_headers_that_do_not_print() {
        let basic = Credentials::Basic {
            username: "u".into(),
            password: "p".into(),
        };
        let own = Credentials::Header {
            name: "X-Key".into(),
            value: "k".into(),
        };
        for (credentials, name, value) in [(basic, "authorization", "Basic dTpw"), (own, "x-key", "k")] {
            let mut call = call(tool("GET", "http://h.example/"), json!({}));
            call.credentials = Some(credentials);
            let request = Hop::first(&call).unwrap().request();
            assert_eq!(request.headers()[name], value);
            assert!(request.headers()[name].is_sensitive());
            assert_eq!(
                request.headers()["idempotency-key"],
                call.execution_id.to_string()
            );
        }
    }
}
