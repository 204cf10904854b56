//! The worker's own sections of the configuration.

use crate::sources;
use chassis::Common;
use chassis::settings::Invalid;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::{net::IpAddr, time::Duration};

/// The most that `outbound.max_response_bytes` may be: with JSON's escapes and the copies on the way, an answer must
/// stay below gRPC's 4 MiB.
const MAX_RESPONSE_BYTES: usize = 2 << 20;

/// The most that `outbound.max_document_bytes` may be.
const MAX_DOCUMENT_BYTES: usize = 256 << 20;

/// Everything that is the worker's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the scheduled jobs' work is done.
    pub rest_api: RestApi,
    /// Calls to the outside world.
    pub outbound: Outbound,
    /// How many runs go on at once.
    pub concurrency: Concurrency,
    /// What is taken up from rest-api's queue.
    pub queue: Queue,
    /// Scheduled work.
    pub jobs: Jobs,
    /// Where the product's own tools look, by name.
    pub sources: sources::Settings,
}

/// Where rest-api is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestApi {
    /// Its gRPC address.
    pub url: String,
}

impl Default for RestApi {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:50051".to_owned(),
        }
    }
}

/// Calls to the outside world.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbound {
    /// Networks outside of the public Internet that tools may call, e.g. `10.20.0.0/16`. A cloud's metadata address
    /// is opened only by itself, e.g. `169.254.169.254/32`.
    #[serde(deserialize_with = "networks")]
    pub allow_private: Vec<IpNet>,
    /// The largest answer, in bytes.
    #[serde(with = "chassis::settings::size")]
    pub max_response_bytes: usize,
    /// The largest document that is fetched for rest-api (an OpenAPI description to import), in bytes.
    #[serde(with = "chassis::settings::size")]
    pub max_document_bytes: usize,
    /// How many redirects are followed.
    pub max_redirects: u32,
    /// How long a connection may take to be made, TLS included.
    #[serde(with = "chassis::settings::duration")]
    pub connect_timeout: Duration,
    /// How long a call may take, whatever its tool says.
    #[serde(with = "chassis::settings::duration")]
    pub max_timeout: Duration,
    /// How long an idle connection is kept. Calls that must not be repeated always make a new one.
    #[serde(with = "chassis::settings::duration")]
    pub pool_idle_timeout: Duration,
    /// What the worker calls itself.
    pub user_agent: String,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            allow_private: Vec::new(),
            max_response_bytes: 1 << 20,
            max_document_bytes: 32 << 20,
            max_redirects: 5,
            connect_timeout: Duration::from_secs(10),
            max_timeout: Duration::from_millis(domain::tool::MAX_TIMEOUT_MS.into()),
            pool_idle_timeout: Duration::from_secs(15),
            user_agent: concat!("devops-mcp/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Networks, or single addresses.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &String| {
        let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map_err(|_| D::Error::custom(format!("expected networks such as 10.20.0.0/16, found {text}")))
    };
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(network)
        .collect()
}

/// How many runs go on at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Concurrency {
    /// Runs of all tenants.
    pub total: usize,
    /// Runs of one tenant.
    pub per_tenant: usize,
    /// Runs of one tenant that may wait; further ones are turned away at once.
    pub waiting_per_tenant: usize,
    /// How long a run waits before it is turned away.
    #[serde(with = "chassis::settings::duration")]
    pub wait: Duration,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            total: 256,
            per_tenant: 64,
            waiting_per_tenant: 128,
            wait: Duration::from_secs(5),
        }
    }
}

/// What is taken up from rest-api's queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Whether this worker takes up any.
    pub enabled: bool,
    /// How many runs are held at once, those included whose outcome is not stored yet. Several times what rest-api lets
    /// one tenant run (`queue.running_per_tenant`): so many tenants may be slow before others wait.
    pub room: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            enabled: true,
            room: 128,
        }
    }
}

/// Scheduled work. Each interval varies by a tenth, so that replicas drift apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// Whether this worker does any.
    pub enabled: bool,
    /// How often contexts whose time has come are deleted.
    #[serde(with = "chassis::settings::duration")]
    pub expire_contexts: Duration,
    /// How often what is kept no longer is deleted: old executions, idempotency records.
    #[serde(with = "chassis::settings::duration")]
    pub purge_expired: Duration,
    /// How often executions whose worker was lost are queued again or ended, and those whose deadline has passed.
    #[serde(with = "chassis::settings::duration")]
    pub reap_executions: Duration,
    /// How often incidents that are new are looked into; whoever opened one does so at once.
    #[serde(with = "chassis::settings::duration")]
    pub follow_incidents: Duration,
    /// How often it is looked for other MCP servers whose turn it is to be asked for their tools.
    #[serde(with = "chassis::settings::duration")]
    pub refresh_upstreams: Duration,
    /// How often what schedules are due for is enqueued.
    #[serde(with = "chassis::settings::duration")]
    pub run_schedules: Duration,
    /// How many rows one call changes at most; a job calls until less comes back.
    pub batch: u32,
    /// How long one call may take.
    #[serde(with = "chassis::settings::duration")]
    pub timeout: Duration,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            enabled: true,
            expire_contexts: Duration::from_secs(10),
            purge_expired: Duration::from_secs(300),
            reap_executions: Duration::from_secs(2),
            follow_incidents: Duration::from_secs(5),
            refresh_upstreams: Duration::from_secs(10),
            run_schedules: Duration::from_secs(1),
            batch: 500,
            timeout: Duration::from_secs(30),
        }
    }
}

impl chassis::Settings for Settings {
    fn common() -> Common {
        Common::listening(8091, Some(50053))
    }

    fn validate(&self, common: &Common) -> Result<(), Invalid> {
        let expect = |ok: bool, key: &str, expected: &str| {
            if ok {
                Ok(())
            } else {
                Err(Invalid::new(key, expected))
            }
        };
        let (outbound, concurrency, jobs) = (&self.outbound, &self.concurrency, &self.jobs);
        expect(
            common.service_token.is_some(),
            "service_token",
            "the secret that the services share",
        )?;
        common.grpc.check_peer("rest_api.url", &self.rest_api.url)?;
        sources::settings::validate(&self.sources)?;
        let size = (1..=MAX_RESPONSE_BYTES).contains(&outbound.max_response_bytes);
        expect(size, "outbound.max_response_bytes", "1 to 2MiB")?;
        let size = (1..=MAX_DOCUMENT_BYTES).contains(&outbound.max_document_bytes);
        expect(size, "outbound.max_document_bytes", "1 to 256MiB")?;
        expect(outbound.max_redirects <= 20, "outbound.max_redirects", "0 to 20")?;
        let agent = http::HeaderValue::from_str(&outbound.user_agent);
        expect(
            agent.is_ok_and(|agent| !agent.is_empty()),
            "outbound.user_agent",
            "a header's value",
        )?;
        expect(
            (1..=65_536).contains(&concurrency.total),
            "concurrency.total",
            "1 to 65536",
        )?;
        let per_tenant = (1..=concurrency.total).contains(&concurrency.per_tenant);
        expect(per_tenant, "concurrency.per_tenant", "1 to concurrency.total")?;
        expect(
            concurrency.waiting_per_tenant <= 65_536,
            "concurrency.waiting_per_tenant",
            "0 to 65536",
        )?;
        expect((1..=4_096).contains(&self.queue.room), "queue.room", "1 to 4096")?;
        expect((1..=10_000).contains(&jobs.batch), "jobs.batch", "1 to 10000")?;
        for (key, duration) in [
            ("outbound.connect_timeout", outbound.connect_timeout),
            ("outbound.max_timeout", outbound.max_timeout),
            ("jobs.expire_contexts", jobs.expire_contexts),
            ("jobs.purge_expired", jobs.purge_expired),
            ("jobs.reap_executions", jobs.reap_executions),
            ("jobs.follow_incidents", jobs.follow_incidents),
            ("jobs.refresh_upstreams", jobs.refresh_upstreams),
            ("jobs.run_schedules", jobs.run_schedules),
            ("jobs.timeout", jobs.timeout),
        ] {
            expect(!duration.is_zero(), key, "a duration above zero")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        let read =
            |text: &str| serde_json::from_value::<Outbound>(serde_json::json!({ "allow_private": [text] }));
        assert_eq!(
            read("10.0.0.7").unwrap().allow_private,
            ["10.0.0.7/32".parse().unwrap()]
        );
        assert_eq!(
            read("fd00::/8").unwrap().allow_private,
            ["fd00::/8".parse().unwrap()]
        );
        assert!(
            read("10.0.0")
                .unwrap_err()
                .to_string()
                .starts_with("expected networks such as 10.20.0.0/16")
        );
    }
}
