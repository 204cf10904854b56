//! The real worker on port 0.

use crate::runs::settings;
use chassis::{Configuration, Service, Settings as _, lifecycle::Running};
use std::{net::SocketAddr, sync::LazyLock, time::Duration};
use worker::{Settings, Worker};

/// How long to wait for what must come about, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the services show each other.
pub(crate) const TOKEN: &str = "the-services-own";

/// One for the whole process, on a runtime that outlives each test's.
static TELEMETRY: LazyLock<(tokio::runtime::Runtime, telemetry::Telemetry)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let telemetry = {
        let _entered = runtime.enter();
        let mut settings = telemetry::Settings::default();
        settings.logging.level = "warn".into();
        telemetry::init(Worker::INFO, "test", &settings, Worker::declarations()).unwrap()
    };
    (runtime, telemetry)
});

/// Starts one that works for the rest-api at that address: neither jobs nor the queue, unless `change` switches them on.
pub(crate) async fn start(
    rest_api: SocketAddr,
    change: impl FnOnce(&mut Configuration<Settings>),
) -> Running {
    let mut service = settings();
    service.rest_api.url = format!("http://{rest_api}");
    service.jobs.enabled = false;
    service.queue.enabled = false;
    let mut common = Settings::common();
    common.http.address.set_port(0);
    common.grpc.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    common.service_token = Some(TOKEN.into());
    common.shutdown.drain = Duration::ZERO;
    let mut configuration = Configuration { common, service };
    change(&mut configuration);
    configuration.service.validate(&configuration.common).unwrap();
    chassis::lifecycle::start::<Worker>(configuration, TELEMETRY.1.handle())
        .await
        .unwrap()
}
