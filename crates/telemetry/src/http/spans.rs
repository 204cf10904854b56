//! The layer inside authentication: is the request sampled, and its span.

use super::{
    body::{InContext, is_stream},
    scope::{Caller, RequestScope},
    series::{UNMATCHED, method_label},
};
use crate::{
    context::{Context, Sampling},
    metrics::own::DEBUG_REQUESTS,
    sampling::{Budget, Shares},
    span::{self, Open},
};
use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, MatchedPath},
};
use futures_util::future::Either;
use http::{HeaderMap, header, uri::Authority};
use http_body::Body as _;
use opentelemetry::{
    KeyValue,
    context::FutureExt,
    trace::{SpanContext, SpanKind, TraceContextExt},
};
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};
use tower::{Layer, Service};

/// How many requests a second may be sampled because their callers say so. Beyond it, the head ratio decides.
const CLIENT_SAMPLED_PER_SECOND: u32 = 50;
/// How many requests a second may be debugged: of one tenant, and of all together.
const DEBUGGED_PER_TENANT: u32 = 5;
const DEBUGGED_PER_SECOND: u32 = 20;
/// How much of a `User-Agent` is kept, in bytes.
const USER_AGENT_MAX: usize = 256;

/// Decides whether a request is sampled or debugged, now that its caller is known, and opens its server span, back to
/// when it arrived. Belongs directly inside authentication.
#[derive(Clone, Debug)]
pub struct SpanLayer {
    budgets: Arc<Budgets>,
}

#[derive(Debug)]
struct Budgets {
    sampled: Budget,
    debugged: Shares,
}

impl Default for SpanLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl SpanLayer {
    /// A layer with its own allowance of requests that are sampled or debugged at their callers' wish.
    #[must_use]
    pub fn new() -> Self {
        let (sampled, debugged) = (
            Budget::new(CLIENT_SAMPLED_PER_SECOND),
            Shares::new(DEBUGGED_PER_SECOND, DEBUGGED_PER_TENANT),
        );
        Self {
            budgets: Arc::new(Budgets { sampled, debugged }),
        }
    }
}

impl<S> Layer<S> for SpanLayer {
    type Service = Spans<S>;

    fn layer(&self, inner: S) -> Spans<S> {
        Spans {
            inner,
            budgets: self.budgets.clone(),
        }
    }
}

/// The service of [`SpanLayer`].
#[derive(Clone, Debug)]
pub struct Spans<S> {
    inner: S,
    budgets: Arc<Budgets>,
}

type Boxed<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;
type Mapped<F, R> = futures_util::future::MapOk<F, fn(http::Response<R>) -> http::Response<Body>>;

impl<S, B, R> Service<http::Request<B>> for Spans<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<axum::BoxError>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<Mapped<S::Future, R>, Boxed<S::Error>>;

    fn poll_ready(&mut self, task: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let scope = request.extensions().get::<RequestScope>().cloned();
        let open = scope
            .filter(|scope| !scope.arrival().excluded)
            .and_then(|scope| self.open(&request, &scope));
        let Some(open) = open else {
            return Either::Left(map_body(self.inner.call(request)));
        };
        let future = {
            let _span = open.context().clone().attach();
            self.inner.call(request)
        };
        let future = future.with_context(open.context().clone());
        Either::Right(Box::pin(async move {
            let response = future.await.inspect_err(|_| open.fail("500"))?;
            Ok(finish(response.map(Body::new), open))
        }))
    }
}

fn map_body<F, R, E>(future: F) -> Mapped<F, R>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<axum::BoxError>,
{
    futures_util::TryFutureExt::map_ok(future, |response| response.map(Body::new))
}

impl<S> Spans<S> {
    /// The server span, if there is to be one.
    fn open<B>(&self, request: &http::Request<B>, scope: &RequestScope) -> Option<Open> {
        if let Some(route) = request.extensions().get::<MatchedPath>() {
            scope.set_route(route.as_str());
        }
        self.decide(scope);
        let remote = scope
            .arrival()
            .remote
            .clone()
            .unwrap_or_else(SpanContext::empty_context);
        let base = Context::map_current(|cx| cx.with_remote_span_context(remote));
        let open = span::sampled(
            &base,
            SpanKind::Server,
            Some(scope.arrival().started),
            None,
            || {
                let name = format!(
                    "{} {}",
                    method_label(request.method()),
                    scope.route().unwrap_or(UNMATCHED)
                );
                (name.into(), attributes(request, scope))
            },
        )?;
        scope.set_context(open.context().clone());
        Some(open)
    }

    fn decide(&self, scope: &RequestScope) {
        let (arrival, request) = (scope.arrival(), scope.request());
        // Who isn't known gets nothing; the wish is counted when the request has been answered.
        let Some(caller) = scope.caller() else { return };
        let flagged = arrival.remote.as_ref().is_some_and(SpanContext::is_sampled);
        if !flagged || self.budgets.sampled.take() {
            request.set_sampling(Sampling::Caller);
        }
        if arrival.wants_debug && caller.may_debug && self.budgets.debugged.take(&caller.tenant) {
            request.set_debug();
            DEBUG_REQUESTS.inc(["granted"]);
        }
    }
}

fn attributes<B>(request: &http::Request<B>, scope: &RequestScope) -> Vec<KeyValue> {
    let headers = request.headers();
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let method = match method_label(request.method()) {
        "other" => "_OTHER",
        known => known,
    };
    let mut attributes = Vec::with_capacity(16);
    attributes.push(KeyValue::new("http.request.method", method));
    attributes.push(KeyValue::new("url.path", request.uri().path().to_owned()));
    attributes.push(KeyValue::new(
        "url.scheme",
        request.uri().scheme_str().unwrap_or("http").to_owned(),
    ));
    if let Some(route) = scope.route() {
        attributes.push(KeyValue::new("http.route", route.to_owned()));
    }
    if let Some(agent) = text(header::USER_AGENT) {
        let kept = agent.get(..USER_AGENT_MAX).unwrap_or(agent);
        attributes.push(KeyValue::new("user_agent.original", kept.to_owned()));
    }
    if let Some(size) = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<i64>().ok()) {
        attributes.push(KeyValue::new("http.request.body.size", size));
    }
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        attributes.push(KeyValue::new("client.address", peer.ip().to_string()));
    }
    if let Some(Caller { tenant, key_id, .. }) = scope.caller() {
        attributes.push(KeyValue::new("tenant.id", tenant.to_string()));
        attributes.push(KeyValue::new("api_key.id", key_id.clone()));
    }
    server_address(headers, request.uri(), &mut attributes);
    attributes
}

fn server_address(headers: &HeaderMap, uri: &http::Uri, attributes: &mut Vec<KeyValue>) {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let Some(authority) = host.as_ref().or(uri.authority()) else {
        return;
    };
    attributes.push(KeyValue::new("server.address", authority.host().to_owned()));
    if let Some(port) = authority.port_u16() {
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
}

/// Notes how the request ended. A streamed body keeps the span open until it has been sent.
fn finish(response: http::Response<Body>, open: Open) -> http::Response<Body> {
    let status = response.status();
    open.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        open.fail(status.as_str().to_owned());
    }
    if let Some(size) = response.body().size_hint().exact() {
        open.set("http.response.body.size", i64::try_from(size).unwrap_or(i64::MAX));
    }
    if !is_stream(response.body()) {
        return response;
    }
    let cx = open.context().clone();
    response.map(|inner| {
        Body::new(InContext {
            inner,
            cx,
            open: Some(open),
            record: None,
        })
    })
}
