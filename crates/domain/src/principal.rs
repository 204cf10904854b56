//! Who calls, and what they may do.

use crate::{ApiKeyId, TenantId, ToolRules};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        /// A right that an API key can hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Scope {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl Scope {
            /// Every scope there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that stands in requests, databases and on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

scopes! {
    /// Read contexts and their items.
    ContextsRead = "contexts:read",
    /// Create, change and delete contexts.
    ContextsWrite = "contexts:write",
    /// See the catalogue and past executions.
    ToolsRead = "tools:read",
    /// Run tools.
    ToolsExecute = "tools:execute",
    /// Register, change and delete tools.
    ToolsManage = "tools:manage",
    /// Run destructive tools without confirmation or approval.
    ToolsUnattended = "tools:unattended",
    /// Approve other keys' runs of destructive tools.
    ExecutionsApprove = "executions:approve",
    /// Create, change and delete schedules.
    SchedulesManage = "schedules:manage",
    /// Create, list, rotate and revoke API keys.
    KeysManage = "keys:manage",
    /// Force a trace and raise the log level of one's own request.
    Debug = "debug",
    /// Ask the sources that are granted to the tenant: metrics, logs, traces, alerts.
    ObserveRead = "observe:read",
    /// Make and end silences in the sources that are granted to the tenant.
    ObserveWrite = "observe:write",
    /// Ask the sources of the installation itself, which hold the telemetry of all tenants.
    PlatformObserve = "platform:observe",
    /// Deliver alerts, which open incidents.
    AlertsReceive = "alerts:receive",
    /// Read the audit log.
    AuditRead = "audit:read",
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope; known are {}", Scopes::all())]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == s)
            .ok_or(UnknownScope)
    }
}

/// A set of scopes, kept sorted and without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Every scope there is.
    pub fn all() -> Self {
        Scope::ALL.to_vec().into()
    }

    /// Every scope that concerns one tenant only.
    pub fn of_a_tenant() -> Self {
        let within = |scope: &Scope| *scope != Scope::PlatformObserve;
        Scope::ALL
            .iter()
            .copied()
            .filter(within)
            .collect::<Vec<_>>()
            .into()
    }

    /// Whether `scope` is held.
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.binary_search(&scope).is_ok()
    }

    /// Whether every scope of `other` is held.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|s| self.contains(*s))
    }

    /// The scopes, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(mut scopes: Vec<Scope>) -> Self {
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes)
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.0
    }
}

/// Scopes separated by commas or spaces.
impl FromStr for Scopes {
    type Err = UnknownScope;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let words = s.split([',', ' ']).filter(|w| !w.is_empty());
        Ok(words.map(Scope::from_str).collect::<Result<Vec<_>, _>>()?.into())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            write!(f, "{}{scope}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// An authenticated caller: a verified API key. The tenant of every request comes from here and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The tenant that the key belongs to.
    pub tenant_id: TenantId,
    /// That tenant's name, for logs and metrics.
    pub tenant: String,
    /// The key.
    pub key_id: ApiKeyId,
    /// The key's name, for people.
    pub key_name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Which tools it may see and call, and with which arguments.
    #[serde(default)]
    pub tools: ToolRules,
}

impl Principal {
    /// Holds the caller to `scope`.
    ///
    /// # Errors
    /// [`MissingScope`] when the key does not hold it.
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            Err(MissingScope(scope))
        }
    }
}

/// The key is good but may not do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this key does not have the scope {0}")]
pub struct MissingScope(pub Scope);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_parse_sort_and_print() {
        let scopes: Scopes = "tools:execute, contexts:read contexts:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "contexts:read,tools:execute");
        assert!(scopes.contains(Scope::ToolsExecute) && !scopes.contains(Scope::KeysManage));
        assert!(Scopes::all().covers(&scopes) && !scopes.covers(&Scopes::all()));
        assert_eq!("root".parse::<Scopes>(), Err(UnknownScope));
    }
}
