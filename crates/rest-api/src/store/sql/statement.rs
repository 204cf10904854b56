//! A statement under the name by which spans and metrics know it.

use super::Db;
use super::dialect::{self, SYSTEM};
use super::door::{On, Sent};
use crate::store::{Result, StoreError, settings::PATIENCE, timings::TIMINGS, trace_comment};
use sqlx::{AssertSqlSafe, Database, Encode, Execute as _, FromRow, SqlSafeStr as _, SqlStr, Type};
use std::time::Instant;
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
    query: Sent,
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
        let started = Instant::now();
        let result =
            telemetry::db::query(SYSTEM, self.operation, self.text, StoreError::is_failure, answer).await;
        let failed = result.as_ref().is_err_and(StoreError::is_failure);
        TIMINGS.note(self.operation, self.text, started, failed);
        result
    }

    /// Its text with the trace in hand as a comment, if there is one that is recorded and the database has a log to find
    /// it in.
    fn commented(&self) -> Option<SqlStr> {
        if !dialect::TRACE_COMMENTS {
            return None;
        }
        let text = trace_comment::append(self.operation, self.text)?;
        // The text is the program's, and the comment holds nothing of a caller's but hexadecimal digits.
        Some(AssertSqlSafe(text).into_sql_str())
    }

    /// What is sent for it; asked for where it runs, in its span.
    pub(super) fn sent(&self) -> SqlStr {
        self.commented().unwrap_or_else(|| self.text.into_sql_str())
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

    /// As it is sent: with a comment it is another text each time, and must not push the others out of the
    /// connection's cache of prepared statements.
    fn sent(mut self) -> sqlx::Result<Sent> {
        let Some(text) = self.statement.commented() else {
            return Ok(self.query);
        };
        let arguments = self.query.take_arguments().map_err(sqlx::Error::Encode)?;
        Ok(sqlx::query_with(text, arguments.unwrap_or_default()).persistent(false))
    }

    /// Runs it for its effect; says how many rows it touched.
    pub(crate) async fn execute(self, on: impl On) -> Result<u64> {
        let statement = self.statement;
        let done = statement
            .measure(async { on.execute(self.sent()?).await })
            .await?;
        Ok(done.rows_affected())
    }

    /// Every row.
    pub(crate) async fn all<R>(self, on: impl On) -> Result<Vec<R>>
    where
        R: for<'r> FromRow<'r, <Db as Database>::Row>,
    {
        let statement = self.statement;
        let rows = statement.measure(async { on.rows(self.sent()?).await }).await?;
        rows.iter()
            .map(|row| R::from_row(row).map_err(StoreError::from))
            .collect()
    }

    /// The first row, if there is one.
    ///
    /// Takes them all: on SQLite a writing statement outside of a transaction commits when it was read to its end.
    pub(crate) async fn first<R>(self, on: impl On) -> Result<Option<R>>
    where
        R: for<'r> FromRow<'r, <Db as Database>::Row>,
    {
        Ok(self.all(on).await?.into_iter().next())
    }
}
