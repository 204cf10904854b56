//! Connections: the clients, what leaves through them and how they fail.

use super::super::Departed;
use crate::{
    guard::{Guard, Refused},
    outcome::{Code, Failure},
    settings::Outbound,
};
use anyhow::Context as _;
use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tower::{Layer, Service};

tokio::task_local! {
    /// The call that a connection is being made for.
    static DEPARTED: Departed;
}

/// The clients for all calls.
pub(super) struct Clients {
    pooled: reqwest::Client,
    fresh: reqwest::Client,
}

impl Clients {
    pub(super) fn new(settings: &Outbound, guard: &Guard) -> anyhow::Result<Self> {
        let idle = settings.pool_idle_timeout;
        let pooled = builder(settings, guard).pool_idle_timeout(idle).build();
        let fresh = builder(settings, guard)
            .pool_max_idle_per_host(0)
            .connector_layer(Watched)
            .build();
        let problem = "cannot prepare outgoing connections (are the system's CA certificates installed?)";
        Ok(Self {
            pooled: pooled.context(problem)?,
            fresh: fresh.context(problem)?,
        })
    }

    /// The client for a call. One that must not run twice gets a connection of its own: on a kept one, a server that
    /// closes it at that moment would leave open whether the request was taken.
    pub(super) fn client(&self, runs_twice: bool) -> &reqwest::Client {
        if runs_twice { &self.pooled } else { &self.fresh }
    }
}

fn builder(settings: &Outbound, guard: &Guard) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(&settings.user_agent)
        .dns_resolver(guard.clone())
        .connect_timeout(settings.connect_timeout)
        .redirect(reqwest::redirect::Policy::none()) // each hop is checked first, by us
        .retry(reqwest::retry::never())
        .no_proxy() // a proxy would resolve names behind the guard's back
        .referer(false)
        // Whatever other crates turn on: a small answer must not become a large one here.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .tcp_keepalive(Duration::from_secs(30))
}

/// Runs one exchange, raising `departed` when its request may leave.
pub(super) async fn watch<F: Future>(departed: &Departed, runs_twice: bool, exchange: F) -> F::Output {
    if runs_twice {
        departed.raise(); // a kept connection may take the request at once
    }
    DEPARTED.scope(departed.clone(), exchange).await
}

/// Tells calls that their connection stands. Until then nothing of them has left.
#[derive(Clone)]
struct Watched;

#[derive(Clone)]
struct Watch<S>(S);

impl<S> Layer<S> for Watched {
    type Service = Watch<S>;
    fn layer(&self, inner: S) -> Watch<S> {
        Watch(inner)
    }
}

impl<S, R> Service<R> for Watch<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let connecting = self.0.call(target);
        Box::pin(async move {
            let connection = connecting.await?;
            // Without a pool the connector runs within its call's own task.
            let _ = DEPARTED.try_with(Departed::raise);
            Ok(connection)
        })
    }
}

/// What an error of the client means. Its own text may hold the URL, arguments and all, and is not used.
pub(super) fn failure(error: &reqwest::Error) -> Failure {
    if let Some(refused) = find::<Refused>(error) {
        return Failure::new(Code::AddressNotAllowed, refused.to_string());
    }
    if error.is_builder() {
        return Failure::new(Code::InvalidArguments, "the arguments make no valid request");
    }
    if error.is_dns() {
        return Failure::new(Code::DnsFailed, "the host's name does not resolve");
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        let code = if error.is_connect() {
            Code::TlsFailed
        } else {
            Code::ConnectionLost
        };
        return Failure::new(code, format!("TLS: {tls}"));
    }
    let kind = find::<io::Error>(error).map(io::Error::kind);
    let cause = kind.map(|kind| kind.to_string());
    if error.is_connect() {
        let cause = cause
            .filter(|_| !error.is_timeout())
            .unwrap_or_else(|| "it takes too long".to_owned());
        return Failure::new(Code::ConnectFailed, format!("cannot connect: {cause}"));
    }
    let broken = find::<hyper::Error>(error);
    if broken.is_some_and(hyper::Error::is_parse_too_large) {
        let message = "the headers of the endpoint's answer are too large or too many";
        return Failure::new(Code::ResponseTooLarge, message);
    }
    let garbled = matches!(
        kind,
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    );
    let cause = match broken {
        Some(broken) if broken.is_parse() || garbled => "what the endpoint sends is not HTTP".to_owned(),
        Some(broken) if broken.is_incomplete_message() => "it ended before the answer did".to_owned(),
        _ => cause.unwrap_or_else(|| "it ended early or is not HTTP".to_owned()),
    };
    Failure::new(Code::ConnectionLost, format!("the connection was lost: {cause}"))
}

/// The first error of type `E` in the chain, also where an I/O error carries it.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = carried.and_then(|carried| find(carried)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
