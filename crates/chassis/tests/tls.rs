//! Mutual TLS between real services: who is served, and how certificates change under load.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod authority;

use authority::{Authority, Pair, Secret};
use axum::{Extension, Router, body::Bytes, routing::post};
use chassis::{
    App, Configuration, Host, Service, ServiceInfo, Settings,
    grpc::GrpcChannel,
    lifecycle::Running,
    settings::{Common, Tls},
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use telemetry::metrics::Declaration;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::{
    body::Body,
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity,
        server::{TcpConnectInfo, TlsConnectInfo},
    },
};
use tower::{Service as Call, ServiceExt};

/// One for the whole process, on a runtime that outlives each test's.
static TELEMETRY: LazyLock<(tokio::runtime::Runtime, telemetry::Telemetry)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let settings = telemetry::Settings::default();
    let started = {
        let _entered = runtime.enter();
        telemetry::init(Sample::INFO, "test", &settings, &[chassis::DECLARATIONS]).unwrap()
    };
    (runtime, started)
});

/// How long to wait for what must come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SampleSettings {}

impl Settings for SampleSettings {
    fn common() -> Common {
        Common::listening(0, Some(0))
    }
}

struct Sample;

impl Service for Sample {
    const INFO: ServiceInfo = ServiceInfo {
        name: "sample",
        version: "0.0.1",
    };
    type Settings = SampleSettings;

    fn declarations() -> &'static [&'static [Declaration]] {
        &[]
    }

    async fn build(_settings: SampleSettings, _host: &Host) -> anyhow::Result<App> {
        let routes = Router::new().route("/sample/Whoami", post(whoami));
        Ok(App {
            grpc: Some(tonic::service::Routes::from(routes)),
            ..App::default()
        })
    }
}

/// The certificate that the caller has shown.
async fn whoami(Extension(connection): Extension<TlsConnectInfo<TcpConnectInfo>>) -> Bytes {
    Bytes::copy_from_slice(&connection.peer_certs().unwrap()[0])
}

/// Where a test keeps its certificates.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("devops-mcp-tls-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn mount(&self, name: &str, pair: &Pair, ca: &str) -> Secret {
        Secret::mount(self.0.join(name), pair, ca)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(secret: &Secret, allowed_clients: &[&str]) -> Tls {
    Tls {
        certificate: Some(secret.path("tls.crt")),
        key: Some(secret.path("tls.key")),
        ca: Some(secret.path("ca.crt")),
        allowed_clients: allowed_clients.iter().map(|&name| name.to_owned()).collect(),
        reload: Duration::from_millis(50),
    }
}

async fn try_start(tls: Tls) -> anyhow::Result<Running> {
    let telemetry = tokio::task::spawn_blocking(|| TELEMETRY.1.handle())
        .await
        .unwrap();
    let mut configuration = Configuration::defaults();
    configuration.common.grpc.tls = tls;
    chassis::lifecycle::start::<Sample>(configuration, telemetry).await
}

async fn start(secret: &Secret, allowed_clients: &[&str]) -> Running {
    try_start(settings(secret, allowed_clients)).await.unwrap()
}

fn url(server: &Running) -> String {
    format!("https://localhost:{}", server.grpc.unwrap().port())
}

fn channel(client: &Running, server: &Running) -> GrpcChannel {
    chassis::grpc::channel(&client.host, "sample", &url(server), &Default::default()).unwrap()
}

/// The certificate that the server has seen.
async fn call<S, B>(channel: S) -> Result<Bytes, String>
where
    S: Call<http::Request<Body>, Response = http::Response<B>, Error: std::fmt::Debug>,
    B: http_body::Body<Data = Bytes, Error: Into<tower::BoxError>> + Send + 'static,
{
    let request = http::Request::post("http://sample/sample/Whoami")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    let answer = timeout(PATIENCE, channel.oneshot(request)).await.unwrap();
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    let body = axum::body::Body::new(answer.into_body());
    axum::body::to_bytes(body, 1 << 20)
        .await
        .map_err(|error| format!("{error:?}"))
}

/// A client that is none of ours.
fn stranger(url: &str, ca: &str, shown: Option<&Pair>) -> Channel {
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(pair) = shown {
        config = config.identity(Identity::from_pem(&pair.certificate, &pair.key));
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    endpoint.tls_config(config).unwrap().connect_lazy()
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

/// The certificate that a server shows to whoever connects now.
async fn shown_by(server: &Running, ca: &str) -> Option<CertificateDer<'static>> {
    let stream = hello(server, ca, &rustls::version::TLS13).await.ok()?;
    Some(
        stream
            .get_ref()
            .1
            .peer_certificates()?
            .first()?
            .clone()
            .into_owned(),
    )
}

/// The client's half of a handshake, without a certificate.
async fn hello(
    server: &Running,
    ca: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(ca.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.grpc.unwrap()).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

/// The value of a metric with this label's value.
fn metric(running: &Running, name: &str, value: &str) -> f64 {
    let (_, text) = running.host.telemetry.render(None);
    let quoted = format!("\"{value}\"");
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && line.contains(&quoted));
    let line = line.unwrap_or_else(|| panic!("no {name} with {value}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let holds = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, holds)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_known_clients_of_the_same_authority_are_served() {
    let directory = Directory::new("known");
    let (ours, other) = (
        Authority::new(&directory.0, "ours"),
        Authority::new(&directory.0, "other"),
    );
    let friend = ours.issue(&["friend"]);
    let expired = ours.expire(&friend);
    let (of_other, nobody) = (other.issue(&["friend"]), ours.issue(&["nobody", "*.friend"]));
    let server = ours.issue(&["localhost"]);
    let server = start(
        &directory.mount("server", &server, ours.certificate()),
        &["colleague", "friend"],
    )
    .await;
    let (url, ca) = (url(&server), ours.certificate());

    // Who says nothing holds up nobody.
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(server.grpc.unwrap()).await.unwrap());
    }
    let seen = call(stranger(&url, ca, Some(&friend))).await.unwrap();
    assert_eq!(*seen, *der(&friend));
    let client = start(&directory.mount("client", &friend, ca), &[]).await;
    assert_eq!(*call(channel(&client, &server)).await.unwrap(), *der(&friend));

    // Its last second must be over.
    eventually("the certificate is out of date", async || {
        stranger_is_refused(&url, ca, Some(&expired)).await
    })
    .await;
    for refused in [None, Some(&of_other), Some(&nobody)] {
        assert!(stranger_is_refused(&url, ca, refused).await);
    }
    let plain = Endpoint::from_shared(url.replace("https", "http")).unwrap();
    assert!(call(plain.connect_lazy()).await.is_err());
    let by_address = url.replace("localhost", "127.0.0.1");
    let error = call(stranger(&by_address, ca, Some(&friend))).await.unwrap_err();
    assert!(error.contains("NotValidForName"), "{error}");
    let error = call(stranger(&url, other.certificate(), Some(&friend)))
        .await
        .unwrap_err();
    assert!(
        error.contains("UnknownIssuer") || error.contains("BadSignature"),
        "{error}"
    );
    let old = hello(&server, ca, &rustls::version::TLS12).await;
    assert!(old.is_err(), "TLS 1.3 only");

    for reason in [
        "expired",
        "no_certificate",
        "unknown_ca",
        "not_allowed",
        "not_tls",
        "refused",
        "incompatible",
        "timeout", // the silent ones
    ] {
        eventually(reason, async || {
            metric(&server, "tls_handshakes_failed_total", reason) >= 1.0
        })
        .await;
    }
    assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "they are closed");
    call(stranger(&url, ca, Some(&friend))).await.unwrap();
}

async fn stranger_is_refused(url: &str, ca: &str, shown: Option<&Pair>) -> bool {
    call(stranger(url, ca, shown)).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_change_under_load_and_no_call_fails() {
    let directory = Directory::new("rotation");
    let (old, new) = (
        Authority::new(&directory.0, "old"),
        Authority::new(&directory.0, "new"),
    );
    let both = format!("{}{}", old.certificate(), new.certificate());
    let pairs = |authority: &Authority| (authority.issue(&["localhost"]), authority.issue(&["friend"]));
    let first = pairs(&old);
    let servers = directory.mount("server", &first.0, old.certificate());
    let clients = directory.mount("client", &first.1, old.certificate());
    let (server, client) = (start(&servers, &["friend"]).await, start(&clients, &[]).await);
    let channel = channel(&client, &server);

    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (channel, stop, calls) = (channel.clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    call(channel.clone()).await?;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();

    // A new pair of the same authority; both authorities believed; pairs of the new one; only that believed.
    for (authority, ca) in [
        (&old, old.certificate()),
        (&old, &both),
        (&new, &both),
        (&new, new.certificate()),
    ] {
        let (for_server, for_client) = pairs(authority);
        servers.swap(&for_server, ca);
        clients.swap(&for_client, ca);
        eventually("the server shows its new certificate", async || {
            shown_by(&server, ca).await == Some(der(&for_server))
        })
        .await;
        eventually("calls show the client's new certificate", async || {
            *call(channel.clone()).await.unwrap() == *der(&for_client)
        })
        .await;
        // And the load goes on with it for a while.
        let enough = calls.load(Ordering::Relaxed) + 200;
        eventually("calls go on", async || calls.load(Ordering::Relaxed) > enough).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(()));
    }
    assert!(metric(&server, "tls_reloads_total", "ok") >= 8.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_of_no_use_leave_those_before_in_place() {
    let directory = Directory::new("half");
    let ours = Authority::new(&directory.0, "ours");
    let (before, after) = (ours.issue(&["localhost"]), ours.issue(&["localhost"]));
    let secret = directory.mount("server", &before, ours.certificate());
    let server = start(&secret, &[]).await;
    let shown = async || shown_by(&server, ours.certificate()).await;
    let failed = || metric(&server, "tls_reloads_total", "failed");

    // Through the links, in place, one after the other.
    fs::write(secret.path("tls.crt"), &after.certificate).unwrap();
    eventually("the key does not fit", async || failed() >= 1.0).await;
    assert_eq!(shown().await, Some(der(&before)));
    for (file, text) in [("tls.key", "half a fi"), ("ca.crt", ""), ("tls.crt", "\0")] {
        let (seen, good) = (failed(), fs::read(secret.path(file)).unwrap());
        fs::write(secret.path(file), text).unwrap();
        eventually(file, async || failed() > seen).await;
        assert_eq!(shown().await, Some(der(&before)));
        fs::write(secret.path(file), good).unwrap();
    }
    fs::write(secret.path("tls.key"), &after.key).unwrap();
    eventually("the whole pair is taken", async || {
        shown().await == Some(der(&after))
    })
    .await;

    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let left = metric(&server, "tls_certificate_expiry_timestamp_seconds", "sample") - now;
    assert!((82_800.0..=86_400.0).contains(&left), "a day, but {left} s");
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_said_at_the_start_and_holds_nothing_of_them() {
    let directory = Directory::new("start");
    let ours = Authority::new(&directory.0, "ours");
    let (pair, other) = (ours.issue(&["localhost"]), ours.issue(&["localhost"]));
    let good = directory.mount("good", &pair, ours.certificate());
    let mixed = Pair {
        key: other.key.clone(),
        ..pair.clone()
    };
    let mixed = directory.mount("mixed", &mixed, ours.certificate());
    let no_ca = directory.mount("no-ca", &pair, "");
    let mut missing = settings(&good, &[]);
    missing.certificate = Some(directory.0.join("nowhere.crt"));
    let mut no_key = settings(&good, &[]);
    no_key.key = Some(good.path("tls.crt"));

    for (tls, key, told) in [
        (missing, "grpc.tls.certificate: cannot read", "nowhere.crt"),
        (
            settings(&mixed, &[]),
            "grpc.tls.key: cannot be used with grpc.tls.certificate",
            "match",
        ),
        (no_key, "grpc.tls.key: expected a private key", "PEM"),
        (settings(&no_ca, &[]), "grpc.tls.ca: expected certificates", "PEM"),
    ] {
        let Err(error) = try_start(tls).await else {
            panic!("it started in spite of {key}");
        };
        let error = chassis::causes(&error);
        assert!(
            error.starts_with(key) && error.to_lowercase().contains(&told.to_lowercase()),
            "{error}"
        );
    }
    let running = start(&good, &[]).await;
    let plain = chassis::grpc::channel(&running.host, "sample", "http://localhost:1", &Default::default());
    assert!(plain.is_err_and(|error| error.to_string().contains("https")));
}
