//! The `redis:` section of the configuration.

use crate::Quota;
use deadpool_redis::redis::{Client, RedisError};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::time::Duration;
use url::Url;

/// How to reach Redis, and how long to wait for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS. None: everything in process.
    #[serde(serialize_with = "without_password")]
    pub url: Option<SecretString>,
    /// What every key and channel begins with, so that installations can share a Redis.
    pub prefix: String,
    /// How long a request waits for one command, such as `50ms`.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub timeout: Duration,
    /// How long the background task waits for a connection.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub connect_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            prefix: "devops-mcp:".to_owned(),
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(500),
        }
    }
}

/// The `rate_limit:` section of a service with a door: how often a key may call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second in the long run; 0: no limit.
    pub per_second: f64,
    /// Requests at once.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_second: 500.0,
            burst: 1000,
        }
    }
}

impl RateLimit {
    /// The quota of one key, when there is one.
    pub fn quota(&self) -> Option<Quota> {
        (self.per_second > 0.0).then_some(Quota {
            per_second: self.per_second,
            burst: self.burst,
        })
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// The wrong setting's whole name, and what it should have been.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if !self.per_second.is_finite() || self.per_second < 0.0 {
            return Err(("rate_limit.per_second", "0 (no limit) or more"));
        }
        if self.per_second > 0.0 && self.burst == 0 {
            return Err(("rate_limit.burst", "1 or more"));
        }
        Ok(())
    }
}

/// The URL is not one of Redis. The reason never holds the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Redis URL (expected redis://[user:password@]host[:port][/database]): {0}")]
pub struct InvalidUrl(String);

impl InvalidUrl {
    pub(crate) fn new(reason: &RedisError) -> Self {
        Self(reason.to_string())
    }
}

impl Settings {
    /// What a URL looks like, for error messages.
    pub const URL_SHAPE: &str = "redis://[user:password@]host[:port][/database], or rediss:// for TLS";

    /// Settings for the Redis at `url`, the rest as by default.
    pub fn at(url: &str) -> Self {
        Self {
            url: Some(url.into()),
            ..Self::default()
        }
    }

    /// Checks the URL without connecting.
    ///
    /// # Errors
    /// [`InvalidUrl`] when it is not one of Redis.
    pub fn validate(&self) -> Result<(), InvalidUrl> {
        self.client().map(drop)
    }

    pub(crate) fn client(&self) -> Result<Option<Client>, InvalidUrl> {
        let Some(url) = self
            .url
            .as_ref()
            .map(ExposeSecret::expose_secret)
            .filter(|url| !url.is_empty())
        else {
            return Ok(None);
        };
        Client::open(url).map(Some).map_err(|e| InvalidUrl::new(&e))
    }
}

fn without_password<S: Serializer>(url: &Option<SecretString>, out: S) -> Result<S::Ok, S::Error> {
    let Some(url) = url else {
        return out.serialize_none();
    };
    let Ok(mut url) = Url::parse(url.expose_secret()) else {
        return out.serialize_str("***");
    };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return out.serialize_str("***");
    }
    out.serialize_str(url.as_str())
}

fn write_duration<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&humantime::format_duration(*duration))
}

fn read_duration<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    let duration = humantime::parse_duration(&text)
        .map_err(|e| de::Error::custom(format!("expected a duration such as \"50ms\": {e}")))?;
    if duration.is_zero() {
        Err(de::Error::custom("expected a duration above zero"))
    } else {
        Ok(duration)
    }
}
