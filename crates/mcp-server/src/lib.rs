//! The Model Context Protocol door of DevOps MCP.
//!
//! A request to `/mcp` passes [`auth`] (whose key is it, may it call so often), reaches its tenant's MCP server
//! ([`mod@tenants`]: the SDK, both eras of the protocol) and there the [`handler`], which lists tools from this replica's
//! copy of the catalogue ([`catalogue`], fed by [`watch`]), runs the built-in ones itself ([`tools`]) and has rest-api
//! run the registered ones ([`execute`]), as [`tasks`] where the client does tasks, and after a person agreed
//! ([`confirm`]) where the tool is destructive. The service owns nothing: everything it answers comes from rest-api, and any
//! number of replicas serve the same clients.

mod audit;
mod auth;
mod caller;
mod catalogue;
mod completion;
mod confirm;
mod debug;
mod error;
mod execute;
mod handler;
mod logging;
pub mod metrics;
mod prompts;
mod refusal;
mod resources;
mod rules;
mod sessions;
mod settings;
mod span;
mod subscriptions;
mod tasks;
mod tenants;
mod tools;
mod toolsets;
mod watch;

pub use settings::{Audit, RestApi, Results, Sessions, Settings, Subscriptions, Tasks};

use audit::Trail;
use auth::Door;
use axum::{Router, middleware::from_fn_with_state, routing::any};
use caller::Upstream;
use catalogue::Catalogue;
use chassis::{App, Host, Service, ServiceInfo, grpc::GrpcChannel};
use confirm::Confirmations;
use coordination::RateLimiter;
use domain::TenantId;
use handler::{Handler, Shared};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::StreamableHttpServerConfig;
use std::{sync::Arc, time::Duration};
use telemetry::metrics::Declaration;
use tenants::Tenants;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where MCP is served.
pub const PATH: &str = "/mcp";

/// How long streams stay open after the last call of a service that was told to stop.
const LAST_WORD: Duration = Duration::from_millis(200);
/// For how long a start waits until it knows the registered tools.
const FIRST_CATALOGUE: Duration = Duration::from_secs(3);

/// The service.
pub struct McpServer;

impl Service for McpServer {
    const INFO: ServiceInfo = ServiceInfo {
        name: "mcp-server",
        version: env!("CARGO_PKG_VERSION"),
    };
    const ABOUT: &str = "Contexts and tools over the Model Context Protocol";
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
        let shared = coordination::connect(&settings.redis)?;
        if let Some(up) = shared.redis {
            host.tasks
                .spawn("redis", host.readiness.dependency("redis").follow(up));
        }
        let channel = channel(&settings, host)?;
        let catalogue = Catalogue::new();
        watch::start(host, &channel, &catalogue)?;
        let calls = TaskTracker::new();
        let trail = Trail::start(&settings.audit, host, &channel)?;
        let door = door(&settings, &channel, shared.limiter, trail.clone());
        let handlers = handlers(&settings, host, &channel, &catalogue, &calls, door.clone(), trail)?;
        let make = move |tenant| Handler::new(handlers.clone(), tenant);
        let tenants = tenants(&settings, host, calls, shared.cache, true, make);
        host.tasks
            .spawn("tools-changed", tenants.clone().tell_sessions(catalogue.clone()));
        measure(host, catalogue.clone(), tenants.clone());
        // One that was only just started would list fewer tools than its neighbours. It starts without rest-api, too.
        let _ = tokio::time::timeout(FIRST_CATALOGUE, catalogue.followed()).await;
        Ok(App {
            http: stack(host, door, tenants),
            admin: debug::routes(shared.inspector),
            pages: debug::PAGES,
            ..App::default()
        })
    }
}

/// The `/mcp` endpoint around other handlers than the product's, with all that stands before those: authentication,
/// limits, bounds, the checks of `Host` and `Origin`, spans, sessions. `make` is asked once for each tenant that calls.
/// This is how the protocol is tested beyond what the product's own tools need of it.
///
/// # Errors
/// When rest-api's or Redis's address is none.
pub fn around<H: ServerHandler>(
    settings: &Settings,
    host: &Host,
    make: impl Fn(TenantId) -> H + Send + Sync + 'static,
) -> anyhow::Result<Router> {
    let shared = coordination::connect(&settings.redis)?;
    let channel = channel(settings, host)?;
    let tenants = tenants(settings, host, TaskTracker::new(), shared.cache, false, make);
    let trail = Trail::start(&settings.audit, host, &channel)?;
    Ok(stack(
        host,
        door(settings, &channel, shared.limiter, trail),
        tenants,
    ))
}

fn channel(settings: &Settings, host: &Host) -> anyhow::Result<GrpcChannel> {
    chassis::grpc::channel(host, "rest-api", &settings.rest_api.url, &Default::default())
}

fn door(settings: &Settings, channel: &GrpcChannel, limiter: Arc<dyn RateLimiter>, trail: Trail) -> Door {
    Door::new(channel, limiter, settings.rate_limit.quota(), trail)
}

fn stack<H: ServerHandler>(host: &Host, door: Door, tenants: Arc<Tenants<H>>) -> Router {
    let routes = Router::new()
        .route(PATH, any(tenants::serve::<H>))
        .with_state(tenants);
    let authenticate = from_fn_with_state(door, auth::authenticate);
    chassis::http::stack(routes, authenticate, &host.common)
}

fn handlers(
    settings: &Settings,
    host: &Host,
    channel: &GrpcChannel,
    catalogue: &Catalogue,
    calls: &TaskTracker,
    door: Door,
    trail: Trail,
) -> anyhow::Result<Arc<Shared>> {
    let confirmations = host.common.service_token.as_ref();
    Ok(Arc::new(Shared {
        upstream: Upstream::new(channel),
        catalogue: catalogue.clone(),
        built_in: tools::all()?,
        results: settings.results.clone(),
        tasks: settings.tasks.clone(),
        // Without the token rest-api would believe no confirmation, so nobody is asked.
        confirmations: confirmations.map(Confirmations::new).transpose()?,
        max_subscriptions: settings.sessions.max_per_tenant,
        subscriptions: settings.subscriptions.clone(),
        door,
        trail,
        background: host.tasks.clone(),
        info: handler::info(),
        wishes: span::Wishes::default(),
        draining: host.draining.clone(),
        shutdown: host.shutdown.clone(),
        calls: calls.clone(),
    }))
}

fn tenants<H: ServerHandler>(
    settings: &Settings,
    host: &Host,
    calls: TaskTracker,
    cache: Arc<dyn coordination::Cache>,
    legacy_tasks: bool,
    make: impl Fn(TenantId) -> H + Send + Sync + 'static,
) -> Arc<Tenants<H>> {
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(settings.hosts())
        .with_allowed_origins(settings.origins())
        .enforce_origin_validation()
        // One JSON answer where nothing else is to be said; progress makes it a stream.
        .with_json_response(true)
        .with_max_request_body_bytes(host.common.http.max_body_bytes)
        .with_cancellation_token(streams_end(host, calls));
    Arc::new(Tenants::new(
        Box::new(make),
        config,
        cache,
        settings.sessions.clone(),
        legacy_tasks,
        host.draining.clone(),
    ))
}

/// Cuts open streams once the service was told to stop and the calls in flight are over, with time for a last word.
/// Calls that take too long are the chassis's to end.
fn streams_end(host: &Host, calls: TaskTracker) -> CancellationToken {
    let (told, end) = (host.shutdown.clone(), CancellationToken::new());
    let cut = end.clone();
    host.tasks.spawn("streams-end", async move {
        told.cancelled().await;
        calls.close();
        calls.wait().await;
        tokio::time::sleep(LAST_WORD).await;
        cut.cancel();
    });
    end
}

/// What is measured when somebody looks.
fn measure(host: &Host, catalogue: Catalogue, tenants: Arc<Tenants<Handler>>) {
    host.telemetry.on_scrape(move || {
        metrics::SESSIONS_ACTIVE.set(tenants.open_sessions(), []);
        metrics::CATALOGUE_TOOLS.set(catalogue.len(), []);
        metrics::CATALOGUE_AGE.set(catalogue.age(), []);
    });
}
