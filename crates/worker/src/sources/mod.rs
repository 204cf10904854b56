//! Where the product's own tools look: metrics, logs, traces, alerts, databases. Each source is granted to tenants, and
//! what a tenant may not see is kept from it here, not in the tools.

mod access;
mod client;
mod credentials;
pub mod logql;
pub(crate) mod postgres;
pub mod promql;
pub(crate) mod redis;
mod room;
pub mod settings;
mod stream;
pub mod time;

pub use access::{Access, segment};
pub use room::Answered;
pub(crate) use room::{Space, take};
pub use settings::{Grant, Settings, Source};

use crate::{
    metrics,
    outcome::{Code, Failure},
};
use access::RESULTS;
use anyhow::Context as _;
use domain::{Scope, Scopes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// A label that must have a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// The value.
    pub value: String,
}

impl Kind {
    /// The word that stands in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Loki => "loki",
            Self::Jaeger => "jaeger",
            Self::Tempo => "tempo",
            Self::Alertmanager => "alertmanager",
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
        }
    }

    /// Whether it is asked over HTTP, rather than in a database's own protocol.
    pub(crate) fn speaks_http(self) -> bool {
        !matches!(self, Self::Postgresql | Self::Redis)
    }

    /// What it holds, in an agent's words.
    fn holds(self) -> &'static str {
        match self {
            Self::Prometheus => "metrics",
            Self::Loki => "logs",
            Self::Jaeger | Self::Tempo => "traces",
            Self::Alertmanager => "alerts",
            Self::Postgresql => "databases",
            Self::Redis => "Redis",
        }
    }

    /// Whether a source of this kind is of use to whoever needs one of `needed`: traces come from either kind.
    fn serves(self, needed: Self) -> bool {
        self == needed || (self, needed) == (Self::Tempo, Self::Jaeger)
    }
}

impl Who<'_> {
    fn is_platform(&self) -> bool {
        self.scopes.contains(Scope::PlatformObserve)
    }
}

/// Every source, each as the platform and as each tenant may use it.
#[derive(Default)]
pub struct Sources(BTreeMap<String, Doors>);

/// One source.
struct Doors {
    kind: Kind,
    platform: Option<Access>,
    grants: BTreeMap<String, Access>,
}

impl Doors {
    fn new(name: &str, source: &Source, user_agent: &str, space: &Space) -> anyhow::Result<Self> {
        for result in RESULTS {
            metrics::SOURCE_REQUESTS.add(0, [name, source.kind.as_str(), result]);
        }
        let open = |grant: Option<&Grant>| Access::new(name, source, grant, user_agent, space);
        let grants = source.grants.iter().map(|(tenant, grant)| {
            let access = open(Some(grant)).with_context(|| format!("the grant of {tenant}"))?;
            Ok((tenant.clone(), access))
        });
        Ok(Self {
            kind: source.kind,
            platform: source.platform.then(|| open(None)).transpose()?,
            grants: grants.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The platform's scope wins over a grant.
    fn open(&self, who: &Who<'_>) -> Option<&Access> {
        let platform = self.platform.as_ref().filter(|_| who.is_platform());
        platform.or_else(|| self.grants.get(who.tenant))
    }
}

impl Sources {
    /// Prepares the clients, and reads the files that the settings name.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(settings: &Settings, user_agent: &str) -> anyhow::Result<Self> {
        Self::within(settings, user_agent, &Space::new(room::TOTAL))
    }

    /// As [`Self::new`], with so much room for what all of them answer.
    pub(crate) fn within(settings: &Settings, user_agent: &str, space: &Space) -> anyhow::Result<Self> {
        let set = settings.iter().filter(|(_, source)| source.is_set());
        let doors = set.map(|(name, source)| {
            let doors = Doors::new(name, source, user_agent, space);
            let doors = doors.with_context(|| format!("the source {name} cannot be used"))?;
            Ok((name.clone(), doors))
        });
        doors.collect::<anyhow::Result<_>>().map(Self)
    }

    /// No sources.
    pub fn none() -> Self {
        Self::default()
    }

    /// The tenants that have a source of each of these kinds, and whether the platform does. [`Kind::Tempo`] serves
    /// where [`Kind::Jaeger`] is needed.
    pub fn open_to(&self, needs: &[Kind]) -> (Vec<String>, bool) {
        let all = |has: &dyn Fn(&Doors) -> bool| {
            needs.iter().all(|needed| {
                let mut doors = self.0.values();
                doors.any(|doors| doors.kind.serves(*needed) && has(doors))
            })
        };
        let mut tenants: Vec<&String> = self.0.values().flat_map(|doors| doors.grants.keys()).collect();
        tenants.sort_unstable();
        tenants.dedup();
        tenants.retain(|tenant| all(&|doors| doors.grants.contains_key(*tenant)));
        let platform = all(&|doors| doors.platform.is_some());
        (tenants.into_iter().cloned().collect(), platform)
    }

    /// The source that a caller means; without a name, the first one of its kind.
    ///
    /// # Errors
    /// [`Code::UnknownSource`] names those that the caller has.
    pub fn pick(&self, kind: Kind, name: Option<&str>, who: &Who<'_>) -> Result<Access, Failure> {
        let found = match name {
            None => self.find(kind, who),
            Some(name) => self.of(kind, who).find(|access| access.name() == name).cloned(),
        };
        found.ok_or_else(|| {
            let names = self.names(kind, who);
            let message = match names.as_slice() {
                [] => format!("you have no source of {}", kind.holds()),
                names => format!(
                    "no such source of {}; you have: {}",
                    kind.holds(),
                    names.join(", ")
                ),
            };
            Failure::new(Code::UnknownSource, message)
        })
    }

    /// The names of the sources of a kind that a caller has.
    pub fn names(&self, kind: Kind, who: &Who<'_>) -> Vec<String> {
        self.of(kind, who)
            .map(|access| access.name().to_owned())
            .collect()
    }

    /// The first source of a kind that a caller has; for tools that also use what they do not need.
    pub fn find(&self, kind: Kind, who: &Who<'_>) -> Option<Access> {
        self.of(kind, who).next().cloned()
    }

    fn of<'a>(&'a self, kind: Kind, who: &'a Who<'_>) -> impl Iterator<Item = &'a Access> {
        let serving = self.0.values().filter(move |doors| doors.kind == kind);
        serving.filter_map(|doors| doors.open(who))
    }
}
