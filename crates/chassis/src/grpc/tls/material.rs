use super::clients::KnownClients;
use crate::settings;
use std::{fs, path::Path, sync::Arc, time::Duration};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use webpki::{EndEntityCert, KeyUsage};

/// Why the files cannot be used. Never holds anything of what is in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub(crate) struct Unusable {
    key: &'static str,
    problem: String,
}

/// What the files hold, ready for use.
pub(super) struct Material {
    pems: Pems,
    /// For connections from others.
    pub(super) server: Arc<ServerConfig>,
    /// For connections to others.
    pub(super) client: ClientTlsConfig,
    /// When the certificate ends, since 1970.
    pub(super) expires: Option<Duration>,
}

/// The files' text.
#[derive(PartialEq, Eq)]
struct Pems {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

const CERTIFICATE: &str = "grpc.tls.certificate";
const KEY: &str = "grpc.tls.key";
const CA: &str = "grpc.tls.ca";

impl Material {
    /// Reads the files; `None` when there are none, or they hold what is `known`.
    ///
    /// All three are read together. Kubernetes swaps them at once, but perhaps between two of these reads: then key and
    /// certificate do not fit each other, and the next look finds them whole.
    pub(super) fn read(settings: &settings::Tls, known: Option<&Self>) -> Result<Option<Self>, Unusable> {
        let Some(files) = settings.files() else {
            return Ok(None);
        };
        let pems = Pems {
            certificate: bytes(CERTIFICATE, files.certificate)?,
            key: bytes(KEY, files.key)?,
            ca: bytes(CA, files.ca)?,
        };
        if known.is_some_and(|known| known.pems == pems) {
            return Ok(None);
        }
        Self::new(pems, &settings.allowed_clients).map(Some)
    }

    fn new(pems: Pems, allowed_clients: &[String]) -> Result<Self, Unusable> {
        let chain = certificates(CERTIFICATE, &pems.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&pems.key)
            .map_err(|_| unusable(KEY, "expected a private key as PEM"))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CA, &pems.ca)? {
            let root = roots.add(certificate);
            root.map_err(|error| unusable(CA, format!("not a CA certificate: {error}")))?;
        }
        let expires = chain.first().and_then(end);
        Ok(Self {
            server: Arc::new(server(chain, key, roots, allowed_clients)?),
            client: ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&pems.ca))
                .identity(Identity::from_pem(&pems.certificate, &pems.key)),
            expires,
            pems,
        })
    }
}

/// TLS 1.3 only, and only for clients with a certificate.
fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
    allowed_clients: &[String],
) -> Result<ServerConfig, Unusable> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let any = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| unusable(CA, error.to_string()))?;
    let known = Arc::new(KnownClients::new(any, allowed_clients.to_vec()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(CERTIFICATE, error.to_string()))?
        .with_client_cert_verifier(known)
        // Also finds a key that is another certificate's.
        .with_single_cert(chain, key)
        .map_err(|error| unusable(KEY, format!("cannot be used with {CERTIFICATE}: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not show its certificate again, which may have expired by then.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn bytes(key: &'static str, file: &Path) -> Result<Vec<u8>, Unusable> {
    fs::read(file).map_err(|error| unusable(key, format!("cannot read {}: {error}", file.display())))
}

fn certificates(key: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(unusable(key, "expected certificates as PEM")),
    }
}

fn unusable(key: &'static str, problem: impl Into<String>) -> Unusable {
    Unusable {
        key,
        problem: problem.into(),
    }
}

/// When a certificate ends, since 1970. The verifier reads it: asked about the end of time, it says since when the
/// certificate is too old.
fn end(certificate: &CertificateDer<'static>) -> Option<Duration> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let usage = KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], end_of_time, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(Duration::from_secs(not_after.as_secs())),
        _ => None,
    }
}
