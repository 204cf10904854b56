//! The names of the product's own tools, and the sets that tools come in.

use super::RESERVED_PREFIX;
use crate::ToolId;
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! toolsets {
    ($($(#[$doc:meta])* $variant:ident = $word:literal: [$($tool:literal),* $(,)?]),+ $(,)?) => {
        /// A set of tools that a key or a client chooses by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Toolset {
            $($(#[$doc])* $variant,)+
        }

        impl Toolset {
            /// Every set there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that stands in requests.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        /// The product's own tools that run in the worker, by set.
        const OWN: &[(Toolset, &[&str])] = &[$((Toolset::$variant, &[$($tool),*])),+];
    };
}

toolsets! {
    /// The agents' working memory.
    Contexts = "contexts": [],
    /// Metrics of a Prometheus-compatible API.
    Metrics = "metrics": ["query_metrics", "list_metrics", "list_targets"],
    /// Logs of Loki.
    Logs = "logs": ["query_logs", "log_labels"],
    /// Traces of Jaeger or Tempo.
    Traces = "traces": ["search_traces", "get_trace", "compare_traces"],
    /// Alerts and silences of Alertmanager.
    Alerts = "alerts": ["list_alerts", "list_silences", "create_silence", "expire_silence"],
    /// Judgement over several sources.
    Health = "health": ["service_health", "slo_status", "slow_queries", "redis_status", "explain_alert"],
    /// What the tenant registered, other MCP servers' tools among it.
    Tools = "tools": [],
}

impl Toolset {
    /// The set that a tool belongs to, by its name.
    pub fn of(tool: &str) -> Self {
        if tool.starts_with(RESERVED_PREFIX) {
            return Self::Contexts;
        }
        let own = OWN.iter().find(|(_, tools)| tools.contains(&tool));
        own.map_or(Self::Tools, |(set, _)| *set)
    }
}

impl fmt::Display for Toolset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no set of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown set of tools; known are contexts, metrics, logs, traces, alerts, health, tools")]
pub struct UnknownToolset;

impl FromStr for Toolset {
    type Err = UnknownToolset;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let all = Self::ALL.iter().copied();
        all.into_iter()
            .find(|set| set.as_str() == s)
            .ok_or(UnknownToolset)
    }
}

/// Whether a tool of the product that runs in the worker has this name. A tenant cannot register such a one.
pub fn is_built_in(name: &str) -> bool {
    OWN.iter().any(|(_, tools)| tools.contains(&name))
}

/// The identifier of the product's tool of this name: the same in every installation.
pub fn id(name: &str) -> ToolId {
    let mut bytes = [0; 16];
    let hash = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    ToolId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Whether this is the identifier that [`id`] gives the tool.
pub fn is_id_of(id_: ToolId, name: &str) -> bool {
    is_built_in(name) && id(name) == id_ && id_.0 != Uuid::nil()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_belongs_to_one_set() {
        assert_eq!(Toolset::of("context_get"), Toolset::Contexts);
        assert_eq!(Toolset::of("query_logs"), Toolset::Logs);
        assert_eq!(Toolset::of("weather"), Toolset::Tools);
        assert_eq!("health".parse(), Ok(Toolset::Health));
        assert_eq!("".parse::<Toolset>(), Err(UnknownToolset));
        let all: Vec<&str> = OWN.iter().flat_map(|(_, tools)| tools.iter().copied()).collect();
        let unique: std::collections::BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(unique.len(), all.len());
        assert!(is_id_of(id("query_logs"), "query_logs") && !is_id_of(id("query_logs"), "weather"));
    }
}
