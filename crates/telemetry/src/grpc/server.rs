//! The server's side.

use super::{
    body::Metered,
    call::{Call, Series, Side},
};
use crate::{metrics::own::DEBUG_REQUESTS, propagate, sampling::Budget, span, tasks};
use opentelemetry::{KeyValue, context::FutureExt};
use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::SystemTime,
};
use tonic::Code;
use tower::{Layer, Service};

/// How many calls a second are debugged because their callers say so. Services pass on what they have admitted, which is
/// less; a stranger who gets to the port needs no credential to say it.
const DEBUGGED_PER_SECOND: u32 = 50;

/// Takes the caller's context from the metadata, believing all of it (only our own services reach this port), and
/// measures and traces each call. For `tonic::transport::Server::builder().layer(..)`, outermost.
#[derive(Clone, Debug)]
pub struct ServerLayer {
    series: Arc<Series>,
    debugged: Arc<Budget>,
}

impl ServerLayer {
    /// The layer of a server.
    #[expect(clippy::new_without_default, reason = "a server has one, made on purpose")]
    #[must_use]
    pub fn new() -> Self {
        Self {
            series: Series::new(Side::Server),
            debugged: Arc::new(Budget::new(DEBUGGED_PER_SECOND)),
        }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        Server {
            inner,
            series: self.series.clone(),
            debugged: self.debugged.clone(),
        }
    }
}

/// The service of [`ServerLayer`].
#[derive(Clone, Debug)]
pub struct Server<S> {
    inner: S,
    series: Arc<Series>,
    debugged: Arc<Budget>,
}

impl<S, B, R> Service<http::Request<B>> for Server<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Metered<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if propagate::asks_for_debug(request.headers()) && !self.debugged.take() {
            request.headers_mut().remove(propagate::DEBUG);
            DEBUG_REQUESTS.inc(["limited"]);
        }
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let parent = propagate::extract(request.headers());
        let open = span::server(&parent, SystemTime::now(), method.clone(), || {
            vec![
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method.clone()),
            ]
        });
        let cx = open.context().clone();
        let mut call = Call::new(&self.series, method.clone(), open);
        let future = {
            let _call = cx.clone().attach();
            self.inner.call(request)
        };
        // Within the context, so that the line about a long poll has the request's ids.
        let future = tasks::polled("grpc", future).of(method, None).with_context(cx);
        Box::pin(async move {
            match future.await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    let body = Metered::new(body, call, &parts);
                    Ok(http::Response::from_parts(parts, body))
                }
                Err(error) => {
                    call.finish(Code::Internal);
                    Err(error)
                }
            }
        })
    }
}
