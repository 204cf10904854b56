//! Where the product's own tools look: metrics, logs, traces, alerts, databases. Each source is granted to tenants, and
//! what a tenant may not see is kept from it here, not in the tools.

mod settings;

pub use settings::{Settings, Source};

use crate::outcome::{Code, Failure};
use domain::Scopes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A Prometheus-compatible API.
    Prometheus,
    /// Loki.
    Loki,
    /// Jaeger's query API.
    Jaeger,
    /// Tempo's API.
    Tempo,
    /// Alertmanager.
    Alertmanager,
    /// PostgreSQL.
    Postgresql,
    /// Redis.
    Redis,
}

/// Who wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    /// The key's name.
    pub key_name: &'a str,
    /// What the key may do.
    pub scopes: &'a Scopes,
}
