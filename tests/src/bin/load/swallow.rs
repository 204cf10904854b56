//! A collector that takes spans and forgets them, without so much as decoding them: what it takes, the services don't
//! get.

use axum::{Router, body::Body, extract::State, response::Response, routing::post};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

/// An empty message, framed as gRPC frames it.
const EMPTY: &[u8] = &[0; 5];

/// A running collector; ends with the program.
pub(crate) struct Swallow {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Swallow {
    /// Starts one on a free port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let router = Router::new().route(path, post(swallow)).with_state(bytes.clone());
        let serving = Server::builder()
            .add_routes(Routes::from(router))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        Ok(Self { address, bytes })
    }

    /// The endpoint to configure.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was sent, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

async fn swallow(State(bytes): State<Arc<AtomicU64>>, mut body: Body) -> Response {
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, |data| data.len());
        bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::from(EMPTY).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
