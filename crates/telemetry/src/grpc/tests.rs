use super::*;
use crate::{ServiceInfo, metrics::Registry, settings, traces::testing};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use opentelemetry::trace::{SpanKind, Status};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};
use tonic::{body::Body, server::NamedService, transport::Channel};
use tower::{Layer, Service};

/// A response with one message and a status in its trailers, as real ones have it.
struct Script(VecDeque<Frame<Bytes>>);

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// Answers `/test.Echo/Say` with the status that the request's `x-status` asks for, and the request id it knows.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let id = crate::context::current_request_id().unwrap().to_string();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", request.headers()["x-status"].clone());
        let message = Bytes::from_static(&[0, 0, 0, 0, 0]);
        let frames = [Frame::data(message), Frame::trailers(trailers)];
        let mut response = http::Response::new(Body::new(Script(frames.into())));
        response
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        response
            .headers_mut()
            .insert("saw-request-id", id.parse().unwrap());
        std::future::ready(Ok(response))
    }
}

/// A server on a real socket, and a channel to it.
pub(crate) async fn peer() -> Client<Channel> {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder()
        .layer(ServerLayer::new())
        .add_service(Echo)
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    ClientLayer::new("echo").layer(channel)
}

/// Calls it; gives what the server saw as the request id.
pub(crate) async fn call(client: &mut Client<Channel>, status: &str) -> String {
    let request = http::Request::post("/test.Echo/Say")
        .header("content-type", "application/grpc")
        .header("authorization", "Bearer s3cret")
        .header("x-status", status)
        .body(Body::empty())
        .unwrap();
    poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
    let response = client.call(request).await.unwrap();
    let id = response.headers()["saw-request-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        frame.unwrap();
    }
    id
}

fn in_runtime<F: Future>(future: F) -> (F::Output, String) {
    let info = ServiceInfo {
        name: "test",
        version: "0",
    };
    let declarations = [crate::metrics::own::DECLARATIONS];
    let registry = Registry::new(info.name, &declarations, &settings::Metrics::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let output = ::metrics::with_local_recorder(registry.recorder(), || runtime.block_on(future));
    (output, registry.render(None).1)
}

#[test]
fn the_status_comes_from_the_trailers_on_both_sides() {
    testing::tracer();
    let (_, text) = in_runtime(async {
        let mut client = peer().await;
        call(&mut client, "0").await;
        call(&mut client, "13").await;
        // The server ends its side of the call when its body has been read to the end.
        testing::settle().await;
    });
    for (side, labels) in [("server", ""), ("client", "peer=\"echo\",")] {
        for code in ["OK", "INTERNAL"] {
            let line = format!(
                "grpc_{side}_requests_total{{service=\"test\",{labels}method=\"test.Echo/Say\",code=\"{code}\"}} 1"
            );
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}

#[test]
fn one_trace_and_no_credentials_in_it() {
    testing::tracer();
    let parent = crate::span::linked(
        &sampled_origin("4bf92f3577b34da6a3ce929d0e0e4701"),
        "job",
        Vec::new,
    );
    let trace_id = {
        let _job = parent.context().clone().attach();
        crate::context::current_trace_id().unwrap()
    };
    let job = parent.context().clone();
    in_runtime(crate::span::in_context(
        async {
            let mut client = peer().await;
            assert_eq!(call(&mut client, "13").await, "req-7");
            testing::settle().await;
        },
        job,
    ));
    drop(parent);
    let spans = testing::spans(&trace_id);
    let of = |kind| spans.iter().find(|span| span.span_kind == kind).unwrap();
    let (job, client, server) = (of(SpanKind::Consumer), of(SpanKind::Client), of(SpanKind::Server));
    assert_eq!(client.parent_span_id, job.span_context.span_id());
    assert_eq!(server.parent_span_id, client.span_context.span_id());
    assert_eq!(
        job.links.links[0].span_context.trace_id().to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4701"
    );
    assert_eq!(server.status, Status::error(""));
    assert_eq!(server.name, "test.Echo/Say");
    assert!(!format!("{spans:?}").contains("s3cret"));
}

fn sampled_origin(trace_id: &str) -> crate::context::Context {
    let mut headers = http::HeaderMap::new();
    headers.insert(
        "traceparent",
        format!("00-{trace_id}-00f067aa0ba902b7-01").parse().unwrap(),
    );
    headers.insert("x-request-id", "req-7".parse().unwrap());
    crate::propagate::extract(&headers)
}

#[test]
fn who_asks_for_debug_without_end_is_answered_and_gets_it_seldom() {
    const ASKED: usize = 500;
    let debugged = AtomicUsize::new(0);
    let ((), text) = in_runtime(async {
        let answer = tower::service_fn(|_: http::Request<Body>| {
            let debug = crate::context::Request::with_current(crate::context::Request::is_debug);
            debugged.fetch_add(usize::from(debug == Some(true)), Ordering::Relaxed);
            crate::context::withdraw_debug();
            let debug = crate::context::Request::with_current(crate::context::Request::is_debug);
            assert_eq!(debug, Some(false), "withdrawn");
            std::future::ready(Ok::<_, Infallible>(http::Response::new(Body::empty())))
        });
        let mut server = ServerLayer::new().layer(answer);
        for _ in 0..ASKED {
            let request = http::Request::post("/test.Echo/Say").header("x-debug-trace", "true");
            server.call(request.body(Body::empty()).unwrap()).await.unwrap();
        }
    });
    let debugged = debugged.into_inner();
    // Some seconds may pass meanwhile, and bring new ones.
    assert!((50..ASKED).contains(&debugged), "{debugged}");
    for (outcome, count) in [("forbidden", debugged), ("limited", ASKED - debugged)] {
        let line = format!(r#"debug_requests_total{{service="test",outcome="{outcome}"}} {count}"#);
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[test]
fn a_call_that_is_dropped_was_cancelled() {
    testing::tracer();
    let (_, text) = in_runtime(async {
        let mut client = ClientLayer::new("echo").layer(tower::service_fn(|_: http::Request<Body>| async {
            std::future::pending::<Result<http::Response<Body>, Infallible>>().await
        }));
        let request = http::Request::post("/test.Echo/Say").body(Body::empty()).unwrap();
        drop(client.call(request));
    });
    assert!(text.contains("code=\"CANCELLED\"} 1"), "{text}");
}
