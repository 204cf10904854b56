//! Rate limits by the generic cell rate algorithm (GCRA): a bucket that refills evenly, kept as one number a
//! key, the *theoretical arrival time* at which the bucket would be full again.

use crate::{metrics, redis_link::Link};
use async_trait::async_trait;
use moka::{Expiry, ops::compute::Op, policy::EvictionPolicy, sync::Cache};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many keys are limited in process at once; beyond it the least recently used is forgotten.
const MAX_KEYS: u64 = 100_000;
/// The longest that a bucket takes to fill (30 days, in microseconds); it keeps the arithmetic exact in Lua.
const MAX_SPAN: i64 = 30 * 24 * 3600 * 1_000_000;

/// A rate and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Requests per second over time; at least one in 30 days.
    pub per_second: f64,
    /// Requests that may come at once; at least 1.
    pub burst: u32,
}

impl Quota {
    /// Microseconds between requests at the steady rate, and microseconds in which the whole bucket refills.
    fn intervals(self) -> (i64, i64) {
        let interval = 1e6 / self.per_second;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and the clamp follows"
        )]
        let interval = if interval.is_nan() {
            MAX_SPAN
        } else {
            interval.round() as i64
        }
        .clamp(1, MAX_SPAN);
        let span = interval
            .saturating_mul(i64::from(self.burst.max(1)))
            .min(MAX_SPAN);
        (interval, span)
    }
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed {
        /// How many more may follow at once.
        remaining: u32,
    },
    /// It may not.
    Limited {
        /// How long until one may.
        retry_after: Duration,
    },
}

/// Counts requests against quotas.
#[async_trait]
pub trait RateLimiter: Send + Sync {
    /// Takes one request of `key`'s quota. A key is `scope:identity`; its scope labels the metric, so it
    /// comes from the code and never from a client. Never fails, and never waits longer than
    /// [`Settings::timeout`](crate::Settings::timeout).
    async fn check(&self, key: &str, quota: Quota) -> Decision;
}

/// The algorithm: from the stored theoretical arrival time (microseconds) to the decision, and to the new
/// time when the request is allowed. [`SCRIPT`] is the same in Lua.
fn gcra(stored: Option<i64>, now: i64, (interval, span): (i64, i64)) -> (Decision, Option<i64>) {
    let next = stored.unwrap_or(now).max(now) + interval;
    let spare = now - (next - span);
    (decide(spare, interval), (spare >= 0).then_some(next))
}

fn decide(spare: i64, interval: i64) -> Decision {
    if spare < 0 {
        return Decision::Limited {
            retry_after: Duration::from_micros(spare.unsigned_abs()),
        };
    }
    Decision::Allowed {
        remaining: u32::try_from(spare / interval).unwrap_or(u32::MAX),
    }
}

/// Redis's clock is the one clock of all replicas. Answers the spare time as text: Lua's numbers would be
/// cut to integers of another width.
const SCRIPT: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local interval, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local next = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + interval
local spare = now - (next - span)
if spare >= 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000))
end
return string.format('%.0f', spare)
";

fn count(key: &str, decision: Decision) {
    let scope = key.split_once(':').map_or("other", |(scope, _)| scope);
    let word = if matches!(decision, Decision::Allowed { .. }) {
        "allowed"
    } else {
        "limited"
    };
    metrics::DECISIONS.inc([scope, word]);
}

/// Limits within this process.
pub struct InProcess {
    arrivals: Cache<String, i64>,
}

impl Default for InProcess {
    fn default() -> Self {
        // LRU, not moka's usual TinyLFU: that one may refuse a new key, which would then go unlimited.
        let arrivals = Cache::builder()
            .max_capacity(MAX_KEYS)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(WhenFull)
            .build();
        Self { arrivals }
    }
}

/// A full bucket is the same as none.
struct WhenFull;

impl WhenFull {
    #[expect(clippy::unnecessary_wraps, reason = "the trait wants an Option")]
    fn left(arrival: i64) -> Option<Duration> {
        Some(Duration::from_micros(u64::try_from(arrival - now()).unwrap_or(0)))
    }
}

impl Expiry<String, i64> for WhenFull {
    fn expire_after_create(&self, _: &String, arrival: &i64, _: Instant) -> Option<Duration> {
        Self::left(*arrival)
    }

    fn expire_after_update(
        &self,
        _: &String,
        arrival: &i64,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Self::left(*arrival)
    }
}

/// Microseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl InProcess {
    fn take(&self, key: &str, quota: Quota) -> Decision {
        let mut decision = Decision::Allowed { remaining: 0 };
        self.arrivals.entry_by_ref(key).and_compute_with(|entry| {
            let (made, next) = gcra(entry.map(|e| *e.value()), now(), quota.intervals());
            decision = made;
            next.map_or(Op::Nop, Op::Put)
        });
        decision
    }
}

#[async_trait]
impl RateLimiter for InProcess {
    async fn check(&self, key: &str, quota: Quota) -> Decision {
        let decision = self.take(key, quota);
        count(key, decision);
        decision
    }
}

/// Limits in Redis, or in process while it is away.
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

    async fn ask(&self, key: &str, quota: Quota) -> Option<Decision> {
        let (interval, span) = quota.intervals();
        let mut command = deadpool_redis::redis::cmd("EVAL");
        let key = format!("{}limit:{key}", self.link.settings().prefix);
        command.arg(SCRIPT).arg(1).arg(key).arg(interval).arg(span);
        let spare: i64 = self.link.run("EVAL", &command).await.ok()?;
        Some(decide(spare, interval))
    }
}

#[async_trait]
impl RateLimiter for Shared {
    async fn check(&self, key: &str, quota: Quota) -> Decision {
        let decision = match self.ask(key, quota).await {
            Some(decision) => decision,
            None => self.local.take(key, quota),
        };
        count(key, decision);
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills_evenly() {
        let intervals = Quota {
            per_second: 10.0,
            burst: 3,
        }
        .intervals();
        assert_eq!(intervals, (100_000, 300_000));
        let (mut stored, mut seen) = (None, Vec::new());
        for now in [0, 0, 0, 0, 99_999, 100_000, 100_000, 10_000_000] {
            let (decision, next) = gcra(stored, now, intervals);
            stored = next.or(stored);
            seen.push(decision);
        }
        let allowed = |remaining| Decision::Allowed { remaining };
        let limited = |micros| Decision::Limited {
            retry_after: Duration::from_micros(micros),
        };
        let expected = [
            allowed(2),
            allowed(1),
            allowed(0),
            limited(100_000),
            limited(1),
            allowed(0),
            limited(100_000),
            allowed(2),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn senseless_quotas_stay_within_bounds() {
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-30] {
            let (interval, span) = Quota {
                per_second,
                burst: u32::MAX,
            }
            .intervals();
            assert!(
                (1..=MAX_SPAN).contains(&interval) && (1..=MAX_SPAN).contains(&span),
                "{per_second}"
            );
        }
        assert_eq!(
            Quota {
                per_second: 1.0,
                burst: 0
            }
            .intervals(),
            (1_000_000, 1_000_000)
        );
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = InProcess::default();
        for i in 0..MAX_KEYS + 10_000 {
            limiter.take(
                &format!("key:{i}"),
                Quota {
                    per_second: 0.001,
                    burst: 1,
                },
            );
        }
        limiter.arrivals.run_pending_tasks();
        assert!(limiter.arrivals.entry_count() <= MAX_KEYS);
    }
}
