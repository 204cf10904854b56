//! What replicas share: rate limits, a cache and notices. With Redis they share it across machines; without
//! one, and while Redis is away, the same traits are kept in process.
//!
//! Nothing here may hold a request up: a command gets [`Settings::timeout`], the first one that fails opens
//! a circuit, and a task in the background closes it again when Redis answers. Nothing durable lives here.

pub mod cache;
pub mod inspect;
pub mod limit;
pub mod metrics;
pub mod notices;
mod redis_link;
mod settings;

pub use cache::{Cache, MAX_VALUE_BYTES};
pub use inspect::Inspector;
pub use limit::{Decision, Quota, RateLimiter};
pub use notices::Notices;
pub use redis_link::Away;
pub use settings::{InvalidUrl, RateLimit, Settings};

use redis_link::Link;
use std::sync::Arc;
use tokio::sync::watch;

/// The three shared things. Clones share them; the connection to Redis closes with the last clone.
#[derive(Clone)]
pub struct Coordination {
    /// Rate limits.
    pub limiter: Arc<dyn RateLimiter>,
    /// Small values with a time to live.
    pub cache: Arc<dyn Cache>,
    /// Hints from replica to replica.
    pub notices: Arc<dyn Notices>,
    /// Whether Redis is there, as it changes; `None` where there is none to be there.
    pub redis: Option<watch::Receiver<bool>>,
    /// Asks Redis how it is; `None` where there is none to ask.
    pub inspector: Option<Inspector>,
}

impl Coordination {
    /// Everything within this process.
    pub fn in_process() -> Self {
        Self {
            limiter: Arc::new(limit::InProcess::default()),
            cache: Arc::new(cache::InProcess::default()),
            notices: Arc::new(notices::InProcess::default()),
            redis: None,
            inspector: None,
        }
    }
}

/// Sets up what `settings` ask for: Redis when there is a URL, otherwise everything in process. Redis need
/// not be there: until it answers, and whenever it doesn't, the in-process implementations stand in.
///
/// # Errors
/// [`InvalidUrl`] when the URL is not one of Redis.
///
/// # Panics
/// When called outside a Tokio runtime.
pub fn connect(settings: &Settings) -> Result<Coordination, InvalidUrl> {
    let Some(client) = settings.client()? else {
        return Ok(Coordination::in_process());
    };
    let link = Link::new(&client, settings.clone()).map_err(|e| InvalidUrl::new(&e))?;
    Ok(Coordination {
        redis: Some(link.up()),
        inspector: Some(Inspector::new(client.clone(), link.clone())),
        limiter: Arc::new(limit::Shared::new(link.clone())),
        cache: Arc::new(cache::Shared::new(link.clone())),
        notices: Arc::new(notices::Shared::new(client, link)),
    })
}
