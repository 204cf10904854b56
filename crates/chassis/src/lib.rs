//! What every service of DevOps MCP is built on: settings, lifecycle, readiness, the ops router,
//! and the assembly of the HTTP and gRPC servers.
//!
//! A service is a [`Settings`] type, a [`Service`] that builds an [`App`] from it, and three lines of `main.rs`:
//!
//! ```
//! use chassis::{App, Host, ServiceInfo, settings::{Common, Invalid}};
//! use serde::{Deserialize, Serialize};
//! use telemetry::metrics::Declaration;
//!
//! /// Only the service's own sections: `http`, `grpc`, `monitoring` and the like are in every service by themselves.
//! #[derive(Clone, Debug, Default, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! pub struct Settings {
//!     greeting: Greeting,
//! }
//!
//! #[derive(Clone, Debug, Serialize, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Greeting {
//!     text: String,
//!     #[serde(with = "chassis::settings::duration")]
//!     pause: std::time::Duration,
//! }
//!
//! impl Default for Greeting {
//!     fn default() -> Self {
//!         Self { text: "hello".into(), pause: std::time::Duration::from_millis(5) }
//!     }
//! }
//!
//! impl chassis::Settings for Settings {
//!     fn common() -> Common {
//!         Common::listening(8099, None)
//!     }
//!
//!     fn validate(&self, _common: &Common) -> Result<(), Invalid> {
//!         if self.greeting.text.is_empty() {
//!             return Err(Invalid::new("greeting.text", "a word"));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! pub struct Greeter;
//!
//! impl chassis::Service for Greeter {
//!     const INFO: ServiceInfo = ServiceInfo { name: "greeter", version: env!("CARGO_PKG_VERSION") };
//!     type Settings = Settings;
//!
//!     fn declarations() -> &'static [&'static [Declaration]] {
//!         &[]
//!     }
//!
//!     async fn build(settings: Settings, host: &Host) -> anyhow::Result<App> {
//!         let routes = axum::Router::new().route(
//!             "/greeting",
//!             axum::routing::get(async move || {
//!                 tokio::time::sleep(settings.greeting.pause).await;
//!                 settings.greeting.text.clone()
//!             }),
//!         );
//!         let no_authentication = tower::layer::util::Identity::new();
//!         Ok(App { http: chassis::http::stack(routes, no_authentication, &host.common), ..App::default() })
//!     }
//! }
//!
//! // main.rs:
//! // chassis::allocator!();
//! // fn main() -> std::process::ExitCode { chassis::main::<greeter::Greeter>() }
//! ```

mod allocator;
mod args;
pub mod credential;
pub mod extract;
pub mod faults;
pub mod grpc;
mod health;
pub mod http;
pub mod lifecycle;
pub mod ops;
pub mod outbox;
pub mod problem;
pub mod readiness;
mod secret;
mod service;
pub mod settings;
mod tasks;

pub use args::Args;
pub use health::health;
pub use lifecycle::{causes, main, run, serve, tell_health};
pub use problem::Problem;
pub use readiness::{Dependency, Readiness};
pub use secret::same_secret;
pub use service::{App, Host, Service};
pub use settings::{Common, Configuration, Settings};
pub use tasks::Tasks;
pub use telemetry::ServiceInfo;

#[doc(hidden)]
pub use tikv_jemallocator;

telemetry::metrics! {
    /// Whether something that the service needs is reachable (1) or not (0).
    pub static DEPENDENCY_UP: Gauge["dependency"] = "dependency_up";
    /// Requests for admin pages that were refused: without a token, with a wrong one, because none is configured, or
    /// because a page of another site made a browser send them.
    pub static ADMIN_REQUESTS_REFUSED: Counter["reason"] = "admin_requests_refused_total",
        known: &[&["no_token", "wrong_token", "closed", "cross_site"]];
    /// When the certificate that the service shows to the others expires, in seconds since 1970; 0 without
    /// `grpc.tls`.
    pub static TLS_CERTIFICATE_EXPIRY: Gauge[] = "tls_certificate_expiry_timestamp_seconds";
    /// Changes of the files of `grpc.tls`: taken over (ok), or of no use, so that those before stay (failed; each time
    /// that they are looked at).
    pub static TLS_RELOADS: Counter["result"] = "tls_reloads_total", known: &[&["ok", "failed"]];
    /// Connections to the gRPC server that were given up before TLS stood: the client showed no certificate
    /// (no_certificate), one of an unknown CA (unknown_ca), an expired one (expired), one with a name that is not among
    /// `grpc.tls.allowed_clients` (not_allowed) or one that is no good otherwise (bad_certificate); it refused this
    /// service's certificate (refused), spoke no TLS (not_tls) or another version (incompatible), took too long
    /// (timeout), went away (closed).
    pub static TLS_HANDSHAKES_FAILED: Counter["reason"] = "tls_handshakes_failed_total",
        known: &[&["no_certificate", "unknown_ca", "expired", "not_allowed", "bad_certificate", "refused", "not_tls",
            "incompatible", "timeout", "closed", "other"]];
}
