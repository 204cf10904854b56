//! rest-api's own sections of `config.yaml`.

use crate::store::settings::DatabaseSettings;
use chassis::settings::{Common, Invalid};
use coordination::RateLimit;
use domain::audit::Arguments;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

/// What `queue.lease` may be.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(600);
/// What `queue.approval_time` may be.
const APPROVAL_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// rest-api's settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where everything is kept.
    pub database: DatabaseSettings,
    /// What replicas share.
    pub redis: coordination::Settings,
    /// What tools' credentials are encrypted with.
    pub credentials: Credentials,
    /// Where tools run.
    pub worker: Worker,
    /// What a caller may send.
    pub limits: Limits,
    /// How executions are queued.
    pub queue: Queue,
    /// How often a key may call.
    pub rate_limit: RateLimit,
    /// How long things are kept.
    pub retention: Retention,
    /// What the audit log tells.
    pub audit: Audit,
    /// Other MCP servers.
    pub upstreams: Upstreams,
}

/// Other MCP servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstreams {
    /// How many one tenant may register.
    pub per_tenant: u32,
    /// How often each is asked for its tools.
    #[serde(with = "chassis::settings::duration")]
    pub refresh_every: Duration,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self {
            per_tenant: 50,
            refresh_every: Duration::from_secs(300),
        }
    }
}

/// What the audit log tells of requests over REST.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Calls' arguments: `none` keeps their hash alone, `redacted` them as well, with what looks secret taken out.
    pub arguments: Arguments,
    /// How many records wait while the database is away; what is more is lost, and counted.
    pub buffer: usize,
    /// For how long rejected authentications are counted together.
    #[serde(with = "chassis::settings::duration")]
    pub rejected_every: Duration,
}

/// The keys that tools' credentials are encrypted with: `name:base64` of 32 bytes each, one a line or separated by
/// commas. The first encrypts, all decrypt; `rest-api rekey` moves everything to the first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// The keys themselves.
    #[serde(serialize_with = "chassis::settings::mask")]
    pub keys: Option<SecretString>,
    /// A file that holds them.
    pub keys_file: Option<PathBuf>,
}

/// Where tools run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// The workers' gRPC address; a name with several addresses is balanced.
    pub url: String,
    /// For how long a tool of the product stays that workers tell of no longer: while they are being replaced, those with
    /// it and those without take turns in answering.
    #[serde(with = "chassis::settings::duration")]
    pub tools_kept: Duration,
}

/// What a caller may send.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// One item's content.
    #[serde(with = "chassis::settings::size")]
    pub item_bytes: usize,
    /// One context's content.
    #[serde(with = "chassis::settings::size")]
    pub context_bytes: u64,
    /// A tool's arguments.
    #[serde(with = "chassis::settings::size")]
    pub arguments_bytes: usize,
    /// One page of items.
    #[serde(with = "chassis::settings::size")]
    pub page_bytes: usize,
    /// A request to import an OpenAPI document, and a document that is fetched.
    #[serde(with = "chassis::settings::size")]
    pub import_bytes: usize,
    /// How many keys of one tenant may be active at once.
    pub keys_per_tenant: u32,
    /// How many schedules one tenant may have.
    pub schedules_per_tenant: u32,
}

/// How executions are queued.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// How many executions of one tenant run at once, in all workers together.
    pub running_per_tenant: u32,
    /// How many executions of one tenant may wait.
    pub queued_per_tenant: u32,
    /// How long a worker keeps a run without a sign of life.
    #[serde(with = "chassis::settings::duration")]
    pub lease: Duration,
    /// How long a destructive tool's run waits for approval.
    #[serde(with = "chassis::settings::duration")]
    pub approval_time: Duration,
}

/// How long things are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Executions after their end.
    #[serde(with = "chassis::settings::duration")]
    pub executions: Duration,
    /// What an `Idempotency-Key` made.
    #[serde(with = "chassis::settings::duration")]
    pub idempotency: Duration,
    /// Incidents after their end; their contexts stay.
    #[serde(with = "chassis::settings::duration")]
    pub incidents: Duration,
    /// Records of the audit log.
    #[serde(with = "chassis::settings::duration")]
    pub audit: Duration,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:50053".to_owned(),
            tools_kept: Duration::from_secs(60),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            item_bytes: 1 << 20,
            context_bytes: 64 << 20,
            arguments_bytes: 256 << 10,
            page_bytes: 2 << 20,
            import_bytes: 16 << 20,
            keys_per_tenant: 1000,
            schedules_per_tenant: 1000,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            running_per_tenant: 32,
            queued_per_tenant: 10_000,
            lease: Duration::from_secs(15),
            approval_time: Duration::from_secs(24 * 3600),
        }
    }
}

impl Queue {
    fn validate(&self) -> Result<(), Invalid> {
        if self.running_per_tenant == 0 {
            return Err(Invalid::new("queue.running_per_tenant", "at least 1"));
        }
        if self.queued_per_tenant == 0 {
            return Err(Invalid::new("queue.queued_per_tenant", "at least 1"));
        }
        // A worker renews three times within it; below some seconds a busy machine would lose leases.
        if !LEASE.contains(&self.lease) {
            return Err(Invalid::new("queue.lease", "2s to 10m"));
        }
        if !APPROVAL_TIME.contains(&self.approval_time) {
            return Err(Invalid::new("queue.approval_time", "1s to 30d"));
        }
        Ok(())
    }
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            executions: 30 * day,
            idempotency: day,
            incidents: 365 * day,
            audit: 90 * day,
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

impl Audit {
    fn validate(&self) -> Result<(), Invalid> {
        if !(1..=1_000_000).contains(&self.buffer) {
            return Err(Invalid::new("audit.buffer", "1 to 1000000"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.rejected_every) {
            return Err(Invalid::new("audit.rejected_every", "1s to 1h"));
        }
        Ok(())
    }
}

impl chassis::Settings for Settings {
    fn common() -> Common {
        let mut common = Common::listening(8080, Some(50051));
        // A tool may take five minutes, and a call that waits for it answers only then.
        common.http.request_timeout = Duration::from_secs(330);
        common
    }

    fn validate(&self, common: &Common) -> Result<(), Invalid> {
        common.grpc.check_peer("worker.url", &self.worker.url)?;
        self.redis
            .validate()
            .map_err(|_| Invalid::new("redis.url", coordination::Settings::URL_SHAPE))?;
        self.database.validate()?;
        let limits = &self.limits;
        if limits.item_bytes == 0 || limits.item_bytes > common.http.max_body_bytes {
            let expected = "at least 1 byte and no more than http.max_body_bytes";
            return Err(Invalid::new("limits.item_bytes", expected));
        }
        // A page travels in one gRPC message, beside metadata.
        if !(limits.item_bytes..=3 << 20).contains(&limits.page_bytes) {
            let expected = "at least limits.item_bytes and at most 3MiB";
            return Err(Invalid::new("limits.page_bytes", expected));
        }
        if !(1..=openapi::MAX_BYTES).contains(&limits.import_bytes) {
            return Err(Invalid::new("limits.import_bytes", "1 byte to 64MiB"));
        }
        self.queue.validate()?;
        if self.upstreams.refresh_every < Duration::from_secs(1) {
            return Err(Invalid::new("upstreams.refresh_every", "at least 1s"));
        }
        self.audit.validate()?;
        self.rate_limit
            .validate()
            .map_err(|(key, expected)| Invalid::new(key, expected))?;
        if self.credentials.keys.is_some() && self.credentials.keys_file.is_some() {
            return Err(Invalid::new("credentials", "'keys' or 'keys_file', not both"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::settings::MAX_STATEMENT_TIMEOUT;
    use chassis::Settings as _;

    /// Whoever shows the error puts "expected" before it.
    #[test]
    fn what_was_expected_is_said_without_the_word() {
        let wrong: [fn(&mut Settings); 11] = [
            |s| s.redis.url = Some("http://x".into()),
            |s| s.database.statement_timeout = 2 * MAX_STATEMENT_TIMEOUT,
            |s| s.database.password = Some("x".into()),
            |s| {
                s.database.url = "postgres://app:y@db/app".into();
                s.database.password = Some("x".into());
            },
            |s| s.limits.item_bytes = 0,
            |s| s.limits.page_bytes = 1,
            |s| s.rate_limit.per_second = -1.0,
            |s| s.queue.running_per_tenant = 0,
            |s| s.queue.queued_per_tenant = 0,
            |s| s.queue.lease = Duration::ZERO,
            |s| s.queue.approval_time = Duration::ZERO,
        ];
        for spoil in wrong {
            let mut settings = Settings::default();
            spoil(&mut settings);
            let error = settings
                .validate(&Settings::common())
                .expect_err("wrong")
                .to_string();
            assert_eq!(error.matches("expected").count(), 1, "{error}");
        }
    }
}
