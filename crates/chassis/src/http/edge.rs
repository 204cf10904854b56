//! What keeps one request from hurting the others.

use crate::{Problem, problem, settings::Http, tasks::panic_message};
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, future::BoxFuture};
use http::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT},
};
use http_body_util::{BodyExt, Limited};
use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tower::{Layer, Service};

/// How much of a body that is too large is read and thrown away, bytes, and for how long.
const MOST_DISCARDED: usize = 16 << 20;
const LONGEST_DISCARD: Duration = Duration::from_secs(2);

/// How large the body of this request may be, in bytes: a request extension, for error messages.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub usize);

/// A path whose requests may be larger than others. Who serves it holds few of them at once.
#[derive(Clone, Copy, Debug)]
pub struct LargerBody {
    /// The whole path, without parameters.
    pub path: &'static str,
    /// How large, in bytes; never less than what others may be.
    pub bytes: usize,
}

/// Bounds a request's body, its time to the response's headers and how many run at once; turns panics and errors
/// without a body into problems. One layer, because each costs an allocation a request.
#[derive(Clone)]
pub(crate) struct EdgeLayer {
    in_flight: Arc<Semaphore>,
    max_body_bytes: usize,
    larger: Option<LargerBody>,
    request_timeout: Duration,
}

impl EdgeLayer {
    pub(crate) fn new(settings: &Http) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(settings.max_in_flight.min(Semaphore::MAX_PERMITS))),
            max_body_bytes: settings.max_body_bytes,
            larger: None,
            request_timeout: settings.request_timeout,
        }
    }

    pub(super) fn with(self, larger: LargerBody) -> Self {
        Self {
            larger: Some(larger),
            ..self
        }
    }

    fn body_limit(&self, path: &str) -> usize {
        let larger = self.larger.filter(|larger| larger.path == path);
        larger.map_or(self.max_body_bytes, |larger| {
            larger.bytes.max(self.max_body_bytes)
        })
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge {
            inner,
            limits: self.clone(),
        }
    }
}

/// Made by [`EdgeLayer`].
#[derive(Clone)]
pub(crate) struct Edge<S> {
    inner: S,
    limits: EdgeLayer,
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Error = Infallible> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let limit = self.limits.body_limit(request.uri().path());
        if declared_length(&request).is_some_and(|length| length > limit as u64) {
            return refuse_body(request, limit);
        }
        let request = bound_body(request, limit);
        let Ok(permit) = self.limits.in_flight.clone().try_acquire_owned() else {
            let problem =
                Problem::unavailable("overloaded", "the service is handling as many requests as it can");
            return refuse(problem.retry_after(Duration::from_secs(1)));
        };
        let is_head = request.method() == Method::HEAD;
        let limit = self.limits.request_timeout;
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = match timeout(limit, AssertUnwindSafe(answer).catch_unwind()).await {
                Ok(Ok(Ok(response))) => with_body(response.into_response(), is_head),
                Ok(Err(panic)) => {
                    tracing::error!(panic = panic_message(&*panic), "a request handler panicked");
                    Problem::internal().into_response()
                }
                Err(_) => took_too_long(limit).into_response(),
            };
            // A streamed response is bounded by its own rules: it has begun, so it counts no longer.
            drop(permit);
            Ok(response)
        })
    }
}

fn refuse(problem: Problem) -> BoxFuture<'static, Result<Response, Infallible>> {
    // In a future, so that the response is made where the request's ids are known.
    Box::pin(async move { Ok(problem.into_response()) })
}

/// Refuses a body that says it is too large. What arrives of it is read for a while: a connection that is closed on
/// unread bytes is reset, and a client that is still sending would never see why. One that asked before it sends gets
/// its answer at once.
fn refuse_body(request: Request, limit: usize) -> BoxFuture<'static, Result<Response, Infallible>> {
    let asked = request.headers().contains_key(EXPECT);
    Box::pin(async move {
        if !asked {
            let mut body = Limited::new(request.into_body(), MOST_DISCARDED);
            let discard = async { while let Some(Ok(_)) = body.frame().await {} };
            let _too_slow = timeout(LONGEST_DISCARD, discard).await;
        }
        Ok(Problem::too_large(limit).into_response())
    })
}

fn declared_length(request: &Request) -> Option<u64> {
    let length = request.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Cuts off a body that does not say that it is too large and is.
fn bound_body(mut request: Request, limit: usize) -> Request {
    request.extensions_mut().insert(BodyLimit(limit));
    // The server reads no more than was declared.
    if declared_length(&request).is_some() || request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::new(Limited::new(body, limit)))
}

/// 504, not 503: what was begun may have had its effect, so nobody should try again by himself.
fn took_too_long(limit: Duration) -> Problem {
    let detail = format!(
        "the request took longer than {}",
        humantime::format_duration(limit)
    );
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "request_timeout", detail)
}

/// Gives an error without a body one, keeping its headers (`Allow`, for one).
fn with_body(response: Response, is_head: bool) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || is_head || response.body().size_hint().exact() != Some(0) {
        return response;
    }
    let (parts, _) = response.into_parts();
    let mut answer = problem::for_status(status).into_response();
    for (name, value) in &parts.headers {
        if name != CONTENT_LENGTH && name != CONTENT_TYPE {
            answer.headers_mut().append(name, value.clone());
        }
    }
    *answer.extensions_mut() = parts.extensions;
    answer
}

#[cfg(test)]
#[path = "edge_tests.rs"]
mod tests;
