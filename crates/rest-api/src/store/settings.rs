//! The `database:` section of the configuration.

use chassis::settings::Invalid;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// For how long an answer to a statement is waited for. A server that is up ends a statement sooner, by
/// `statement_timeout`; this is for one that fell silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The longest `statement_timeout`: short of [`PATIENCE`].
pub(crate) const MAX_STATEMENT_TIMEOUT: Duration = Duration::from_secs(25);

/// The longest `outage_patience`: short of [`PATIENCE`], too.
const MAX_OUTAGE_PATIENCE: Duration = MAX_STATEMENT_TIMEOUT;

/// Which database, and how it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `sqlite://relative/or//absolute/path.db`, `sqlite::memory:` or `postgres://user:password@host:port/database`.
    #[serde(serialize_with = "chassis::settings::mask_password")]
    pub url: SecretString,
    /// PostgreSQL's password, where it does not stand in the URL.
    #[serde(serialize_with = "chassis::settings::mask")]
    pub password: Option<SecretString>,
    /// The most connections; on SQLite, those that read (one more writes). On PostgreSQL one more listens for
    /// other replicas' signals.
    pub max_connections: u32,
    /// How long a request waits for a connection, and on SQLite for another process's write.
    #[serde(with = "chassis::settings::duration")]
    pub acquire_timeout: Duration,
    /// How long a request waits for a PostgreSQL server that went away, and is then made as if nothing had been. What
    /// may have taken place already is not made again. `0s`: it is refused at once.
    #[serde(with = "chassis::settings::duration")]
    pub outage_patience: Duration,
    /// After how long PostgreSQL gives a statement up.
    #[serde(with = "chassis::settings::duration")]
    pub statement_timeout: Duration,
    /// From which duration on a statement is logged as slow.
    #[serde(with = "chassis::settings::duration")]
    pub slow_statement: Duration,
    /// Whether the statements of sampled requests carry their trace id in a comment, so that PostgreSQL's log leads to
    /// the trace. Such a statement is planned anew each time.
    pub trace_comments: bool,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: "sqlite://data/devops-mcp.db".into(),
            password: None,
            max_connections: 10,
            acquire_timeout: Duration::from_secs(3),
            outage_patience: Duration::from_secs(15),
            statement_timeout: Duration::from_secs(10),
            slow_statement: Duration::from_millis(500),
            trace_comments: true,
        }
    }
}

impl DatabaseSettings {
    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        if self.statement_timeout > MAX_STATEMENT_TIMEOUT {
            return Err(Invalid::new("database.statement_timeout", "at most 25s"));
        }
        if self.outage_patience > MAX_OUTAGE_PATIENCE {
            return Err(Invalid::new("database.outage_patience", "at most 25s"));
        }
        if self.password.is_none() {
            return Ok(());
        }
        let url = self.url.expose_secret();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if !matches!(scheme, "postgres" | "postgresql") {
            let expected = "none: only a PostgreSQL server asks for one, and database.url names another";
            return Err(Invalid::new("database.password", expected));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        if user.contains(':') {
            let expected = "none: database.url holds one already";
            return Err(Invalid::new("database.password", expected));
        }
        Ok(())
    }
}
