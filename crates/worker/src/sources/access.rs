//! One source, as one caller may use it.

use super::{
    Answered, Kind, Matcher, Space, client,
    settings::{Grant, Source},
    stream,
};
use crate::{
    metrics,
    outcome::{Code, Failure},
};
use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::{sync::Arc, time::Instant};
use url::Url;

const ORG_ID: HeaderName = HeaderName::from_static("x-scope-orgid");

/// What need not be escaped within a segment of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b':');

/// A part of a path that a caller chose, such that it stays one part.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A source with what a caller's grant says. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    name: String,
    /// With what the grant has of its own in its place, and without the grants.
    source: Source,
    matchers: Vec<Matcher>,
    /// For what is asked over HTTP.
    http: Option<Http>,
    /// For what is answered then.
    space: Space,
}

struct Http {
    client: reqwest::Client,
    base: Url,
    org_id: Option<HeaderValue>,
}

impl Access {
    /// As the platform sees it, or as a grant shows it. Reads the files that the settings name.
    pub(super) fn new(
        name: &str,
        source: &Source,
        grant: Option<&Grant>,
        user_agent: &str,
        space: &Space,
    ) -> anyhow::Result<Self> {
        let source = source.granted(grant);
        for file in source.credentials.files() {
            client::read(file)?;
        }
        let http = source.kind.speaks_http().then(|| Http::new(&source, user_agent));
        if http.is_none() {
            stream::check(&source)?;
        }
        let matchers = grant.into_iter().flat_map(|grant| &grant.matchers);
        let matchers = matchers.map(|(name, value)| Matcher {
            name: name.clone(),
            value: value.clone(),
        });
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            matchers: matchers.collect(),
            http: http.transpose()?,
            space: space.clone(),
            source,
        })))
    }

    /// The source's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.0.source.kind
    }

    /// What links begin with; without a slash at its end.
    pub fn public_url(&self) -> &str {
        let Source { public_url, url, .. } = &self.0.source;
        public_url.as_ref().unwrap_or(url).trim_end_matches('/')
    }

    /// What is enforced on everything that is asked; empty where the caller sees all.
    pub fn matchers(&self) -> &[Matcher] {
        &self.0.matchers
    }

    /// How it is set, for what is not asked over HTTP; a grant's own credentials are in it, the grants are not.
    pub fn settings(&self) -> &Source {
        &self.0.source
    }

    /// `GET` for JSON. `path` begins with a slash and follows the source's own; what a caller chose of it went through
    /// [`segment`].
    ///
    /// # Errors
    /// [`Failure`]; where the source answered, its result is `{"status": …}`.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answered, Failure> {
        self.ask(Method::GET, path, query, None).await
    }

    /// `POST` of a form, which long queries need.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_form(&self, path: &str, form: &[(&str, String)]) -> Result<Answered, Failure> {
        let encoded = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let body = ("application/x-www-form-urlencoded", encoded);
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answered, Failure> {
        let body = ("application/json", body.to_string());
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// `DELETE`. An answer without a body is `null`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete(&self, path: &str) -> Result<Answered, Failure> {
        self.ask(Method::DELETE, path, &[], None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<(&'static str, String)>,
    ) -> Result<Answered, Failure> {
        let Inner {
            name, source, http, ..
        } = &*self.0;
        let http = http.as_ref().ok_or_else(|| {
            Failure::new(
                Code::SourceError,
                format!("the source `{name}` is not asked over HTTP"),
            )
        })?;
        self.bounded(async {
            let url = http.url(path, query)?;
            let headers = http.headers(source, body.as_ref().map(|(kind, _)| *kind)).await?;
            let mut request = reqwest::Request::new(method, url);
            *request.headers_mut() = headers;
            *request.body_mut() = body.map(|(_, text)| text.into());
            self.exchange(http, request).await
        })
        .await
    }

    /// Asks within the source's time, over whatever protocol, and counts it.
    ///
    /// # Errors
    /// [`Code::Timeout`], or what `asked` ended with.
    pub(super) async fn bounded<T>(
        &self,
        asked: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Inner { name, source, .. } = &*self.0;
        let account = Account::open(name, source.kind);
        let result = tokio::time::timeout(source.timeout, asked)
            .await
            .unwrap_or_else(|_| {
                let waited = super::time::short(source.timeout);
                let message = format!("the source `{name}` did not answer within {waited}; ask for less");
                Err(Failure::new(Code::Timeout, message))
            });
        account.close(&result);
        result
    }

    async fn exchange(&self, http: &Http, mut request: reqwest::Request) -> Result<Answered, Failure> {
        let Inner {
            name, source, space, ..
        } = &*self.0;
        let mut shown = request.url().clone();
        shown.set_query(None);
        let method = request.method().clone();
        let outgoing = telemetry::client::start(&method, shown.as_str(), request.headers_mut());
        outgoing.span().set("peer.service", name.clone());
        let answer = outgoing.span().run(http.client.execute(request)).await;
        let answer = answer.map_err(|error| client::failure(name, &error));
        let status = answer.as_ref().map(|answer| answer.status().as_u16());
        outgoing.finish(status.map_err(|failure| failure.code.as_str()));
        let answer = answer?;
        let status = answer.status();
        let (body, room) = client::body(name, source, space, answer).await?;
        if !status.is_success() {
            return Err(client::refusal(name, status, &body));
        }
        Ok(Answered::new(client::json(name, &body)?, room))
    }
}

impl Http {
    fn new(source: &Source, user_agent: &str) -> anyhow::Result<Self> {
        let org_id = source.org_id.as_deref().map(HeaderValue::from_str);
        Ok(Self {
            client: client::build(source, &source.tls, user_agent)?,
            base: Url::parse(&source.url).context("its url is none")?,
            org_id: org_id
                .transpose()
                .context("its org_id cannot stand in a header")?,
        })
    }

    /// The address of `path`, which must lead nowhere else.
    fn url(&self, path: &str, query: &[(&str, String)]) -> Result<Url, Failure> {
        let whole = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let mut url = self.base.clone();
        url.set_path(&whole);
        if url.path() != whole || !path.starts_with('/') {
            let message = "what is asked for makes no address";
            return Err(Failure::new(Code::InvalidArguments, message));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn headers(&self, source: &Source, content: Option<&'static str>) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(content) = content {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
        }
        if let Some(org_id) = &self.org_id {
            headers.insert(ORG_ID, org_id.clone());
        }
        if let Some(authorization) = source.credentials.authorization().await? {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        Ok(headers)
    }
}

/// How requests end.
pub(super) const RESULTS: [&str; 7] = [
    "ok",
    "refused",
    "error",
    "unavailable",
    "timeout",
    "too_large",
    "cancelled",
];

/// Counts one request, also one whose caller left.
struct Account<'a> {
    name: &'a str,
    kind: Kind,
    started: Instant,
    result: &'static str,
}

impl<'a> Account<'a> {
    fn open(name: &'a str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            started: Instant::now(),
            result: "cancelled",
        }
    }

    fn close<T>(mut self, result: &Result<T, Failure>) {
        self.result = match result {
            Ok(_) => "ok",
            Err(failure) => match failure.code {
                Code::InvalidArguments => "refused",
                Code::Timeout => "timeout",
                Code::ResponseTooLarge => "too_large",
                Code::SourceUnavailable => "unavailable",
                _ => "error",
            },
        };
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let (name, kind) = (self.name, self.kind.as_str());
        metrics::SOURCE_REQUESTS.inc([name, kind, self.result]);
        metrics::SOURCE_REQUEST_DURATION.record(self.started.elapsed(), [name, kind]);
    }
}
