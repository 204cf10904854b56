//! The store in the SQL that both databases understand.
//!
//! Compiled once for each: `sqlite` and `postgres` include this module with their own `dialect` beside it, which
//! holds what differs. So every statement stands once, and is still typed for its database.

mod contexts;
mod door;
mod executions;
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

pub(super) use super::{
    dialect::{self, Db},
    statistics,
};
pub(super) use door::Door;
pub(super) use statement::Statement;

use crate::store::{Result, StoreError, signals::Signals};
use sqlx::Transaction;
use std::{future::Future, time::Duration};
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

/// How often a transaction runs that the database undoes in favour of another.
const ATTEMPTS: u32 = 4;

impl SqlStore {
    pub(super) fn new(read: Door, write: Door, signals: Signals) -> Self {
        Self {
            read,
            write,
            signals,
            turn: Mutex::new(Uuid::nil()),
        }
    }

    async fn begin(&self) -> Result<Transaction<'static, Db>> {
        BEGIN
            .measure(async { self.write.begin_with(BEGIN.sent()).await })
            .await
    }
}

async fn commit(transaction: Transaction<'static, Db>) -> Result<()> {
    COMMIT.measure(transaction.commit()).await
}

/// Runs a transaction again when the database undid it because of another one.
async fn retrying<T, F: Future<Output = Result<T>> + Send>(
    mut attempt: impl FnMut() -> F + Send,
) -> Result<T> {
    let mut tried = 1;
    loop {
        match attempt().await {
            Err(e) if e.is_serialization() && tried < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(5 << tried)).await;
                tried += 1;
            }
            done => return done,
        }
    }
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
