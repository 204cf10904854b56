//! A statement under the name by which spans and metrics know it.

use super::Db;
use super::dialect::{self, SYSTEM};
use super::door::{Effect, On, Rows, Sent, Want};
use crate::store::{Result, StoreError, settings::PATIENCE, timings::TIMINGS, trace_comment};
use sqlx::{
    Arguments as _, AssertSqlSafe, Database, Encode, FromRow, SqlSafeStr as _, SqlStr, Type,
    error::BoxDynError,
};
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
    arguments: <Db as Database>::Arguments,
    /// Why an argument cannot be sent.
    unfit: Option<BoxDynError>,
    persistent: bool,
}

impl Statement {
    /// `operation` is `table.verb`, lower case; it is a metric's label.
    pub(crate) const fn new(operation: &'static str, text: &'static str) -> Self {
        Self { operation, text }
    }

    /// Runs `future`, which runs this statement, in its span and metrics.
    pub(crate) async fn measure<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = async {
            let answered = timeout(PATIENCE, future).await;
            answered.unwrap_or_else(|_| Err(silent().into()))
        };
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
            arguments: Default::default(),
            unfit: None,
            persistent: true,
        }
    }
}

impl Call {
    /// The next argument.
    pub(crate) fn bind<T: Encode<'static, Db> + Type<Db> + 'static>(mut self, value: T) -> Self {
        if let Err(error) = self.arguments.add(value) {
            self.unfit.get_or_insert(error);
        }
        self
    }

    /// Plans it anew for these very arguments, where a plan for any would be a bad one.
    pub(crate) fn unprepared(self) -> Self {
        Self {
            persistent: false,
            ..self
        }
    }

    /// As it is sent, once or again. With a comment it is another text each time, and must not push the others out of
    /// the connection's cache of prepared statements.
    pub(super) fn sent(&self) -> sqlx::Result<Sent> {
        if let Some(unfit) = &self.unfit {
            return Err(sqlx::Error::Encode(unfit.to_string().into()));
        }
        let arguments = self.arguments.clone();
        Ok(match self.statement.commented() {
            Some(text) => sqlx::query_with(text, arguments).persistent(false),
            None => sqlx::query_with(self.statement.text, arguments).persistent(self.persistent),
        })
    }

    async fn run<W: Want>(self, on: impl On) -> Result<W::Answer> {
        let statement = self.statement;
        statement.measure(on.run::<W>(self)).await
    }

    /// Runs it for its effect; says how many rows it touched.
    pub(crate) async fn execute(self, on: impl On) -> Result<u64> {
        let done = self.run::<Effect>(on).await?;
        Ok(done.rows_affected())
    }

    /// Every row.
    pub(crate) async fn all<R>(self, on: impl On) -> Result<Vec<R>>
    where
        R: for<'r> FromRow<'r, <Db as Database>::Row>,
    {
        let rows = self.run::<Rows>(on).await?;
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
