//! Small values with a time to live, best effort: a value may be gone at any time.

use crate::{Away, redis_link::Link};
use async_trait::async_trait;
use bytes::Bytes;
use moka::{Expiry, sync::Cache as Moka};
use std::time::{Duration, Instant};

/// The largest value that is kept, in bytes.
pub const MAX_VALUE_BYTES: usize = 256 * 1024;
/// What is kept in process at most, keys and values, in bytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// A cache that replicas share when they can.
#[async_trait]
pub trait Cache: Send + Sync {
    /// The value last put for `key`, if it is still there.
    ///
    /// # Errors
    /// [`Away`] when this process does not have it and the others could not be asked.
    async fn find(&self, key: &str) -> Result<Option<Bytes>, Away>;

    /// The same for who can do without: a value that could not be asked for is none.
    async fn get(&self, key: &str) -> Option<Bytes> {
        self.find(key).await.ok().flatten()
    }

    /// Keeps `value` for `ttl`. False when it was not kept where every replica sees it, or is larger than
    /// [`MAX_VALUE_BYTES`].
    async fn put(&self, key: &str, value: &[u8], ttl: Duration) -> bool;

    /// Forgets `key`.
    async fn remove(&self, key: &str);
}

#[derive(Clone)]
struct Kept {
    value: Bytes,
    ttl: Duration,
}

struct ByTtl;

impl Expiry<String, Kept> for ByTtl {
    fn expire_after_create(&self, _: &String, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        kept: &Kept,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.ttl)
    }
}

/// A cache within this process.
pub struct InProcess(Moka<String, Kept>);

impl Default for InProcess {
    fn default() -> Self {
        let size =
            |key: &String, kept: &Kept| u32::try_from(key.len() + kept.value.len()).unwrap_or(u32::MAX);
        Self(
            Moka::builder()
                .max_capacity(MAX_BYTES)
                .weigher(size)
                .expire_after(ByTtl)
                .build(),
        )
    }
}

#[async_trait]
impl Cache for InProcess {
    async fn find(&self, key: &str) -> Result<Option<Bytes>, Away> {
        Ok(self.0.get(key).map(|kept| kept.value))
    }

    async fn put(&self, key: &str, value: &[u8], ttl: Duration) -> bool {
        if value.len() > MAX_VALUE_BYTES {
            return false;
        }
        self.0.insert(
            key.to_owned(),
            Kept {
                value: Bytes::copy_from_slice(value),
                ttl,
            },
        );
        true
    }

    async fn remove(&self, key: &str) {
        self.0.invalidate(key);
    }
}

/// A cache in Redis. What is put is kept in process too, and is read from there while Redis is away.
pub(crate) struct Shared {
    link: Link,
    local: InProcess,
}

impl Shared {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
            local: InProcess::default(),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}cache:{key}", self.link.settings().prefix)
    }
}

#[async_trait]
impl Cache for Shared {
    async fn find(&self, key: &str) -> Result<Option<Bytes>, Away> {
        let mut command = deadpool_redis::redis::cmd("GET");
        command.arg(self.key(key));
        match self.link.run::<Option<Vec<u8>>>("GET", &command).await {
            Ok(value) => Ok(value.map(Bytes::from)),
            Err(away) => self.local.get(key).await.map(Some).ok_or(away),
        }
    }

    async fn put(&self, key: &str, value: &[u8], ttl: Duration) -> bool {
        if !self.local.put(key, value, ttl).await {
            return false;
        }
        let mut command = deadpool_redis::redis::cmd("SET");
        command
            .arg(self.key(key))
            .arg(value)
            .arg("PX")
            .arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        self.link.run::<()>("SET", &command).await.is_ok()
    }

    async fn remove(&self, key: &str) {
        self.local.remove(key).await;
        let mut command = deadpool_redis::redis::cmd("DEL");
        command.arg(self.key(key));
        // Gone or away: either way nothing is left to do.
        let _ = self.link.run::<()>("DEL", &command).await;
    }
}
