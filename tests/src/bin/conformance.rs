//! mcp-server with the conformance suite's fixtures in place of its tools, for the suite to be run against.
//!
//! Everything but the handler is the product's: settings, keys that rest-api verifies, limits, checks, sessions, spans.
//! The suite sends no key, so requests without one are given that of the environment variable `CONFORMANCE_KEY`, if it
//! is set, before they reach the stack.

use anyhow::Context;
use axum::extract::Request;
use chassis::{App, Host, Service, ServiceInfo};
use e2e::conformance::Fixtures;
use http::{HeaderValue, header::AUTHORIZATION};
use mcp_server::{McpServer, Settings};
use std::env;
use telemetry::metrics::Declaration;

chassis::allocator!();

struct Conformance;

impl Service for Conformance {
    const INFO: ServiceInfo = ServiceInfo {
        name: "conformance",
        version: env!("CARGO_PKG_VERSION"),
    };
    type Settings = Settings;

    fn declarations() -> &'static [&'static [Declaration]] {
        McpServer::declarations()
    }

    async fn build(settings: Settings, host: &Host) -> anyhow::Result<App> {
        let mut http = mcp_server::around(&settings, host, |_tenant| Fixtures::default())?;
        if let Ok(key) = env::var("CONFORMANCE_KEY") {
            let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).context("CONFORMANCE_KEY")?;
            bearer.set_sensitive(true);
            http = http.layer(axum::middleware::map_request(move |mut request: Request| {
                request
                    .headers_mut()
                    .entry(AUTHORIZATION)
                    .or_insert_with(|| bearer.clone());
                std::future::ready(request)
            }));
        }
        Ok(App {
            http,
            ..App::default()
        })
    }
}

fn main() -> std::process::ExitCode {
    chassis::main::<Conformance>()
}
