//! What PostgreSQL knows of itself.

use super::sql::{SqlStore, Statement};
use crate::store::{Result, StatementStatistics, StatementTotals};
use std::path::PathBuf;

/// The database's size on disk.
pub(crate) const SIZE: Statement =
    Statement::new("database.size", "SELECT pg_database_size(current_database())");

/// The view is there when the extension was created in this database; the setting, when the server loaded it. Asked
/// first, so that a server without it does not count as one that fails.
pub(crate) const READABLE: Statement = Statement::new(
    "statement_statistics.find",
    "SELECT to_regclass('pg_stat_statements') IS NOT NULL
     AND current_setting('pg_stat_statements.max', true) IS NOT NULL",
);

/// Statements of this database, whose text differs in nothing but comments and spaces, as one. Of utility statements
/// only the transactions': PostgreSQL does not take the values out of the others, and one could be a password.
const TOTALS: Statement = Statement::new(
    "statement_statistics.list",
    r"WITH statements AS (
          SELECT LEFT(BTRIM(REGEXP_REPLACE(REGEXP_REPLACE(query, '/\*.*?\*/', '', 'g'), '\s+', ' ', 'g')), 120) AS text,
                 calls, total_exec_time, rows
          FROM pg_stat_statements
          WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND query NOT LIKE '%\\%')
      SELECT text, CAST(SUM(calls) AS FLOAT8), CAST(SUM(total_exec_time) / 1000 AS FLOAT8), CAST(SUM(rows) AS FLOAT8)
      FROM statements
      WHERE text ~* '^(SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|BEGIN|COMMIT|ROLLBACK)\M'
      GROUP BY text ORDER BY SUM(total_exec_time) DESC LIMIT $1",
);

/// The server's files are its own affair.
pub(crate) fn directory(_store: &SqlStore) -> Option<PathBuf> {
    None
}

/// From `pg_stat_statements`, where there is one.
pub(crate) async fn statements(store: &SqlStore, limit: u32) -> Result<StatementStatistics> {
    let readable: Option<(bool,)> = READABLE.call().first(&store.read).await?;
    if readable != Some((true,)) {
        return Ok(StatementStatistics::NotReadable);
    }
    let rows: Vec<(String, f64, f64, f64)> = TOTALS.bind(i64::from(limit)).all(&store.read).await?;
    let totals = |(text, calls, seconds, rows)| StatementTotals {
        text,
        calls,
        seconds,
        rows,
    };
    Ok(StatementStatistics::Read(rows.into_iter().map(totals).collect()))
}
