//! Runs tools for rest-api: those it calls for, and those that wait in its queue; and keeps the time for scheduled jobs.
//!
//! It has no data of its own and holds no credentials longer than a run takes. No sqlx may enter here;
//! `cargo xtask check` holds that.

mod fetch;
pub mod grpc;
pub mod guard;
mod jobs;
pub mod metrics;
pub mod outcome;
pub mod progress;
mod queue;
pub mod runner;
pub mod settings;
pub mod slots;
pub mod sources;
pub mod tools;

pub use settings::Settings;

use chassis::{App, Host, ServiceInfo};
use proto::v1::tool_runner_server::ToolRunnerServer;
use runner::Runner;
use telemetry::metrics::Declaration;
use tonic::service::Routes;

/// The service.
pub struct Worker;

impl chassis::Service for Worker {
    const INFO: ServiceInfo = ServiceInfo {
        name: "worker",
        version: env!("CARGO_PKG_VERSION"),
    };
    const ABOUT: &str = "Runs tools behind a guard on outgoing calls; expires and cleans up on a schedule";
    type Settings = Settings;

    fn declarations() -> &'static [&'static [Declaration]] {
        &[metrics::DECLARATIONS]
    }

    async fn build(settings: Settings, host: &Host) -> anyhow::Result<App> {
        // For the clients of tools; somebody else in the process may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        metrics::announce();
        let runner = Runner::new(&settings, &host.common.shutdown, host.shutdown.clone())?;
        let circuits = runner.clone();
        host.telemetry
            .on_scrape_gauge(&metrics::UPSTREAM_CIRCUIT_OPEN, move || circuits.circuits());
        let channel = chassis::grpc::channel(host, "rest-api", &settings.rest_api.url, &Default::default())?;
        jobs::start(&settings.jobs, host, &channel);
        queue::start(&settings.queue, host, &channel, &runner);
        let runs = grpc::Runs::new(runner, host.common.service_token.clone());
        Ok(App {
            grpc: Some(Routes::new(ToolRunnerServer::new(runs))),
            ..App::default()
        })
    }
}
