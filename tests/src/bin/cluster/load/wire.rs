//! Connections of the load's own: HTTP/1.1 with keep-alive, made, kept and given up here, so that nothing below repeats
//! a request unnoticed.

use axum::body::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take, to its end.
const PATIENCE: Duration = Duration::from_secs(30);

type Body = Full<Bytes>;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: http::HeaderMap,
    /// Its body.
    pub(crate) text: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct NoAnswer(pub(crate) String);

/// A server under the name of its Service, and the connections to it.
pub(crate) struct Peer {
    /// Its Service, `name:port`.
    pub(crate) address: String,
    /// So many connections are opened before one is used again: a few connections would reach a few replicas.
    wanted: usize,
    /// A connection is used for so long: new replicas are found by new connections only.
    max_age: Duration,
    idle: Mutex<VecDeque<Connection>>,
}

struct Connection {
    sender: SendRequest<Body>,
    opened: Instant,
}

impl Peer {
    /// Connects to `address` as soon as something is sent.
    pub(crate) fn new(address: &str, wanted: usize, max_age: Duration) -> Self {
        Self {
            address: address.to_owned(),
            wanted,
            max_age,
            idle: Mutex::default(),
        }
    }

    /// Sends a request, once.
    ///
    /// # Errors
    /// When no connection could be made, or it broke before the answer's end.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Answer, NoAnswer> {
        timeout(PATIENCE, self.exchange(request))
            .await
            .unwrap_or_else(|_| Err(NoAnswer(format!("no whole answer within {PATIENCE:?}"))))
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answer, NoAnswer> {
        let (mut kept, mut request) = (self.take(), request);
        loop {
            let (mut used, fresh) = match kept.take() {
                Some(kept) => (kept, false),
                None => (self.open().await?, true),
            };
            match used.sender.try_send_request(request).await {
                Ok(response) => return self.read(used, response).await,
                Err(mut error) => match error.take_message() {
                    // The server had closed it, as it may; not a byte of the request was written.
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(NoAnswer(format!("no answer: {}", causes(error.error())))),
                },
            }
        }
    }

    async fn read(
        &self,
        mut used: Connection,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Answer, NoAnswer> {
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| NoAnswer(format!("{}, then broken off: {}", head.status, causes(&error))))?;
        let closes = head
            .headers
            .get(header::CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        if !closes && used.opened.elapsed() < self.max_age && used.sender.ready().await.is_ok() {
            self.lock().push_back(used);
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        })
    }

    /// The connection that has been idle longest, once there are as many as wanted.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        idle.retain(|kept| kept.sender.is_ready() && kept.opened.elapsed() < self.max_age);
        if idle.len() < self.wanted {
            return None;
        }
        idle.pop_front()
    }

    async fn open(&self) -> Result<Connection, NoAnswer> {
        let failed =
            |error: &dyn std::fmt::Display| NoAnswer(format!("connecting to {}: {error}", self.address));
        let stream = timeout(CONNECT, TcpStream::connect(&self.address)).await;
        let stream = stream
            .map_err(|_| failed(&format!("not within {CONNECT:?}")))?
            .map_err(|error| failed(&error))?;
        // Requests are written whole.
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        // Whatever ends it is told to the request that was on it.
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            opened: Instant::now(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
