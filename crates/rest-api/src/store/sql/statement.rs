//! A statement under the name by which spans and metrics know it.

use super::Db;
use super::dialect::SYSTEM;
use crate::store::{Result, StoreError, settings::PATIENCE};
use sqlx::{Database, Encode, Executor, FromRow, Type, query::Query};
use tokio::time::timeout;

/// SQL and its name.
#[derive(Clone, Copy)]
pub(crate) struct Statement {
    operation: &'static str,
    text: &'static str,
}

/// The server said nothing for too long.
fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// A statement with its arguments, about to be run.
pub(crate) struct Call {
    statement: Statement,
    query: Query<'static, Db, <Db as Database>::Arguments>,
}

impl Statement {
    /// `operation` is `table.verb`, lower case; it is a metric's label.
    pub(crate) const fn new(operation: &'static str, text: &'static str) -> Self {
        Self { operation, text }
    }

    /// Runs `future`, which runs this statement, in its span and metrics.
    pub(crate) async fn measure<T>(&self, future: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        let patient = async { timeout(PATIENCE, future).await.unwrap_or_else(|_| Err(silent())) };
        let answer = async { patient.await.map_err(StoreError::from) };
        telemetry::db::query(SYSTEM, self.operation, self.text, StoreError::is_failure, answer).await
    }

    /// The statement's first argument.
    pub(crate) fn bind<T: Encode<'static, Db> + Type<Db> + 'static>(self, value: T) -> Call {
        self.call().bind(value)
    }

    /// The statement without arguments.
    pub(crate) fn call(self) -> Call {
        Call {
            statement: self,
            query: sqlx::query(self.text),
        }
    }
}

impl Call {
    /// The next argument.
    pub(crate) fn bind<T: Encode<'static, Db> + Type<Db> + 'static>(self, value: T) -> Self {
        Self {
            query: self.query.bind(value),
            ..self
        }
    }

    /// Plans it anew for these very arguments, where a plan for any would be a bad one.
    pub(crate) fn unprepared(self) -> Self {
        Self {
            query: self.query.persistent(false),
            ..self
        }
    }

    /// Runs it for its effect; says how many rows it touched.
    pub(crate) async fn execute<'c>(self, on: impl Executor<'c, Database = Db>) -> Result<u64> {
        let done = self.statement.measure(self.query.execute(on)).await?;
        Ok(done.rows_affected())
    }

    /// Every row.
    pub(crate) async fn all<'c, R>(self, on: impl Executor<'c, Database = Db>) -> Result<Vec<R>>
    where
        R: for<'r> FromRow<'r, <Db as Database>::Row>,
    {
        let rows = self.statement.measure(self.query.fetch_all(on)).await?;
        rows.iter()
            .map(|row| R::from_row(row).map_err(StoreError::from))
            .collect()
    }

    /// The first row, if there is one.
    ///
    /// Takes them all: on SQLite a writing statement outside of a transaction commits when it was read to its end.
    pub(crate) async fn first<'c, R>(self, on: impl Executor<'c, Database = Db>) -> Result<Option<R>>
    where
        R: for<'r> FromRow<'r, <Db as Database>::Row>,
    {
        Ok(self.all(on).await?.into_iter().next())
    }
}
