use super::tls::{self, Tls};
use crate::{settings::Grpc, tasks::panic_message};
use http::HeaderValue;
use std::{any::Any, time::Duration};
use telemetry::grpc::ServerLayer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    service::Routes,
    transport::{Error, Server, server::TcpIncoming},
};
use tower_http::catch_panic::CatchPanicLayer;

/// Serves gRPC until `stop`, then finishes what is in flight. There is no limit to how long that takes: the caller has one.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Routes,
    settings: &Grpc,
    tls: Option<Tls>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .max_connection_age(settings.max_connection_age)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(ServerLayer::new())
        // Inside of the layer that counts: a panic is a call that failed.
        .layer(CatchPanicLayer::custom(internal))
        .add_routes(routes);
    let stop = stop.cancelled_owned();
    match tls {
        Some(tls) => {
            let connections = tls::accept(connections, tls);
            server.serve_with_incoming_shutdown(connections, stop).await
        }
        None => server.serve_with_incoming_shutdown(connections, stop).await,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the layer's")]
fn internal(panic: Box<dyn Any + Send>) -> http::Response<Body> {
    tracing::error!(panic = panic_message(&*panic), "an RPC handler panicked");
    let mut response = http::Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("13"));
    headers.insert("grpc-message", HeaderValue::from_static("internal%20error"));
    response
}
