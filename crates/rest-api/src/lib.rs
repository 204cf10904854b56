//! rest-api: contexts, tools, API keys and executions; the only owner of the database.
//!
//! Two doors, [`http`] and [`grpc`], translate to the use cases in [`api`], which stand on the [`store`].

pub mod api;
pub mod audit;
pub mod auth;
pub mod built_ins;
pub mod catalogue;
pub mod changes;
pub mod cli;
mod clock;
mod database;
mod debug;
pub mod error;
pub mod grpc;
pub mod http;
mod leader;
pub mod metrics;
pub mod queue;
pub mod runner;
pub mod schema;
pub mod selection;
pub mod settings;
pub mod store;
pub mod vault;

pub use settings::Settings;

use crate::{
    api::{Api, Parts},
    audit::Trail,
    auth::Verifier,
    catalogue::Catalogue,
    http::Guard,
    runner::Runner,
    store::SharedStore,
    vault::Vault,
};
use anyhow::Context as _;
use chassis::{App, Host, ServiceInfo, faults::Fault};
use coordination::Coordination;
use std::sync::Arc;
use telemetry::metrics::Declaration;

/// The service.
pub struct RestApi;

impl chassis::Service for RestApi {
    const INFO: ServiceInfo = ServiceInfo {
        name: "rest-api",
        version: env!("CARGO_PKG_VERSION"),
    };
    type Settings = Settings;

    fn declarations() -> &'static [&'static [Declaration]] {
        &[
            metrics::DECLARATIONS,
            chassis::credential::DECLARATIONS,
            coordination::metrics::DECLARATIONS,
            chassis::outbox::DECLARATIONS,
        ]
    }

    async fn build(settings: Settings, host: &Host) -> anyhow::Result<App> {
        let store = store::connect(&settings.database).await.context("database.url")?;
        store
            .migrate_to(store::Schema::of(&host.common.test_faults))
            .await
            .context("the database's schema could not be brought up to date")?;
        let coordination = coordination::connect(&settings.redis).context("redis.url")?;
        follow_redis(&coordination, host);
        let replica = format!("{}-{}", host_name(), uuid::Uuid::now_v7());
        let admin = debug::routes(
            Arc::clone(&store),
            settings.database.clone(),
            coordination.inspector.clone(),
        );
        let leadership = leader::export_shared_gauges(Arc::clone(&store), replica.clone(), host);
        database::observe(&store, &leadership, host);
        let api = assemble(&settings, Arc::clone(&store), &coordination, replica, host)?;
        queue::sweep(api.clone(), leadership);
        api::look_into_incidents(api.clone());
        let trail = Trail::start(&settings.audit, Arc::clone(&store), &host.tasks);
        let guard = Guard {
            api: api.clone(),
            trail: trail.clone(),
            limiter: coordination.limiter,
            quota: settings.rate_limit.quota(),
        };
        let authenticate = axum::middleware::from_fn_with_state(guard, http::authenticate);
        let routes =
            http::routes(api.clone()).layer(axum::middleware::from_fn_with_state(trail, audit::follow));
        let imports = chassis::http::LargerBody {
            path: http::IMPORT_PATH,
            bytes: settings.limits.import_bytes,
        };
        Ok(App {
            http: chassis::http::stack_with(routes, authenticate, &host.common, imports),
            grpc: Some(grpc::routes(api, host)),
            admin,
            pages: debug::PAGES,
            last: Some(Box::pin(async move { store.close().await })),
        })
    }
}

fn assemble(
    settings: &Settings,
    store: SharedStore,
    coordination: &Coordination,
    replica: String,
    host: &Host,
) -> anyhow::Result<Api> {
    let database = host.readiness.dependency("database");
    Ok(Api::new(Parts {
        verifier: Verifier::new(Arc::clone(&store), host.tasks.clone()),
        vault: Vault::open(&settings.credentials)?,
        catalogue: Catalogue::follow(Arc::clone(&store), database, host),
        changes: changes::Changes::new(Arc::clone(&coordination.notices), &host.tasks),
        runner: Runner::connect(host, &settings.worker)?,
        schemas: schema::Schemas::default(),
        imports: api::Imports::default(),
        drafts: api::Drafts::default(),
        selections: selection::Selections::default(),
        looks: tokio::sync::Notify::new(),
        hub: queue::Hub::follow(&store, &host.tasks),
        backlog: queue::Backlog::new(Arc::clone(&store), settings.queue.queued_per_tenant),
        queue: settings.queue.clone(),
        limits: settings.limits.clone(),
        retention: settings.retention.clone(),
        upstreams: settings.upstreams.clone(),
        slow_listing: host.common.test_faults.contains(&Fault::SlowQuery),
        tasks: host.tasks.clone(),
        shutdown: host.shutdown.clone(),
        store,
        replica,
    }))
}

fn follow_redis(coordination: &Coordination, host: &Host) {
    if let Some(up) = coordination.redis.clone() {
        host.tasks
            .spawn("redis", host.readiness.dependency("redis").follow(up));
    }
}

fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "replica".to_owned())
}
