//! The store in the SQL that both databases understand.
//!
//! Compiled once for each: `sqlite` and `postgres` include this module with their own `dialect` beside it, which
//! holds what differs. So every statement stands once, and is still typed for its database.

mod audit;
mod contexts;
mod door;
mod executions;
mod incidents;
mod inspect;
mod items;
mod keys;
mod leases;
mod queue;
mod schedules;
mod search;
mod statement;
mod store;
mod tenants;
mod tools;
mod upstreams;

pub(super) use super::{
    dialect::{self, Db},
    statistics,
};
pub(super) use door::Door;
pub(super) use statement::Statement;

use crate::{
    metrics,
    store::{Idempotency, Result, StoreError, outage::Loss, signals::Signals},
};
use sqlx::Transaction;
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use uuid::Uuid;

/// A store on one kind of database.
pub(crate) struct SqlStore {
    /// For what only reads.
    pub(super) read: Door,
    /// For everything else. SQLite has one writer at a time, so this pool has one connection there; on PostgreSQL it
    /// is the same pool.
    pub(super) write: Door,
    signals: Signals,
    /// The tenant that was leased to last. Locked while leasing: who leases in the same moment would meet the same rows.
    turn: Mutex<Uuid>,
}

const BEGIN: Statement = Statement::new("transaction.begin", dialect::BEGIN);
const COMMIT: Statement = Statement::new("transaction.commit", "COMMIT");

/// How often a transaction runs once more that the database undid in favour of another.
const CONFLICTS: u32 = 3;

/// Whether something may be done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twice {
    /// The second time finds what the first one did.
    Safe,
    Unsafe,
}

impl Twice {
    fn with(idempotency: Option<&Idempotency>) -> Self {
        if idempotency.is_some() {
            Self::Safe
        } else {
            Self::Unsafe
        }
    }
}

impl SqlStore {
    pub(super) fn new(read: Door, write: Door, signals: Signals) -> Self {
        Self {
            read,
            write: write.for_changes(),
            signals,
            turn: Mutex::new(Uuid::nil()),
        }
    }

    async fn begin(&self) -> Result<Transaction<'static, Db>> {
        let begun = async { Ok(self.write.begin_with(|| BEGIN.sent()).await?) };
        BEGIN.measure(begun).await
    }

    /// Makes `attempt` again when nothing of it took place: the database undid it because of another transaction, or
    /// was lost before it was told to commit. What is safe to do `twice` is also made again when it may have taken place.
    async fn again<T, F: Future<Output = Result<T>> + Send>(
        &self,
        twice: Twice,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let mut patience = self.write.patience();
        let mut conflicts = 0;
        loop {
            let error = match attempt().await {
                Err(error) => error,
                done => return done,
            };
            let repeat = match error.loss() {
                Some(loss) => patience.again(loss).await,
                None if twice == Twice::Safe && matches!(error, StoreError::InDoubt(_)) => {
                    patience.again(Loss::Connection).await
                }
                None if error.is_serialization() && conflicts < CONFLICTS => {
                    conflicts += 1;
                    metrics::DB_RETRIES.inc(["conflict"]);
                    tokio::time::sleep(Duration::from_millis(5 << conflicts)).await;
                    true
                }
                None => false,
            };
            if !repeat {
                return Err(error);
            }
        }
    }

    /// [`Self::again`] for what is not to be done twice.
    async fn retrying<T, F: Future<Output = Result<T>> + Send>(
        &self,
        attempt: impl FnMut() -> F + Send,
    ) -> Result<T> {
        self.again(Twice::Unsafe, attempt).await
    }
}

/// A server that is told to stop says so in the place of an answer, but for one that it gives to a `COMMIT` and then logs for
/// having taken long (`log_min_duration_statement`): there it says so after it has committed.
const LOGGED: Duration = Duration::from_millis(400);

async fn commit(transaction: Transaction<'static, Db>) -> Result<()> {
    let begun = Instant::now();
    let committed = COMMIT.measure(async { Ok(transaction.commit().await?) }).await;
    // Also when nothing was heard of it for too long.
    committed.map_err(|error| match error {
        StoreError::Unavailable(error) if begun.elapsed() >= LOGGED => StoreError::InDoubt(error),
        StoreError::Unavailable(error) => StoreError::of_change(error),
        other => other,
    })
}

/// Holds a row, which counts the change that was just made to it, to the version that the caller expects before it.
fn check_version(version_now: i64, expected: Option<i64>) -> Result<()> {
    let current = version_now - 1;
    if expected.is_none_or(|expected| expected == current) {
        Ok(())
    } else {
        Err(StoreError::VersionMismatch { current })
    }
}
