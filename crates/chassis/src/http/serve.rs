use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Response, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::settings::Http;

/// When a server closes its connections, and when it takes no more.
#[derive(Clone)]
pub(crate) struct Ending {
    /// From now on every answer is its connection's last.
    pub(crate) draining: CancellationToken,
    /// No connection is taken any more.
    pub(crate) stop: CancellationToken,
}

/// Serves HTTP/1.1 until it is told to stop, then finishes what is in flight. There is no limit to how long that takes:
/// the caller has one.
pub(crate) async fn serve(listener: TcpListener, router: Router, settings: &Http, ending: Ending) {
    let Ending { draining, stop } = ending;
    let permits = Arc::new(Semaphore::new(
        settings.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let graceful = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout);

    while let Some((permit, stream, peer)) = stop.run_until_cancelled(accept(&listener, &permits)).await {
        // Answers are written whole; waiting for more to fill a packet would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let last = LastAnswer {
            closes: Instant::now() + jittered(settings.max_connection_age, peer),
            draining: draining.clone(),
        };
        let service = router
            .clone()
            .map_request(move |request: http::Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                request
            })
            .map_response(move |answer| last.mark(answer));
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        telemetry::tasks::spawn("http connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Says with an answer that the connection closes behind it. A client that is told so sends its next request over
/// another connection; one whose idle connection is closed may be sending at that very moment, and its request is lost.
#[derive(Clone)]
struct LastAnswer {
    /// When the connection is old enough.
    closes: Instant,
    draining: CancellationToken,
}

impl LastAnswer {
    fn mark(&self, mut answer: Response<Body>) -> Response<Body> {
        if Instant::now() >= self.closes || self.draining.is_cancelled() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        answer
    }
}

/// Up to a tenth more or less, by the client's port: connections that were opened together do not close together.
fn jittered(age: Duration, peer: SocketAddr) -> Duration {
    age.mul_f64(0.9 + 0.2 * f64::from(peer.port() % 101) / 100.0)
}

/// The next connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (Option<tokio::sync::OwnedSemaphorePermit>, TcpStream, SocketAddr) {
    // The semaphore is never closed, so there is always a permit in the end.
    let permit = permits.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (permit, stream, peer),
            // The client went away before its turn.
            Err(error) if is_connection_error(&error) => {}
            // Out of file descriptors, most likely: trying again at once would only burn time.
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Sends one request and reads its answer; whether that was said to be the last.
    async fn is_last(connection: &mut TcpStream) -> bool {
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        connection.write_all(request).await.expect("an open connection");
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            let read = connection.read_buf(&mut answer).await.expect("an answer");
            assert_ne!(read, 0, "closed without an answer");
        }
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        text.contains("connection: close")
    }

    async fn closed(connection: &mut TcpStream) -> bool {
        connection.read(&mut [0]).await.is_ok_and(|read| read == 0)
    }

    #[tokio::test]
    async fn old_connections_and_those_of_a_draining_server_close_with_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let ending = Ending {
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let settings = Http {
            max_connection_age: Duration::from_millis(200),
            ..Http::default()
        };
        let router = Router::new().route("/", get(async || "here"));
        let server = tokio::spawn({
            let ending = ending.clone();
            async move { serve(listener, router, &settings, ending).await }
        });
        let connect = async || TcpStream::connect(address).await.expect("a connection");

        let mut aging = connect().await;
        while !is_last(&mut aging).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(closed(&mut aging).await);

        ending.draining.cancel();
        // Taken still, and served.
        let mut late = connect().await;
        assert!(is_last(&mut late).await && closed(&mut late).await);
        ending.stop.cancel();
        server.await.expect("it ends by itself");
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let age = |port| jittered(Duration::from_secs(100), SocketAddr::from(([127, 0, 0, 1], port)));
        let all: Vec<_> = (40_000..50_000).map(age).collect();
        let (least, most) = (all.iter().min().copied(), all.iter().max().copied());
        assert_eq!(least.map(|d| d.as_secs()), Some(90));
        assert_eq!(most.map(|d| d.as_secs_f64().round()), Some(110.0));
    }
}
