//! The real services, driven by real clients: one module a topic.
//!
//! Run by `cargo xtask test`, or by `cargo build --workspace --bins && cargo test -p e2e`. Each test has services and
//! a database of its own; most run on SQLite and, where `TEST_POSTGRES_URL` and `TEST_REDIS_URL` name servers, on
//! PostgreSQL and Redis too. `E2E_KEEP=1` leaves their directories behind.

#![expect(
    clippy::too_many_lines,
    reason = "a scenario is read from top to bottom; cut up, it would lose its order"
)]

mod audit;
mod conformance;
mod contexts_mcp;
mod contexts_rest;
mod debug_database;
mod debug_request;
mod debug_tasks;
mod detective;
mod executions;
mod failures;
mod guidance;
mod import;
mod incidents;
mod key_rules;
mod keys;
mod lifecycle;
mod log_level;
mod mcp_resources;
mod metrics;
mod mutual_tls;
mod observe;
mod profiles;
mod protocol;
mod rejections;
mod replicas;
mod rolling;
mod schedules;
mod selections;
mod tasks;
mod tenancy;
mod tools;
mod trace_chain;
mod upstreams;

use e2e::{Backend, Json, Stack, Target, rest::Rest};

/// A test may fail in any way.
type Outcome = anyhow::Result<()>;

/// A stack of rest-api alone, with a tenant's caller that may do everything.
async fn rest_api(backend: Backend) -> anyhow::Result<(Stack, Rest)> {
    let stack = Stack::builder(backend)
        .services(&[e2e::stack::REST_API])
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    Ok((stack, rest))
}

/// All services, a tenant's key and caller that may do everything, and an endpoint for tools.
async fn world(backend: Backend) -> anyhow::Result<(Stack, String, Rest, Target)> {
    let target = Target::start().await?;
    let stack = Stack::builder(backend).allow_private().start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    Ok((stack, key, rest, target))
}

/// A member of a JSON object as text.
fn text<'a>(value: &'a Json, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}
