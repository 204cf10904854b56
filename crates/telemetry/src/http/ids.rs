//! The outermost layer: ids, metrics, the access log.

use super::{
    body::{InContext, is_stream},
    scope::{Arrival, RequestScope},
    series::{Series, UNMATCHED, method_label},
};
use crate::{
    context::{self, Context, Request, RequestId, Sampling},
    metrics::{GaugeHandle, own::DEBUG_REQUESTS},
    propagate,
    recent::{self, Description, Entry, Pending},
    tasks,
};
use axum::{
    body::{Body, Bytes},
    extract::MatchedPath,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use opentelemetry::{
    context::FutureExt,
    trace::{SpanContext, TraceContextExt},
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::{Duration, SystemTime},
};
use tower::{Layer, Service};

/// Gives each request its ids and its [`RequestScope`], measures it, writes its access-log line, and tells the client
/// the ids. Outermost, but inside axum's routing (`Router::layer`), so that the route is known.
#[derive(Clone, Debug, Default)]
pub struct IdsLayer {
    excluded: Vec<&'static str>,
    series: Arc<Series>,
}

impl IdsLayer {
    /// A layer that measures everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a path, and what lies under it, out of the metrics, the traces and (unless the level is debug) the access
    /// log: `/admin` stands for `/admin` and `/admin/…`.
    #[must_use]
    pub fn exclude(mut self, path: &'static str) -> Self {
        self.excluded.push(path);
        self
    }

    fn excludes(&self, path: &str) -> bool {
        let under = |rest: &str| rest.is_empty() || rest.starts_with('/');
        self.excluded
            .iter()
            .any(|excluded| path.strip_prefix(excluded).is_some_and(under))
    }
}

impl<S> Layer<S> for IdsLayer {
    type Service = Ids<S>;

    fn layer(&self, inner: S) -> Ids<S> {
        Ids {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`IdsLayer`].
#[derive(Clone, Debug)]
pub struct Ids<S> {
    inner: S,
    layer: IdsLayer,
}

impl<S, B, R> Service<http::Request<B>> for Ids<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<axum::BoxError>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let excluded = self.layer.excludes(request.uri().path());
        let (scope, cx) = arrive(request.headers_mut(), excluded);
        let answering = Answering::new(&self.layer, &request, scope.clone(), cx.clone());
        request.extensions_mut().insert(scope);
        let future = {
            let _request = cx.clone().attach();
            self.inner.call(request)
        };
        // Within the context, so that the line about a long poll has the request's ids.
        let future = tasks::polled("http", future)
            .of(answering.method, answering.route.as_ref())
            .with_context(cx);
        Box::pin(async move {
            match future.await {
                Ok(response) => Ok(answering.answered(response.map(Body::new))),
                Err(error) => {
                    answering.failed();
                    Err(error)
                }
            }
        })
    }
}

/// Takes from the headers what a stranger may say, and removes what it may not.
fn arrive(headers: &mut HeaderMap, excluded: bool) -> (RequestScope, Context) {
    let remote = propagate::extract_remote(headers);
    let id = propagate::request_id(headers).unwrap_or_else(RequestId::new);
    let wants_debug = propagate::asks_for_debug(headers);
    headers.remove(propagate::DEBUG);
    headers.remove("baggage");
    let request = Request::new(id, remote.as_ref(), Sampling::Head);
    let state = remote
        .as_ref()
        .map(|r| r.trace_state().clone())
        .unwrap_or_default();
    let cx = context::spanless(
        &Context::new().with_value(request.clone()),
        request.trace_id(),
        state,
    );
    let arrival = Arrival {
        remote,
        started: SystemTime::now(),
        wants_debug,
        excluded,
    };
    (RequestScope::new(request, arrival), cx)
}

/// A request being answered. Dropped before that, the client hung up: status 499.
struct Answering {
    series: Arc<Series>,
    in_flight: Option<GaugeHandle>,
    method: &'static str,
    route: Option<MatchedPath>,
    scope: RequestScope,
    cx: Context,
    done: bool,
}

impl Answering {
    fn new<B>(layer: &IdsLayer, request: &http::Request<B>, scope: RequestScope, cx: Context) -> Self {
        let series = layer.series.clone();
        let in_flight = (!scope.arrival().excluded).then(|| series.in_flight().clone());
        if let Some(gauge) = &in_flight {
            gauge.add(1);
        }
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = method_label(request.method());
        Self {
            series,
            in_flight,
            method,
            route,
            scope,
            cx,
            done: false,
        }
    }

    fn answered(mut self, mut response: http::Response<Body>) -> http::Response<Body> {
        if self.route.is_none() {
            self.route = response.extensions().get::<MatchedPath>().cloned();
        }
        let cx = self.scope.context().unwrap_or(&self.cx).clone();
        let span = cx.span();
        write_ids(
            response.headers_mut(),
            self.scope.request_id(),
            span.span_context(),
        );
        let record = self.finish(response.status(), response.body().size_hint().exact());
        if is_stream(response.body()) {
            response = response.map(|inner| {
                Body::new(InContext {
                    inner,
                    cx: cx.clone(),
                    open: None,
                    record,
                })
            });
        }
        response
    }

    fn failed(mut self) {
        self.finish(StatusCode::INTERNAL_SERVER_ERROR, None);
    }

    /// Measures and logs it. What is to be kept of it is kept when the answer is dropped.
    fn finish(&mut self, status: StatusCode, bytes: Option<u64>) -> Option<Pending> {
        self.done = true;
        let took = self.scope.request().started().elapsed();
        let route = self
            .route
            .as_ref()
            .map(MatchedPath::as_str)
            .or(self.scope.route())
            .unwrap_or(UNMATCHED);
        // Exemplars and the log line take their ids from the context.
        let _request = self.scope.context().unwrap_or(&self.cx).clone().attach();
        if let Some(gauge) = &self.in_flight {
            gauge.sub(1);
            self.series.answered(self.method, route, status, took);
        }
        if let Some(outcome) = self.scope.debug_refused() {
            DEBUG_REQUESTS.inc([outcome]);
        }
        access_line(
            self.method,
            route,
            status,
            took,
            bytes,
            self.scope.arrival().excluded,
        );
        self.record(route, status, took)
    }

    fn record(&self, route: &str, status: StatusCode, took: Duration) -> Option<Pending> {
        if self.scope.arrival().excluded {
            return None;
        }
        let cx = self.scope.context().unwrap_or(&self.cx);
        let (span, failed) = (cx.span(), status.is_server_error());
        recent::pending(self.scope.request(), span.span_context(), took, failed, || {
            Description {
                kind: Entry::Http,
                name: format!("{} {route}", self.method),
                status: status.as_str().to_owned().into(),
                key_id: self.scope.caller().map(|caller| caller.key_id.clone()),
            }
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.done {
            self.finish(client_closed_request(), None);
        }
    }
}

/// 499, as nginx has it: the client hung up before the answer.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is within 100 to 999")
}

fn access_line(
    method: &str,
    path: &str,
    status: StatusCode,
    took: Duration,
    bytes: Option<u64>,
    excluded: bool,
) {
    let duration_ms = took.as_micros() as f64 / 1000.0;
    let code = status.as_u16();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(target: "access", method, path, status = code, duration_ms, bytes, "request")
        };
    }
    if status.is_server_error() {
        line!(warn);
    } else if excluded {
        line!(debug);
    } else {
        line!(info);
    }
}

fn write_ids(headers: &mut HeaderMap, id: &RequestId, span: &SpanContext) {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(propagate::REQUEST_ID, id);
    }
    let trace_id = span.trace_id().to_string();
    let response = format!("00-{trace_id}-{}-{:02x}", span.span_id(), span.trace_flags());
    if let (Ok(trace_id), Ok(response)) = (HeaderValue::try_from(trace_id), HeaderValue::try_from(response)) {
        headers.insert(propagate::TRACE_ID, trace_id);
        headers.insert(propagate::TRACE_RESPONSE, response);
    }
}
