//! What the database tells of itself, for the metrics: its pool, its size, its most expensive statements.

use crate::{
    leader::Leadership,
    metrics,
    store::{SharedStore, StatementStatistics, StatementTotals},
};
use arc_swap::ArcSwap;
use chassis::Host;
use std::{sync::Arc, time::Duration};
use telemetry::metrics::{Counter, Gauge};
use tokio::time::sleep;

/// How often the database is asked. What is scraped in between is what it said last.
const EVERY: Duration = Duration::from_secs(15);
/// How soon it is asked by a replica that became the one to export it.
const TAKEOVER: Duration = Duration::from_secs(1);
/// The most statements that are told apart.
const STATEMENTS: u32 = 20;

/// What the database said last.
#[derive(Default)]
struct Told {
    size: Option<u64>,
    /// Whether there are statistics; `None` where none are kept.
    readable: Option<bool>,
    statements: Vec<StatementTotals>,
}

/// Exports the pool's state, and where this replica does what one does for all, what the database says.
pub(crate) fn observe(store: &SharedStore, leadership: &Leadership, host: &Host) {
    watch_pool(store, host);
    if let Some(directory) = store.directory() {
        host.telemetry.watch_directory("database", directory);
    }
    let told = Arc::new(ArcSwap::from_pointee(Told::default()));
    export(&told, leadership, host);
    let (store, leadership) = (Arc::clone(store), leadership.clone());
    host.tasks.spawn_every("database statistics", EVERY, async move {
        loop {
            if !leadership.holds() {
                // Another replica tells it now.
                told.store(Arc::default());
                sleep(TAKEOVER).await;
                continue;
            }
            match ask(&store).await {
                Ok(now) => told.store(Arc::new(now)),
                Err(error) => tracing::debug!(%error, "the database does not tell its statistics"),
            }
            sleep(EVERY).await;
        }
    });
}

async fn ask(store: &SharedStore) -> crate::store::Result<Told> {
    let size = Some(store.size_bytes().await?);
    let (readable, statements) = match store.statement_statistics(STATEMENTS).await {
        Ok(StatementStatistics::NotKept) => (None, Vec::new()),
        Ok(StatementStatistics::Read(statements)) => (Some(true), statements),
        Ok(StatementStatistics::NotReadable) => (Some(false), Vec::new()),
        Err(error) => {
            tracing::debug!(%error, "the statements' statistics cannot be read");
            (Some(false), Vec::new())
        }
    };
    Ok(Told {
        size,
        readable,
        statements,
    })
}

/// Everything is gone at once when the leadership is.
fn export(told: &Arc<ArcSwap<Told>>, leadership: &Leadership, host: &Host) {
    let current = || {
        let (told, leadership) = (Arc::clone(told), leadership.clone());
        move || {
            if leadership.exports() {
                told.load_full()
            } else {
                Arc::default()
            }
        }
    };
    let gauge = |gauge: &'static Gauge<0>, value: fn(&Told) -> Option<f64>| {
        let current = current();
        let sample = move || value(&current()).map(|value| ([], value)).into_iter().collect();
        host.telemetry.on_scrape_gauge(gauge, sample);
    };
    gauge(&metrics::DB_SIZE, |told| told.size.map(|size| size as f64));
    gauge(&metrics::DB_STATEMENT_STATISTICS_UP, |told| {
        told.readable.map(|readable| f64::from(u8::from(readable)))
    });
    let counter = |counter: &'static Counter<1>, value: fn(&StatementTotals) -> f64| {
        let current = current();
        host.telemetry.on_scrape_counter(counter, move || {
            let told = current();
            let totals = told.statements.iter();
            totals.map(|one| ([one.text.clone()], value(one))).collect()
        });
    };
    counter(&metrics::DB_STATEMENT_CALLS, |one| one.calls);
    counter(&metrics::DB_STATEMENT_DURATION, |one| one.seconds);
    counter(&metrics::DB_STATEMENT_ROWS, |one| one.rows);
}

/// The pool's state, read at each scrape.
fn watch_pool(store: &SharedStore, host: &Host) {
    let store = Arc::clone(store);
    host.telemetry.on_scrape(move || {
        let pool = store.pool();
        metrics::DB_POOL_CONNECTIONS.set(pool.idle as f64, ["idle"]);
        metrics::DB_POOL_CONNECTIONS.set(f64::from(pool.open) - pool.idle as f64, ["used"]);
        metrics::DB_POOL_MAX.set(f64::from(pool.max), []);
    });
}
