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
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::Limited;
use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tower::{Layer, Service};

/// How large the body of this request may be, in bytes: a request extension, for error messages.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit(pub usize);

/// Bounds a request's body, its time to the response's headers and how many run at once; turns panics and errors
/// without a body into problems. One layer, because each costs an allocation a request.
#[derive(Clone)]
pub(crate) struct EdgeLayer {
    in_flight: Arc<Semaphore>,
    max_body_bytes: usize,
    request_timeout: Duration,
}

impl EdgeLayer {
    pub(crate) fn new(settings: &Http) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(settings.max_in_flight.min(Semaphore::MAX_PERMITS))),
            max_body_bytes: settings.max_body_bytes,
            request_timeout: settings.request_timeout,
        }
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
        let request = match bound_body(request, self.limits.max_body_bytes) {
            Ok(request) => request,
            Err(problem) => return refuse(problem),
        };
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

/// Refuses a body that says it is too large, and cuts off one that does not say and is.
fn bound_body(mut request: Request, limit: usize) -> Result<Request, Problem> {
    request.extensions_mut().insert(BodyLimit(limit));
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > limit as u64 => Err(Problem::too_large(limit)),
        // The server reads no more than was declared.
        Some(_) => Ok(request),
        None if request.body().is_end_stream() => Ok(request),
        None => Ok(request.map(|body| Body::new(Limited::new(body, limit)))),
    }
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
