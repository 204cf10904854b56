//! What replicas share is exported by exactly one of them: the holder of a lease in the database. The holder stops
//! by itself when it could not renew in time, so that no sum ever counts twice.

use crate::{clock::now, metrics, store::SharedStore};
use arc_swap::ArcSwap;
use chassis::Host;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const LEASE: &str = "shared-gauges";
const TTL: Duration = Duration::from_secs(15);
const EVERY: Duration = Duration::from_secs(5);

/// What one replica exports for all, and until when it may.
struct Shared {
    until: Option<Instant>,
    contexts: Vec<(String, i64)>,
    keys: Vec<(String, i64)>,
}

impl Shared {
    const NOTHING: Self = Self {
        until: None,
        contexts: Vec::new(),
        keys: Vec::new(),
    };

    fn valid(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    fn family(&self, counts: &[(String, i64)]) -> Vec<([String; 1], f64)> {
        if !self.valid() {
            return Vec::new();
        }
        counts
            .iter()
            .map(|(tenant, n)| ([tenant.clone()], *n as f64))
            .collect()
    }
}

/// Takes the lease whenever it is free, counts while holding it, and gives it back when the service stops.
pub(crate) fn export_shared_gauges(store: SharedStore, replica: String, host: &Host) {
    let shared = Arc::new(ArcSwap::from_pointee(Shared::NOTHING));
    let (contexts, keys, leader) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
    host.telemetry
        .on_scrape_gauge(&metrics::CONTEXTS_ACTIVE, move || {
            contexts.load().family(&contexts.load().contexts)
        });
    host.telemetry
        .on_scrape_gauge(&metrics::API_KEYS_ACTIVE, move || {
            keys.load().family(&keys.load().keys)
        });
    host.telemetry
        .on_scrape(move || metrics::LEADER.set(f64::from(u8::from(leader.load().valid())), []));
    host.tasks.spawn_graceful("shared-gauges", async move |stop| {
        loop {
            match count(&store, &replica).await {
                Ok(counted) => shared.store(Arc::new(counted)),
                // What was counted before stands until the lease that it was counted under ends.
                Err(error) => tracing::debug!(%error, "shared gauges were not counted"),
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(EVERY))
                .await
                .is_none()
            {
                break;
            }
        }
        shared.store(Arc::new(Shared::NOTHING));
        // Best effort: a lease that is not given back ends by itself.
        let _ = store.release_lease(LEASE, &replica).await;
    });
}

async fn count(store: &SharedStore, replica: &str) -> crate::store::Result<Shared> {
    let asked = Instant::now();
    if !store.hold_lease(LEASE, replica, TTL).await? {
        return Ok(Shared::NOTHING);
    }
    let contexts = store.count_active_contexts(now()).await?;
    let keys = store.count_active_keys(now()).await?;
    Ok(Shared {
        until: Some(asked + TTL),
        contexts,
        keys,
    })
}
