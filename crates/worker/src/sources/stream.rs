//! Connections to databases: encrypted where that was asked for, never silently not, and read no further than a
//! source's limit.

use super::{
    Access, Kind, client, postgres, redis,
    settings::{Source, Tls},
};
use crate::outcome::{Code, Failure};
use anyhow::Context as _;
use opentelemetry::KeyValue;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::Url;

/// What PostgreSQL is sent to ask for TLS: the length of the message and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What can be read and written.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Not.
    None,
    /// From its first byte.
    Tls,
    /// PostgreSQL is asked for it first.
    AfterRequest,
}

/// A connection of which no more than so many bytes are read.
pub(super) struct Stream {
    inner: Box<dyn Io>,
    left: usize,
    exceeded: Exceeded,
}

/// Tells whether a stream was read to its limit and had more.
#[derive(Clone, Default)]
pub(super) struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    /// What a failure on the stream means where this was the cause of it.
    pub(super) fn or(&self, name: &str, source: &Source, failure: Failure) -> Failure {
        if !self.0.load(Ordering::Relaxed) {
            return failure;
        }
        let limit = source.max_response_bytes;
        let message = format!("the answer of the source `{name}` has more than {limit} bytes; ask for less");
        Failure::new(Code::ResponseTooLarge, message)
    }
}

/// Asks a database within its source's time, in a span of its own.
///
/// # Errors
/// As [`Access::bounded`].
pub(super) async fn ask<T>(
    access: &Access,
    system: &'static str,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let name = access.name();
    let open = telemetry::span::client(system, || {
        vec![
            KeyValue::new("db.system.name", system),
            KeyValue::new("peer.service", name.to_owned()),
        ]
    });
    let result = open.run(access.bounded(asked)).await;
    if let Err(failure) = &result {
        open.fail(failure.code.as_str());
    }
    result
}

/// Connects to the host that a source's address names.
///
/// # Errors
/// [`Code::SourceUnavailable`]
pub(super) async fn connect(
    name: &str,
    source: &Source,
    port: u16,
    encryption: Encryption,
) -> Result<(Stream, Exceeded), Failure> {
    let away = |cause: String| {
        Failure::new(
            Code::SourceUnavailable,
            format!("the source `{name}` is away: {cause}"),
        )
    };
    let url = Url::parse(&source.url).map_err(|_| away("its url is none".to_owned()))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port().unwrap_or(port);
    let tcp = TcpStream::connect((host, port)).await;
    let mut tcp = tcp.map_err(|error| away(format!("cannot connect: {}", error.kind())))?;
    if encryption == Encryption::AfterRequest
        && !offers_tls(&mut tcp)
            .await
            .map_err(|error| away(error.to_string()))?
    {
        return Err(away("it does not offer TLS, which its url asks for".to_owned()));
    }
    let inner: Box<dyn Io> = match encryption {
        Encryption::None => Box::new(tcp),
        Encryption::Tls | Encryption::AfterRequest => {
            let config = config(&source.tls).map_err(|error| away(format!("TLS: {error:#}")))?;
            let host = ServerName::try_from(host.to_owned()).map_err(|error| away(error.to_string()))?;
            let tls = TlsConnector::from(Arc::new(config)).connect(host, tcp).await;
            Box::new(tls.map_err(|error| away(format!("TLS: {error}")))?)
        }
    };
    let exceeded = Exceeded::default();
    let stream = Stream {
        inner,
        left: source.max_response_bytes,
        exceeded: exceeded.clone(),
    };
    Ok((stream, exceeded))
}

/// Whether PostgreSQL goes on with TLS from here. Exactly one byte is read: what came after it without encryption would
/// be believed as if it had come with it.
async fn offers_tls(tcp: &mut TcpStream) -> io::Result<bool> {
    tcp.write_all(&SSL_REQUEST).await?;
    Ok(tcp.read_u8().await? == b'S')
}

/// Checks at the start how a database is to be reached.
///
/// # Errors
/// What is wrong.
pub(super) fn check(source: &Source) -> anyhow::Result<()> {
    let credentials = &source.credentials;
    let bearer = credentials.bearer.is_some() || credentials.bearer_file.is_some();
    anyhow::ensure!(
        !bearer,
        "a database takes a username and a password, no bearer token"
    );
    let encryption = match source.kind {
        Kind::Redis => {
            // Without a password its client would not log in at all, and be somebody else.
            let password = credentials.password.is_some() || credentials.password_file.is_some();
            anyhow::ensure!(
                password || credentials.is_empty(),
                "its credentials have no password"
            );
            redis::encryption(source)
        }
        _ => postgres::encryption(source).map_err(anyhow::Error::msg)?,
    };
    if encryption != Encryption::None {
        config(&source.tls)?;
    }
    Ok(())
}

/// Certificates are always checked, and the host's name in them.
fn config(tls: &Tls) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(tls)?);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&client::read(key)?)
        .map_err(|_| anyhow::anyhow!("{} holds no private key", key.display()))?;
    builder
        .with_client_auth_cert(chain, key)
        .context("the certificate and the key are no identity")
}

fn roots(tls: &Tls) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(ca) => {
            for certificate in certificates(ca)? {
                roots
                    .add(certificate)
                    .with_context(|| format!("{} holds no CA", ca.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    anyhow::ensure!(!roots.is_empty(), "there are no CA certificates to believe");
    Ok(roots)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = client::read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.with_context(|| format!("{} holds no certificates", file.display()))
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        let Some(left) = self.left.checked_sub(read) else {
            self.exceeded.0.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::other("the answer is too large")));
        };
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
