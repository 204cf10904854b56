//! The client's side.

use super::{
    body::Metered,
    call::{Call, Series, Side},
};
use crate::{propagate, span};
use opentelemetry::{KeyValue, context::FutureExt};
use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};
use tonic::Code;
use tower::{Layer, Service};

/// Sends the current context along with each call, and measures and traces it. Around a `tonic` channel:
/// `ServiceBuilder::new().layer(ClientLayer::new("rest-api")).service(channel)` is what a generated client takes.
#[derive(Clone, Debug)]
pub struct ClientLayer {
    peer: &'static str,
    series: Arc<Series>,
}

impl ClientLayer {
    /// The layer of calls to the service of that name.
    #[must_use]
    pub fn new(peer: &'static str) -> Self {
        Self {
            peer,
            series: Series::new(Side::Client(peer)),
        }
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = Client<S>;

    fn layer(&self, inner: S) -> Client<S> {
        Client {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`ClientLayer`].
#[derive(Clone, Debug)]
pub struct Client<S> {
    inner: S,
    layer: ClientLayer,
}

impl<S, B, R> Service<http::Request<B>> for Client<S>
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
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let open = span::client(method.clone(), || {
            vec![
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method.clone()),
                KeyValue::new("server.address", self.layer.peer),
            ]
        });
        propagate::inject(open.context(), request.headers_mut());
        let cx = open.context().clone();
        let mut call = Call::new(&self.layer.series, method, open);
        let future = {
            let _call = cx.clone().attach();
            self.inner.call(request)
        };
        let future = future.with_context(cx);
        Box::pin(async move {
            match future.await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    let body = Metered::new(body, call, &parts);
                    Ok(http::Response::from_parts(parts, body))
                }
                Err(error) => {
                    // No answer at all: the peer is away or the connection broke.
                    call.finish(Code::Unavailable);
                    Err(error)
                }
            }
        })
    }
}
