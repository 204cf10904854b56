//! A pool that knows who waits at it, which the driver's does not tell.

use super::Db;
use crate::store::inspect::{Acquired, PoolReport};
use sqlx::{Database, Pool, SqlStr, Transaction, pool::PoolConnection, query::Query};
use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// A statement with its arguments, as it is sent.
pub(super) type Sent = Query<'static, Db, <Db as Database>::Arguments>;

/// A pool; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pool: Pool<Db>,
    waits: Arc<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    waiting: AtomicU64,
    count: AtomicU64,
    failed: AtomicU64,
    total_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

/// Counts one who waits, however the wait ends.
struct Waiting<'a>(&'a Waits);

impl<'a> Waiting<'a> {
    fn at(waits: &'a Waits) -> Self {
        waits.waiting.fetch_add(1, Relaxed);
        Self(waits)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Door {
    pub(crate) fn new(pool: Pool<Db>) -> Self {
        Self {
            pool,
            waits: Arc::default(),
        }
    }

    /// A connection, when there is one.
    pub(crate) async fn acquire(&self) -> sqlx::Result<PoolConnection<Db>> {
        let waits = &*self.waits;
        let started = Instant::now();
        let waiting = Waiting::at(waits);
        let acquired = self.pool.acquire().await;
        drop(waiting);
        if acquired.is_err() {
            waits.failed.fetch_add(1, Relaxed);
            return acquired;
        }
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        waits.count.fetch_add(1, Relaxed);
        waits.total_nanos.fetch_add(nanos, Relaxed);
        waits.max_nanos.fetch_max(nanos, Relaxed);
        acquired
    }

    /// A transaction on a connection of its own.
    pub(super) async fn begin_with(&self, statement: SqlStr) -> sqlx::Result<Transaction<'static, Db>> {
        Transaction::begin(self.acquire().await?, Some(statement)).await
    }

    /// How full it is, and how long it was waited at.
    pub(crate) fn report(&self, name: &'static str) -> PoolReport {
        let (size, idle) = (self.size(), self.num_idle());
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(size);
        let count = self.waits.count.load(Relaxed);
        let millis = |nanos: &AtomicU64| nanos.load(Relaxed) as f64 / 1e6;
        PoolReport {
            name,
            size,
            idle,
            in_use: size - idle,
            max: self.options().get_max_connections(),
            waiting: self.waits.waiting.load(Relaxed),
            acquired: Acquired {
                count,
                failed: self.waits.failed.load(Relaxed),
                mean_ms: millis(&self.waits.total_nanos) / count.max(1) as f64,
                max_ms: millis(&self.waits.max_nanos),
            },
        }
    }
}

impl Deref for Door {
    type Target = Pool<Db>;

    fn deref(&self) -> &Pool<Db> {
        &self.pool
    }
}

/// What a statement runs on: a pool's connection, the next one that is free, or a connection that is held.
pub(crate) trait On: Send {
    /// Runs it for its effect.
    fn execute(self, query: Sent)
    -> impl Future<Output = sqlx::Result<<Db as Database>::QueryResult>> + Send;
    /// Runs it for its rows.
    fn rows(self, query: Sent) -> impl Future<Output = sqlx::Result<Vec<<Db as Database>::Row>>> + Send;
}

impl On for &Door {
    async fn execute(self, query: Sent) -> sqlx::Result<<Db as Database>::QueryResult> {
        query.execute(&mut *self.acquire().await?).await
    }

    async fn rows(self, query: Sent) -> sqlx::Result<Vec<<Db as Database>::Row>> {
        query.fetch_all(&mut *self.acquire().await?).await
    }
}

impl On for &mut <Db as Database>::Connection {
    async fn execute(self, query: Sent) -> sqlx::Result<<Db as Database>::QueryResult> {
        query.execute(self).await
    }

    async fn rows(self, query: Sent) -> sqlx::Result<Vec<<Db as Database>::Row>> {
        query.fetch_all(self).await
    }
}
