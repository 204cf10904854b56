use crate::{Common, Readiness, Settings, Tasks};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use telemetry::{ServiceInfo, metrics::Declaration};
use tokio_util::sync::CancellationToken;

/// A program of the product: how its [`App`] is made from its settings.
pub trait Service: Sized + 'static {
    /// Its name and version, as they stand in metrics, logs and traces.
    const INFO: ServiceInfo;

    /// What it does, for `--help`: a line.
    const ABOUT: &str = "";

    /// Its own sections of the configuration.
    type Settings: Settings;

    /// The metrics that it declares. Telemetry's and the chassis's own are always there.
    fn declarations() -> &'static [&'static [Declaration]];

    /// Opens what the service needs and puts its routes together. The sockets are bound by now, and answer once this returns.
    ///
    /// # Errors
    /// Whatever keeps the service from starting; the program says it and ends with exit code 1.
    fn build(settings: Self::Settings, host: &Host) -> impl Future<Output = anyhow::Result<App>> + Send;
}

/// What the chassis lends to a service. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    /// The settings that every service has.
    pub common: Arc<Common>,
    /// Metrics rendering and the log level.
    pub telemetry: telemetry::Handle,
    /// Started and not draining; and the state of what the service depends on.
    pub readiness: Readiness,
    /// Where everything that runs in the background is started.
    pub tasks: Tasks,
    /// Cancelled when the service is told to stop. Connections are taken for a while yet, but each answer closes its
    /// own: streams that a client just opens anew (SSE) end on it, so that it finds another replica.
    pub draining: CancellationToken,
    /// Cancelled when the servers stop accepting. Whatever else has no end of its own (watches, leases) must end on it.
    pub shutdown: CancellationToken,
    /// What it shows the other services, and whom of them it believes.
    pub(crate) tls: Option<crate::grpc::Tls>,
}

/// What a service serves.
#[derive(Default)]
pub struct App {
    /// Its own HTTP API, made by [`crate::http::stack`].
    pub http: axum::Router,
    /// Its gRPC services. Without any, the gRPC port is not served.
    pub grpc: Option<tonic::service::Routes>,
    /// Pages of its own below `/admin` and `/debug`; the chassis asks for the admin token.
    pub admin: axum::Router,
    /// What those pages show, for the index at `/debug/`.
    pub pages: &'static [crate::ops::Page],
    /// What remains to be done when nothing runs any more: closing a database.
    pub last: Option<BoxFuture<'static, ()>>,
}
