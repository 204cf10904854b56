//! Calls whose connection closed before anything of them was sent.
//!
//! Servers ask their clients now and then to connect anew (`grpc.max_connection_age`). A call that was given to the
//! closing connection at that moment fails though nothing is wrong and the server has never seen it. It is made again.
//! One whose message had been handed to the connection is not, be it sent or not: it could run twice.

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Bytes;
use std::{
    error::Error as _,
    future::poll_fn,
    iter::successors,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    Status,
    body::Body,
    transport::{Channel, Error},
};
use tower::Service;

/// The pauses before a call is made again: for a moment the closing connection goes on taking calls.
const PAUSES_MS: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// A channel that makes calls again that were never sent.
#[derive(Clone, Debug)]
pub struct Resend(pub(super) Channel);

impl Service<Request<Body>> for Resend {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone is not ready; what was made ready takes the call.
        let next = self.0.clone();
        let channel = std::mem::replace(&mut self.0, next);
        Box::pin(send(channel, request))
    }
}

async fn send(mut channel: Channel, request: Request<Body>) -> Result<Response<Body>, Error> {
    let (parts, mut body) = request.into_parts();
    for pause in PAUSES_MS {
        let message = Message::new(body);
        let attempt = Request::from_parts(parts.clone(), Body::new(message.clone()));
        let error = match channel.call(attempt).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match message.unsent() {
            Some(unsent) if !is_away(&error) => body = unsent,
            _ => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        poll_fn(|task| channel.poll_ready(task)).await?;
    }
    channel.call(Request::from_parts(parts, body)).await
}

/// Whether there was no connection: the peer is away, and asking again at once would not help.
fn is_away(error: &Error) -> bool {
    let mut causes = successors(error.source(), |cause| {
        let cause: &dyn std::error::Error = *cause;
        cause.source()
    });
    causes.any(|cause| cause.is::<tonic::ConnectError>())
}

/// A call's message. It can be had back for as long as nobody has read any of it, and so none of it was sent: a server
/// begins a call only when it has its message.
#[derive(Clone)]
struct Message(Arc<Mutex<State>>);

struct State {
    body: Option<Body>,
    read: bool,
}

impl Message {
    fn new(body: Body) -> Self {
        let state = State {
            body: Some(body),
            read: false,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The message, if none of it was read.
    fn unsent(&self) -> Option<Body> {
        self.with(|state| if state.read { None } else { state.body.take() })
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl http_body::Body for Message {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.with(|state| {
            state.read = true;
            match &mut state.body {
                Some(body) => Pin::new(body).poll_frame(task),
                None => Poll::Ready(None),
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.with(|state| state.body.as_ref().is_none_or(Body::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|state| state.body.as_ref().map(Body::size_hint).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grpc::{ChannelOptions, channel::endpoint, serve::serve},
        settings::Grpc,
    };
    use axum::{Router, routing::post};
    use std::time::Instant;
    use tokio::{net::TcpListener, task::JoinSet};
    use tokio_util::sync::{CancellationToken, DropGuard};
    use tonic::service::Routes;
    use tower::ServiceExt;

    /// A server that has its clients connect anew all the time; its address.
    async fn server() -> (String, DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = Router::new().route("/test/echo", post(async |body: axum::body::Bytes| body));
        let settings = Grpc {
            max_connection_age: Duration::from_millis(25),
            ..Grpc::default()
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serving = serve(listener, Routes::from(routes), &settings, stopped);
            serving.await.expect("to serve");
        });
        (url, stop.drop_guard())
    }

    /// Calls for two seconds on 16 threads of control; how many calls there were, and how many failed.
    async fn hammer<S>(channel: S, url: &str) -> (u32, u32)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Error> + Clone + Send + 'static,
        S::Future: Send,
    {
        let (until, mut callers) = (Instant::now() + Duration::from_secs(2), JoinSet::new());
        for _ in 0..16 {
            let (channel, uri) = (channel.clone(), format!("{url}/test/echo"));
            callers.spawn(async move {
                let (mut calls, mut failed) = (0, 0);
                while Instant::now() < until {
                    let body = http_body_util::Full::from("once");
                    let request = Request::post(&uri).body(Body::new(body)).expect("a request");
                    calls += 1;
                    match channel.clone().oneshot(request).await {
                        Ok(answer) => {
                            let body = axum::body::Body::new(answer.into_body());
                            let text = axum::body::to_bytes(body, 10).await;
                            assert_eq!(text.expect("an answer"), "once");
                        }
                        Err(_) => failed += 1,
                    }
                }
                (calls, failed)
            });
        }
        let all = callers.join_all().await;
        all.into_iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_survive_that_the_server_has_its_clients_connect_anew() {
        let (url, _stop) = server().await;
        let uri: http::Uri = url.parse().expect("an address");
        let channel = endpoint(&uri, &ChannelOptions::default()).connect_lazy();
        let plain = hammer(channel.clone(), &url).await;
        let resent = hammer(Resend(channel), &url).await;
        // What was on its way already when the server said so still fails: about one in ten of those that did.
        assert!(resent.0 > 100 && resent.1 * 2 < plain.1, "{plain:?} {resent:?}");
    }

    #[tokio::test]
    async fn a_peer_that_is_away_is_told_at_once() {
        let uri = http::Uri::from_static("http://127.0.0.1:1");
        let channel = endpoint(&uri, &ChannelOptions::default()).connect_lazy();
        let request = Request::post("http://127.0.0.1:1/test/echo")
            .body(Body::empty())
            .expect("a request");
        let error = Resend(channel)
            .oneshot(request)
            .await
            .expect_err("nobody is there");
        assert!(is_away(&error), "{error:?}");
    }
}
