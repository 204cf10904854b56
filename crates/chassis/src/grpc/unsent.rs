//! Calls whose connection closed before anything of them was sent.
//!
//! Servers ask their clients now and then to connect anew (`grpc.max_connection_age`). A call that was given to the
//! closing connection at that moment fails though nothing is wrong and the server has never seen it. It is made again.
//! One whose message had been handed to the connection is not, be it sent or not: it could run twice. But when a server
//! that closes the connection says itself that it did not get so far (`GOAWAY`, RFC 9113, 6.8), it is.
//!
//! A call to a name is also made again when there was no connection: a member that has just gone stays among a name's
//! addresses for some seconds, and another takes the call.

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Bytes;
use std::{
    collections::VecDeque,
    error::Error as _,
    future::poll_fn,
    iter::successors,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tonic::{
    Status,
    body::Body,
    transport::{Channel, Error},
};
use tower::Service;

/// The pauses before a call is made again: for a moment the closing connection goes on taking calls.
const PAUSES_MS: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// For how long a call is made again that finds no connection: longer than a name's addresses are believed here, so that
/// mostly also the one that takes the place of a name's only member is found. The longest pause in between.
const AWAY_FOR: Duration = Duration::from_secs(5);
const AWAY_PAUSE: Duration = Duration::from_millis(200);

/// A channel that makes calls again that were never sent.
#[derive(Clone, Debug)]
pub struct Resend {
    channel: Channel,
    /// Whether a peer that is away may be elsewhere soon.
    named: bool,
}

impl Resend {
    /// To one address, or with `named` to whatever a name stands for now.
    pub(super) fn new(channel: Channel, named: bool) -> Self {
        Self { channel, named }
    }
}

impl Service<Request<Body>> for Resend {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone is not ready; what was made ready takes the call.
        let next = self.channel.clone();
        let channel = std::mem::replace(&mut self.channel, next);
        Box::pin(send(channel, request, self.named))
    }
}

async fn send(mut channel: Channel, request: Request<Body>, named: bool) -> Result<Response<Body>, Error> {
    let (parts, mut body) = request.into_parts();
    let begun = Instant::now();
    let mut closing = PAUSES_MS.into_iter().map(Duration::from_millis);
    let mut away = Duration::from_millis(1);
    loop {
        let message = Message::new(body);
        let attempt = Request::from_parts(parts.clone(), Body::new(message.clone()));
        let error = match channel.call(attempt).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let pause = if !is_away(&error) {
            closing.next()
        } else if named && begun.elapsed() < AWAY_FOR {
            away = (2 * away).min(AWAY_PAUSE);
            Some(away)
        } else {
            None
        };
        let (Some(unsent), Some(pause)) = (message.unsent(is_left_out(&error)), pause) else {
            return Err(error);
        };
        body = unsent;
        tokio::time::sleep(pause).await;
        poll_fn(|task| channel.poll_ready(task)).await?;
    }
}

/// Whether there was no connection: the peer is away.
fn is_away(error: &Error) -> bool {
    causes(error).any(|cause| cause.is::<tonic::ConnectError>())
}

/// Whether the peer closes the connection in order and says that it has not begun this call: HTTP/2 lets those go on that
/// it has.
fn is_left_out(error: &Error) -> bool {
    let said = |cause: &h2::Error| {
        cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    };
    causes(error).any(|cause| cause.downcast_ref().is_some_and(said))
}

fn causes<'e>(error: &'e Error) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    successors(error.source(), |cause| {
        let cause: &(dyn std::error::Error + 'static) = *cause;
        cause.source()
    })
}

/// How much of a message is kept until there is an answer, bytes.
const KEPT: usize = 64 << 10;

/// A call's message. It can be had back for as long as nobody has read any of it, and so none of it was sent: a server
/// begins a call only when it has its message.
#[derive(Clone)]
struct Message(Arc<Mutex<State>>);

struct State {
    body: Option<Body>,
    /// What was read of it, as far as that is kept.
    read: VecDeque<Bytes>,
    bytes: usize,
    /// Whether none of it was read, or all that was is kept.
    untouched: bool,
    kept: bool,
}

impl Message {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(State {
            body: Some(body),
            read: VecDeque::new(),
            bytes: 0,
            untouched: true,
            kept: true,
        })))
    }

    /// The message, if none of it was read; with `left_out` also if all that was read is still here.
    fn unsent(&self, left_out: bool) -> Option<Body> {
        self.with(|state| {
            if state.untouched {
                return state.body.take();
            }
            if !(left_out && state.kept) {
                return None;
            }
            let rest = state.body.take()?;
            let read = std::mem::take(&mut state.read);
            Some(Body::new(Again { read, rest }))
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let data = frame.data_ref().filter(|data| self.bytes + data.len() <= KEPT);
        match data {
            Some(data) if self.kept => {
                self.bytes += data.len();
                self.read.push_back(data.clone());
            }
            _ => {
                self.kept = false;
                self.read.clear();
            }
        }
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
            state.untouched = false;
            let Some(body) = &mut state.body else {
                return Poll::Ready(None);
            };
            let polled = Pin::new(body).poll_frame(task);
            if let Poll::Ready(Some(Ok(frame))) = &polled {
                state.keep(frame);
            }
            polled
        })
    }

    fn is_end_stream(&self) -> bool {
        self.with(|state| state.body.as_ref().is_none_or(Body::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|state| state.body.as_ref().map(Body::size_hint).unwrap_or_default())
    }
}

/// A message from its beginning: what was read of it before, then the rest.
struct Again {
    read: VecDeque<Bytes>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grpc::{ChannelOptions, channel::Target, resolve::keep_resolved, serve::serve},
        settings::Grpc,
    };
    use axum::{Router, routing::post};
    use std::net::SocketAddr;
    use tokio::{net::TcpListener, task::JoinSet};
    use tokio_util::sync::{CancellationToken, DropGuard};
    use tonic::service::Routes;
    use tower::ServiceExt;

    /// A server that has its clients connect anew so often; its address.
    async fn server(max_connection_age: Duration) -> (SocketAddr, DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let routes = Router::new().route("/test/echo", post(async |body: axum::body::Bytes| body));
        let settings = Grpc {
            max_connection_age,
            ..Grpc::default()
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serving = serve(listener, Routes::from(routes), &settings, None, stopped);
            serving.await.expect("to serve");
        });
        (address, stop.drop_guard())
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
        let (address, _stop) = server(Duration::from_millis(25)).await;
        let url = format!("http://{address}");
        let target = Target::new(&url, &ChannelOptions::default(), None).expect("an address");
        let channel = target.endpoint(None).connect_lazy();
        let plain = hammer(channel.clone(), &url).await;
        let resent = hammer(Resend::new(channel, false), &url).await;
        // Who closes forty times a second sometimes does before all is said: those calls may have begun.
        assert!(resent.0 > 100 && resent.1 * 10 < plain.1, "{plain:?} {resent:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_call_fails_when_members_come_and_go() {
        let old = Duration::from_secs(300);
        let ((first, first_stop), (second, _second_stop)) = (server(old).await, server(old).await);
        let found = Arc::new(Mutex::new(vec![first, second]));
        let options = ChannelOptions {
            resolve_every: Duration::from_millis(50),
            ..ChannelOptions::default()
        };
        let url = "http://peer.invalid:50051";
        let target = Target::new(url, &options, None).expect("an address");
        let (channel, changes) = Channel::balance_channel(8);
        let known = found.clone();
        tokio::spawn(keep_resolved("peer", target, changes, move |_, _| {
            let known = known.lock().expect("no panics").clone();
            std::future::ready(Ok(known))
        }));
        let channel = Resend::new(channel, true);
        let hammered = tokio::spawn(async move { hammer(channel, url).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        // It ends in order, and is among the name's addresses for a while yet.
        drop(first_stop);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (third, _third_stop) = server(old).await;
        *found.lock().expect("no panics") = vec![second, third];
        let (calls, failed) = hammered.await.expect("no panics");
        assert!(calls > 100, "{calls}");
        assert_eq!(failed, 0, "of {calls}");
    }

    #[tokio::test]
    async fn a_peer_that_is_away_is_told_at_once() {
        let target = Target::new("http://127.0.0.1:1", &ChannelOptions::default(), None).expect("an address");
        let channel = target.endpoint(None).connect_lazy();
        let request = Request::post("http://127.0.0.1:1/test/echo")
            .body(Body::empty())
            .expect("a request");
        let error = Resend::new(channel, false)
            .oneshot(request)
            .await
            .expect_err("nobody is there");
        assert!(is_away(&error), "{error:?}");
    }
}
