//! What PostgreSQL tells somebody who looks for what is wrong: on a connection of its own, since all of the pool's may be
//! what is wrong.

use super::{dialect::APPLICATION, sql::SqlStore, sql::Statement, statistics::READABLE};
use crate::store::{
    Result,
    inspect::{DatabaseView, PostgresReport, ServerReport, StatementAsk, StatementCost},
    rows::time,
};
use sqlx::{ConnectOptions as _, Connection as _, FromRow, PgConnection, postgres::PgConnectOptions};
use std::collections::BTreeMap;

/// After how long PostgreSQL gives one of these statements up, milliseconds: who asked has gone by then.
const STATEMENT_TIMEOUT: u32 = 4000;

/// Statements of this database, without comments. Of utility statements only the transactions': PostgreSQL does not take
/// the values out of the others, and one could be a password.
const EXPENSIVE: Statement = Statement::new(
    "statement_statistics.expensive",
    r"WITH statements AS (
          SELECT LEFT(BTRIM(REGEXP_REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(
                     query, '/\*.*?\*/', '', 'g'), '--[^\n]*', '', 'g'), '\s+', ' ', 'g')), 4000) AS text,
                 calls, mean_exec_time, max_exec_time, total_exec_time, rows,
                 CASE $3 WHEN 'total' THEN total_exec_time WHEN 'max' THEN max_exec_time
                     WHEN 'calls' THEN CAST(calls AS FLOAT8) ELSE mean_exec_time END AS place
          FROM pg_stat_statements
          WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND mean_exec_time > $1)
      SELECT text, calls, mean_exec_time, max_exec_time, total_exec_time, rows
      FROM statements
      WHERE text ~* '^(SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|BEGIN|COMMIT|ROLLBACK)\M'
      ORDER BY place DESC LIMIT $2",
);

/// An extension that was made by an older version has no such view.
const HAS_RESET: Statement = Statement::new(
    "statement_statistics.find_reset",
    "SELECT to_regclass('pg_stat_statements_info') IS NOT NULL",
);
const RESET: Statement = Statement::new(
    "statement_statistics.reset",
    "SELECT CAST(EXTRACT(EPOCH FROM stats_reset) * 1000000 AS BIGINT) FROM pg_stat_statements_info",
);

const SERVER: Statement = Statement::new(
    "database.server",
    "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS is_replica,
     current_setting('default_transaction_read_only') = 'on' AS read_only,
     CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT) AS started_at,
     pg_database_size(current_database()) AS size_bytes,
     CAST(current_setting('max_connections') AS BIGINT) AS max_connections,
     (SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections",
);
/// Of every replica: what is wrong may be another one.
const CONNECTIONS: Statement = Statement::new(
    "database.connections",
    "SELECT COALESCE(state, 'unknown') AS state, COUNT(*) AS connections,
     CAST(MAX(EXTRACT(EPOCH FROM clock_timestamp() - backend_start)) AS FLOAT8) AS oldest,
     CAST(MAX(EXTRACT(EPOCH FROM clock_timestamp() - xact_start)) AS FLOAT8) AS longest,
     COUNT(*) FILTER (WHERE wait_event_type = 'Lock') AS locked
     FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 GROUP BY 1",
);

#[derive(FromRow)]
struct CostRow {
    text: String,
    calls: i64,
    mean_exec_time: f64,
    max_exec_time: f64,
    total_exec_time: f64,
    rows: i64,
}

#[derive(FromRow)]
struct ServerRow {
    version: String,
    is_replica: bool,
    read_only: bool,
    started_at: i64,
    size_bytes: i64,
    max_connections: i64,
    connections: i64,
}

#[derive(FromRow)]
struct ConnectionsRow {
    state: String,
    connections: i64,
    oldest: Option<f64>,
    longest: Option<f64>,
    locked: i64,
}

/// From `pg_stat_statements`, where there is one.
pub(crate) async fn database_view(store: &SqlStore, ask: &StatementAsk) -> Result<DatabaseView> {
    let mut connection = connect(store).await?;
    let readable: Option<(bool,)> = READABLE.call().first(&mut connection).await?;
    if readable != Some((true,)) {
        return Ok(DatabaseView::NotReadable);
    }
    let call = EXPENSIVE.bind(ask.min_mean_ms).bind(i64::from(ask.limit));
    let rows: Vec<CostRow> = call.bind(ask.order.as_str()).all(&mut connection).await?;
    let has_reset: Option<(bool,)> = HAS_RESET.call().first(&mut connection).await?;
    let reset: Option<(i64,)> = match has_reset {
        Some((true,)) => RESET.call().first(&mut connection).await?,
        _ => None,
    };
    connection.close().await?;
    Ok(DatabaseView::Read {
        reset_at: reset.map(|(micros,)| time(micros)).transpose()?,
        queries: rows.into_iter().map(cost).collect(),
    })
}

fn cost(row: CostRow) -> StatementCost {
    StatementCost {
        operation: None,
        query: row.text,
        calls: row.calls.unsigned_abs(),
        mean_exec_time: row.mean_exec_time,
        max_exec_time: row.max_exec_time,
        total_exec_time: row.total_exec_time,
        rows: Some(row.rows.unsigned_abs()),
        failed: None,
    }
}

/// From the server's own views.
pub(crate) async fn server(store: &SqlStore) -> Result<ServerReport> {
    let mut connection = connect(store).await?;
    let server: Option<ServerRow> = SERVER.call().first(&mut connection).await?;
    let server = server.ok_or(sqlx::Error::RowNotFound)?;
    let by_state: Vec<ConnectionsRow> = CONNECTIONS.bind(APPLICATION).all(&mut connection).await?;
    connection.close().await?;
    let longest = |of: fn(&ConnectionsRow) -> Option<f64>| by_state.iter().filter_map(of).reduce(f64::max);
    Ok(ServerReport::Postgres(Box::new(PostgresReport {
        version: server.version,
        is_replica: server.is_replica,
        read_only: server.read_only,
        started_at: Some(time(server.started_at)?),
        size_bytes: server.size_bytes.unsigned_abs(),
        max_connections: server.max_connections.unsigned_abs(),
        connections: server.connections.unsigned_abs(),
        oldest_connection_seconds: longest(|row| row.oldest),
        longest_transaction_seconds: longest(|row| row.longest),
        waiting_for_locks: by_state.iter().map(|row| row.locked.unsigned_abs()).sum(),
        own_connections: by_state
            .into_iter()
            .map(|row| (row.state, row.connections.unsigned_abs()))
            .collect::<BTreeMap<_, _>>(),
    })))
}

async fn connect(store: &SqlStore) -> Result<PgConnection> {
    let options = PgConnectOptions::clone(&store.write.connect_options());
    let options = options
        .application_name("rest-api debug page")
        .options([("statement_timeout", STATEMENT_TIMEOUT)]);
    let patience = store.write.options().get_acquire_timeout();
    let connecting = tokio::time::timeout(patience, options.connect());
    Ok(connecting.await.map_err(|_| sqlx::Error::PoolTimedOut)??)
}
