//! Metrics, logs and traces, and the layers that carry them across HTTP and gRPC.
//!
//! A service calls [`init`] once, first thing, and keeps the guard until it has drained; everything else works
//! through the [`Handle`] and through the layers. Telemetry never blocks or fails a request: what cannot be kept is
//! dropped and counted.

pub mod client;
pub mod context;
pub mod db;
pub mod grpc;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod propagate;
mod runtime;
pub mod settings;
pub mod span;
pub mod traces;

pub use logs::InvalidDirective;
pub use settings::Settings;

/// Which service this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Its name, as in the metrics' `service` label: `rest-api`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}
