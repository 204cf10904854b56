//! What replicas share is exported by exactly one of them: the holder of a lease in the database. The holder stops
//! by itself when it could not renew in time, so that no sum ever counts twice.

use crate::{
    clock::now,
    metrics,
    store::{QueueState, SharedStore},
};
use arc_swap::ArcSwap;
use chassis::Host;
use domain::{Time, execution::ExecutionStatus};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const LEASE: &str = "shared-gauges";
const TTL: Duration = Duration::from_secs(15);
/// Held beside the lease by who exports, and for longer: Prometheus goes on showing what a replica last told until it asks
/// that one again, and a sum would count twice what the next one tells meanwhile.
const EXPORTS: &str = "shared-gauges-exports";
/// More than the 15 s between scrapes.
const SHOWN: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_secs(5);
/// How often the others ask whether it is free: nobody tells the gauges until one of them takes it.
const TAKEOVER: Duration = Duration::from_secs(2);

/// What one replica exports for all, and until when it may.
struct Shared {
    until: Option<Instant>,
    /// Nothing of another replica's is shown any more.
    exports: bool,
    contexts: Vec<(String, i64)>,
    keys: Vec<(String, i64)>,
    incidents: Vec<(String, i64)>,
    queue: QueueState,
}

impl Shared {
    const NOTHING: Self = Self {
        until: None,
        exports: false,
        contexts: Vec::new(),
        keys: Vec::new(),
        incidents: Vec::new(),
        queue: QueueState {
            by_status: Vec::new(),
            oldest_queued: None,
        },
    };

    fn valid(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    fn exports(&self) -> bool {
        self.exports && self.valid()
    }

    fn family(&self, counts: &[(String, i64)]) -> Vec<([String; 1], f64)> {
        if !self.exports() {
            return Vec::new();
        }
        counts
            .iter()
            .map(|(tenant, n)| ([tenant.clone()], *n as f64))
            .collect()
    }

    fn executions(&self) -> Vec<([String; 2], f64)> {
        if !self.exports() {
            return Vec::new();
        }
        let series = |(tenant, status, n): &(String, ExecutionStatus, i64)| {
            ([tenant.clone(), status.as_str().to_owned()], *n as f64)
        };
        self.queue.by_status.iter().map(series).collect()
    }

    fn queue_age(&self) -> Vec<([String; 0], f64)> {
        if !self.exports() {
            return Vec::new();
        }
        let age = |since: Time| (now() - since).as_seconds_f64().max(0.0);
        vec![([], self.queue.oldest_queued.map_or(0.0, age))]
    }
}

/// Whether this replica does what one does for all. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leadership(Arc<ArcSwap<Shared>>);

impl Leadership {
    /// Whether it does now.
    pub(crate) fn holds(&self) -> bool {
        self.0.load().valid()
    }

    /// Whether it tells what one tells for all: after a change of the leader not at once.
    pub(crate) fn exports(&self) -> bool {
        self.0.load().exports()
    }
}

/// Takes the lease whenever it is free, counts while holding it, and gives it back when the service is told to stop: it
/// may have calls to end for minutes then, and is soon asked for its metrics no more.
pub(crate) fn export_shared_gauges(store: SharedStore, replica: String, host: &Host) -> Leadership {
    let shared = Arc::new(ArcSwap::from_pointee(Shared::NOTHING));
    let (contexts, keys, leader) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
    let (executions, age) = (Arc::clone(&shared), Arc::clone(&shared));
    let incidents = Arc::clone(&shared);
    let leadership = Leadership(Arc::clone(&shared));
    host.telemetry
        .on_scrape_gauge(&metrics::CONTEXTS_ACTIVE, move || {
            contexts.load().family(&contexts.load().contexts)
        });
    host.telemetry
        .on_scrape_gauge(&metrics::API_KEYS_ACTIVE, move || {
            keys.load().family(&keys.load().keys)
        });
    host.telemetry.on_scrape_gauge(&metrics::INCIDENTS_OPEN, move || {
        incidents.load().family(&incidents.load().incidents)
    });
    host.telemetry
        .on_scrape_gauge(&metrics::EXECUTIONS, move || executions.load().executions());
    host.telemetry
        .on_scrape_gauge(&metrics::EXECUTION_QUEUE_AGE, move || age.load().queue_age());
    host.telemetry
        .on_scrape(move || metrics::LEADER.set(f64::from(u8::from(leader.load().valid())), []));
    let draining = host.draining.clone();
    host.tasks
        .spawn_graceful_every("shared-gauges", EVERY, async move |_stop| {
            while !draining.is_cancelled() {
                match count(&store, &replica).await {
                    Ok(counted) => shared.store(Arc::new(counted)),
                    // What was counted before stands until the lease that it was counted under ends.
                    Err(error) => tracing::debug!(%error, "shared gauges were not counted"),
                }
                let pause = if shared.load().valid() { EVERY } else { TAKEOVER };
                draining.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
            let last = shared.swap(Arc::new(Shared::NOTHING));
            // Best effort: leases that are not given back end by themselves. What was exported is shown for a while yet.
            if last.exports() {
                let _ = store.hold_lease(EXPORTS, &replica, SHOWN).await;
            }
            let _ = store.release_lease(LEASE, &replica).await;
        });
    leadership
}

async fn count(store: &SharedStore, replica: &str) -> crate::store::Result<Shared> {
    let asked = Instant::now();
    if !store.hold_lease(LEASE, replica, TTL).await? {
        return Ok(Shared::NOTHING);
    }
    let exports = store.hold_lease(EXPORTS, replica, TTL + SHOWN).await?;
    let contexts = store.count_active_contexts(now()).await?;
    let keys = store.count_active_keys(now()).await?;
    let incidents = store.count_open_incidents().await?;
    let queue = store.queue_state(now()).await?;
    Ok(Shared {
        until: Some(asked + TTL),
        exports,
        contexts,
        keys,
        incidents,
        queue,
    })
}
