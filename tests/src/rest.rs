//! A client of the REST API.

use crate::Json;
use anyhow::Context;
use http::{HeaderMap, HeaderName, Method, StatusCode};

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub text: String,
}

impl Answer {
    /// Reads a response.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn read(response: reqwest::Response) -> anyhow::Result<Self> {
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Self {
            status,
            headers,
            text: response.text().await?,
        })
    }

    /// A header, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Its body as JSON, `null` where it is none.
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Its body as JSON, where the status is the expected one.
    ///
    /// # Errors
    /// When it is another; with the body.
    pub fn expect(&self, status: u16) -> anyhow::Result<Json> {
        anyhow::ensure!(
            self.status.as_u16() == status,
            "expected {status}, got {}: {}",
            self.status,
            self.text
        );
        Ok(self.json())
    }

    /// The problem that it says: `application/problem+json` with `code`, with the ids that make it traceable.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn problem(&self, status: u16, code: &str) -> anyhow::Result<Json> {
        let body = self.expect(status)?;
        let kind = self.header("content-type");
        anyhow::ensure!(
            kind.starts_with("application/problem+json"),
            "content type {kind}: {}",
            self.text
        );
        anyhow::ensure!(body["code"] == code, "expected the code {code}: {}", self.text);
        anyhow::ensure!(body["status"] == status, "the status in the body: {}", self.text);
        anyhow::ensure!(body["title"].is_string(), "no title: {}", self.text);
        anyhow::ensure!(
            body["request_id"] == self.header("x-request-id"),
            "request ids differ: {self:?}"
        );
        anyhow::ensure!(
            body["trace_id"] == self.header("x-trace-id"),
            "trace ids differ: {self:?}"
        );
        anyhow::ensure!(!self.header("x-request-id").is_empty(), "no request id: {self:?}");
        Ok(body)
    }
}

/// A caller with a key.
#[derive(Clone)]
pub struct Rest {
    client: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl Rest {
    /// A caller of the service at `base` (`http://host:port`).
    pub fn new(base: &str, key: Option<&str>) -> Self {
        Self {
            client: crate::http_client(),
            base: base.to_owned(),
            key: key.map(str::to_owned),
        }
    }

    /// The same with another key.
    #[must_use]
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self {
            key: key.map(str::to_owned),
            ..self.clone()
        }
    }

    /// The same of the service at `base`.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// A request that is yet to be sent.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request, with headers, with or without a body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<&Json>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.request(method.clone(), path);
        for (name, value) in headers {
            request = request.header(HeaderName::from_static(name), *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("{method} {path}"))?;
        Answer::read(response).await
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, &[], None).await
    }

    /// POST.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: &Json) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// PATCH.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn patch(&self, path: &str, body: &Json) -> anyhow::Result<Answer> {
        self.send(Method::PATCH, path, &[], Some(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::DELETE, path, &[], None).await
    }
}
