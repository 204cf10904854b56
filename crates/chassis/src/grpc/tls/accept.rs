use super::{Tls, clients};
use crate::TLS_HANDSHAKES_FAILED;
use futures_util::{Stream, StreamExt};
use std::{
    future::ready,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, CertificateError},
    server::TlsStream,
};

/// Handshakes at a time; further connections wait to be accepted.
const HANDSHAKES: usize = 256;

/// How long a client may take for its part of the handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// At most one warning in this time: whoever reaches the port can cause them.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Makes secure connections out of plain ones. The slow ones do not hold up the others, the failed ones are only counted.
pub(in crate::grpc) fn accept<S>(
    connections: S,
    tls: Tls,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>>
where
    S: Stream<Item = io::Result<TcpStream>>,
{
    let failures = Arc::new(Failures::default());
    connections
        .map(move |connection| secured(connection, tls.clone(), failures.clone()))
        .buffer_unordered(HANDSHAKES)
        .filter_map(ready)
}

async fn secured(
    connection: io::Result<TcpStream>,
    tls: Tls,
    failures: Arc<Failures>,
) -> Option<io::Result<TlsStream<TcpStream>>> {
    let stream = match connection {
        Ok(stream) => stream,
        Err(error) => return Some(Err(error)),
    };
    let address = stream.peer_addr().ok();
    let shaken = timeout(PATIENCE, TlsAcceptor::from(tls.server()).accept(stream));
    match shaken.await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates();
            let client = shown.and_then(<[_]>::first).and_then(clients::name);
            tracing::debug!(
                client,
                address = address.map(tracing::field::display),
                "TLS client connected"
            );
            return Some(Ok(stream));
        }
        Ok(Err(error)) => failures.note(reason(&error), &error, address),
        Err(late) => failures.note("timeout", &late, address),
    }
    None
}

/// One of the known reasons; see the metric.
fn reason(error: &io::Error) -> &'static str {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else {
        return "closed";
    };
    match inner {
        rustls::Error::NoCertificatesPresented => "no_certificate",
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::ApplicationVerificationFailure => "not_allowed",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_ca",
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => "expired",
            _ => "bad_certificate",
        },
        rustls::Error::AlertReceived(_) => "refused",
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => "incompatible",
        rustls::Error::InvalidMessage(_) => "not_tls",
        _ => "other",
    }
}

/// Counts handshakes that failed, and tells of them now and then.
#[derive(Default)]
struct Failures(Mutex<Option<Instant>>);

impl Failures {
    fn note(&self, reason: &str, error: &dyn std::error::Error, address: Option<SocketAddr>) {
        TLS_HANDSHAKES_FAILED.inc([reason]);
        // Port scans and probes do no more than that.
        if reason != "closed" && self.may_warn() {
            tracing::warn!(
                reason,
                %error,
                address = address.map(tracing::field::display),
                "a TLS handshake failed; of others in the next 10 s only the metric tells"
            );
        } else {
            tracing::debug!(reason, %error, address = address.map(tracing::field::display), "a TLS handshake failed");
        }
    }

    fn may_warn(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= WARN_EVERY);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}
