//! A pool that knows who waits at it, which the driver's does not tell.

use super::Db;
use super::statement::Call;
use crate::store::{
    Result, StoreError,
    inspect::{Acquired, PoolReport},
    outage::{Loss, Outage, Patience},
};
use sqlx::{ConnectOptions as _, Database, Pool, SqlStr, Transaction, pool::PoolConnection, query::Query};
use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A statement with its arguments, as it is sent.
pub(super) type Sent = Query<'static, Db, <Db as Database>::Arguments>;

/// A pool; clones share it. It is also where a server that went away is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pool: Pool<Db>,
    waits: Arc<Waits>,
    outage: Arc<Outage>,
    changes: bool,
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
    /// A door for statements that change nothing, where a server that went away is waited for as long as `patience`.
    pub(crate) fn new(pool: Pool<Db>, patience: Duration) -> Self {
        Self {
            pool,
            waits: Arc::default(),
            outage: Arc::new(Outage::new(patience)),
            changes: false,
        }
    }

    /// The same for statements that change something: not made again when they may have taken place.
    pub(crate) fn for_changes(self) -> Self {
        Self {
            changes: true,
            ..self
        }
    }

    /// How long a server is waited for that went away.
    pub(crate) fn patience(&self) -> Patience<'_> {
        self.outage.patience()
    }

    /// A connection, when there is one.
    pub(crate) async fn acquire(&self) -> sqlx::Result<PoolConnection<Db>> {
        self.acquire_with(&mut self.patience()).await
    }

    async fn acquire_with(&self, patience: &mut Patience<'_>) -> sqlx::Result<PoolConnection<Db>> {
        loop {
            let error = match self.acquire_now().await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let is_away = match &error {
                sqlx::Error::PoolTimedOut => {
                    self.outage.within(2 * self.pool.options().get_acquire_timeout())
                        || self.outage.try_out(self.connect_options().connect()).await
                }
                error => Loss::of(error).is_some(),
            };
            if !is_away || !patience.again(Loss::Unreachable).await {
                return Err(error);
            }
        }
    }

    async fn acquire_now(&self) -> sqlx::Result<PoolConnection<Db>> {
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
    pub(super) async fn begin_with(
        &self,
        statement: impl Fn() -> SqlStr + Send,
    ) -> sqlx::Result<Transaction<'static, Db>> {
        let mut patience = self.patience();
        loop {
            let connection = self.acquire_with(&mut patience).await?;
            match Transaction::begin(connection, Some(statement())).await {
                // Nothing took place yet.
                Err(error) if repeats(Loss::of(&error), &mut patience).await => {}
                done => return done,
            }
        }
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

/// Whether to try again what was lost, after a pause; what was not lost is not.
async fn repeats(loss: Option<Loss>, patience: &mut Patience<'_>) -> bool {
    match loss {
        Some(loss) => patience.again(loss).await,
        None => false,
    }
}

/// What is wanted of a statement.
pub(crate) trait Want: Send {
    /// What comes back.
    type Answer: Send;

    /// Runs it on a connection.
    fn of(
        query: Sent,
        connection: &mut <Db as Database>::Connection,
    ) -> impl Future<Output = sqlx::Result<Self::Answer>> + Send;
}

/// Its effect.
pub(super) struct Effect;

impl Want for Effect {
    type Answer = <Db as Database>::QueryResult;

    async fn of(query: Sent, connection: &mut <Db as Database>::Connection) -> sqlx::Result<Self::Answer> {
        query.execute(connection).await
    }
}

/// Its rows.
pub(super) struct Rows;

impl Want for Rows {
    type Answer = Vec<<Db as Database>::Row>;

    async fn of(query: Sent, connection: &mut <Db as Database>::Connection) -> sqlx::Result<Self::Answer> {
        query.fetch_all(connection).await
    }
}

/// What a statement runs on: a pool's connection, the next one that is free, or a connection that is held.
pub(crate) trait On: Send {
    /// Runs it.
    fn run<W: Want>(self, call: Call) -> impl Future<Output = Result<W::Answer>> + Send;
}

/// Here a statement stands for itself, so it is made again when the server is lost and it did not take place.
impl On for &Door {
    async fn run<W: Want>(self, call: Call) -> Result<W::Answer> {
        let mut patience = self.patience();
        loop {
            let mut connection = self.acquire_with(&mut patience).await?;
            let error = match W::of(call.sent()?, &mut connection).await {
                Ok(answer) => {
                    self.outage.over();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // Given back before the pause: it is found to be broken then, and makes room for another.
            drop(connection);
            let undone = Loss::of(&error).filter(|loss| !self.changes || *loss == Loss::Shutdown);
            if !repeats(undone, &mut patience).await {
                return Err(if self.changes {
                    StoreError::of_change(error)
                } else {
                    error.into()
                });
            }
        }
    }
}

/// Here it is part of a transaction, or of a command's own connection: who holds that decides.
impl On for &mut <Db as Database>::Connection {
    async fn run<W: Want>(self, call: Call) -> Result<W::Answer> {
        Ok(W::of(call.sent()?, self).await?)
    }
}
