//! mcp-server's own sections of `config.yaml`.

use chassis::settings::{Common, Invalid};
use coordination::RateLimit;
use domain::audit::Arguments;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The names by which a machine reaches itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// mcp-server's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where rest-api's gRPC is.
    pub rest_api: RestApi,
    /// What replicas share.
    pub redis: coordination::Settings,
    /// How often a key may call.
    pub rate_limit: RateLimit,
    /// `Host` headers that are served, with or without a port; empty or `*`: all.
    pub allowed_hosts: Vec<String>,
    /// `Origin` headers that are served, as `scheme://host:port` (`:*` for any port); requests without one always are.
    /// Empty: pages of this machine where only this machine's names are served, else none.
    pub allowed_origins: Vec<String>,
    /// Sessions of protocol versions before 2026-07-28, and open notification streams.
    pub sessions: Sessions,
    /// Resources that clients are told of when they change.
    pub subscriptions: Subscriptions,
    /// What tools and resources answer.
    pub results: Results,
    /// Calls that become MCP tasks.
    pub tasks: Tasks,
    /// What the audit log is told.
    pub audit: Audit,
}

/// What the audit log is told of calls over MCP.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Calls' arguments: `none` keeps their hash alone, `redacted` them as well, with what looks secret taken out.
    pub arguments: Arguments,
    /// How many records wait while rest-api is away; what is more is lost, and counted.
    pub buffer: usize,
    /// For how long rejected authentications are counted together.
    #[serde(with = "chassis::settings::duration")]
    pub rejected_every: Duration,
}

/// Where rest-api's gRPC is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestApi {
    /// Its address; a name with several addresses is balanced.
    pub url: String,
}

/// Sessions and open notification streams.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Sessions of all tenants that this process holds.
    pub max: usize,
    /// One tenant's sessions, and apart from them its `subscriptions/listen` streams. A session beyond it takes the
    /// place of the one that has been idle longest.
    pub max_per_tenant: usize,
    /// A session without traffic ends after this.
    #[serde(with = "chassis::settings::duration")]
    pub idle: Duration,
    /// For how long an ended or lost session can be taken up again, here or by another replica.
    #[serde(with = "chassis::settings::duration")]
    pub resumable: Duration,
}

/// Resources that clients are told of when they change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subscriptions {
    /// Resources that one session, or one `subscriptions/listen` stream, is told of.
    pub max_per_session: usize,
    /// Those of all of a tenant's together, in this process.
    pub max_per_tenant: usize,
}

/// What tools and resources answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Results {
    /// The content of one answer, where the caller does not ask for another size.
    #[serde(with = "chassis::settings::size")]
    pub default_bytes: usize,
    /// The most that a caller may ask for, and the most of a registered tool's result that is passed on.
    #[serde(with = "chassis::settings::size")]
    pub max_bytes: usize,
}

/// Calls that become MCP tasks: their clients need not wait for them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tasks {
    /// A call that has not ended by then becomes a task, where the client does tasks and leaves that to the server.
    #[serde(with = "chassis::settings::duration")]
    pub after: Duration,
    /// What clients are told of how long a task can be asked for: rest-api's `retention.executions`.
    #[serde(with = "chassis::settings::duration")]
    pub kept: Duration,
    /// How often clients are to ask how a task stands.
    #[serde(with = "chassis::settings::duration")]
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rest_api: RestApi::default(),
            redis: coordination::Settings::default(),
            rate_limit: RateLimit::default(),
            allowed_hosts: LOOPBACK.map(str::to_owned).to_vec(),
            allowed_origins: Vec::new(),
            sessions: Sessions::default(),
            subscriptions: Subscriptions::default(),
            results: Results::default(),
            tasks: Tasks::default(),
            audit: Audit::default(),
        }
    }
}

impl Default for RestApi {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:50051".to_owned(),
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            max: 5000,
            max_per_tenant: 500,
            idle: 5 * minute,
            resumable: 24 * 60 * minute,
        }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(2),
            kept: Duration::from_secs(30 * 24 * 3600),
            poll: Duration::from_secs(1),
        }
    }
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            max_per_session: 50,
            max_per_tenant: 1000,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            arguments: Arguments::None,
            buffer: 10_000,
            rejected_every: Duration::from_secs(60),
        }
    }
}

impl Default for Results {
    fn default() -> Self {
        Self {
            default_bytes: 64 << 10,
            max_bytes: 2 << 20,
        }
    }
}

impl Settings {
    /// The hosts that rmcp lets through; none: all.
    pub(crate) fn hosts(&self) -> Vec<String> {
        if self.allowed_hosts.iter().any(|host| host == "*") {
            Vec::new()
        } else {
            self.allowed_hosts.clone()
        }
    }

    /// The origins that rmcp lets through; none: only requests without one. A page of this machine cannot have been
    /// brought here by DNS rebinding, which needs a `Host` of the attacker's.
    pub(crate) fn origins(&self) -> Vec<String> {
        let hosts = self.hosts();
        let local = !hosts.is_empty() && hosts.iter().all(|host| LOOPBACK.contains(&without_port(host)));
        if !self.allowed_origins.is_empty() || !local {
            return self.allowed_origins.clone();
        }
        let origins = |scheme| ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{scheme}://{host}:*"));
        ["http", "https"].into_iter().flat_map(origins).collect()
    }
}

/// A host of the settings without its port: `localhost` of `localhost:8090`, `::1` of `[::1]:8090`.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

impl chassis::Settings for Settings {
    fn common() -> Common {
        let mut common = Common::listening(8090, None);
        // A tool may take five minutes, and a call that waits for it answers only then.
        common.http.request_timeout = Duration::from_secs(330);
        common
    }

    fn validate(&self, common: &Common) -> Result<(), Invalid> {
        common.grpc.check_peer("rest_api.url", &self.rest_api.url)?;
        self.redis
            .validate()
            .map_err(|_| Invalid::new("redis.url", coordination::Settings::URL_SHAPE))?;
        self.rate_limit
            .validate()
            .map_err(|(key, expected)| Invalid::new(key, expected))?;
        for origin in &self.allowed_origins {
            if !origin.contains("://") && origin != "null" {
                return Err(Invalid::new(
                    "allowed_origins",
                    "origins such as https://app.example.com:443",
                ));
            }
        }
        if self.sessions.max == 0 || self.sessions.max_per_tenant == 0 {
            return Err(Invalid::new("sessions", "limits of 1 or more"));
        }
        if self.subscriptions.max_per_session == 0 || self.subscriptions.max_per_tenant == 0 {
            return Err(Invalid::new("subscriptions", "limits of 1 or more"));
        }
        if self.sessions.idle.is_zero() || self.sessions.resumable.is_zero() {
            return Err(Invalid::new("sessions", "durations above zero"));
        }
        if !(1..=1_000_000).contains(&self.audit.buffer) {
            return Err(Invalid::new("audit.buffer", "1 to 1000000"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.audit.rejected_every) {
            return Err(Invalid::new("audit.rejected_every", "1s to 1h"));
        }
        // No tool takes longer than five minutes.
        if self.tasks.after > Duration::from_secs(300) {
            return Err(Invalid::new("tasks.after", "at most 5m"));
        }
        if self.tasks.poll.is_zero() || self.tasks.kept.is_zero() {
            return Err(Invalid::new("tasks", "durations above zero"));
        }
        // One answer comes from one gRPC message, beside metadata.
        if !(1024..=3 << 20).contains(&self.results.max_bytes) {
            return Err(Invalid::new("results.max_bytes", "1 KiB to 3 MiB"));
        }
        if !(1024..=self.results.max_bytes).contains(&self.results.default_bytes) {
            return Err(Invalid::new(
                "results.default_bytes",
                "1 KiB to results.max_bytes",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_machine_are_served_where_only_its_own_names_are() {
        let origins = |hosts: &[&str], origins: &[&str]| {
            let owned = |list: &[&str]| list.iter().copied().map(str::to_owned).collect();
            let settings = Settings {
                allowed_hosts: owned(hosts),
                allowed_origins: owned(origins),
                ..Settings::default()
            };
            settings.origins()
        };
        assert!(
            Settings::default()
                .origins()
                .contains(&"http://localhost:*".to_owned())
        );
        assert_eq!(
            origins(&["localhost:8090", "[::1]:8090", "127.0.0.1"], &[]).len(),
            6
        );
        for public in [
            &["localhost", "mcp.example.com"][..],
            &["*"],
            &[],
            &["localhost.example.com"],
        ] {
            assert!(origins(public, &[]).is_empty(), "{public:?}");
        }
        let chosen = "https://app.example.com:443";
        assert_eq!(origins(&["localhost"], &[chosen]), [chosen]);
    }
}
