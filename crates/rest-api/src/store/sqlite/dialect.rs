//! What is SQLite's own.

use super::sql::{Door, SqlStore, Statement};
use crate::store::{
    DatabaseSettings, PoolState, Result, Schema,
    inspect::PoolReport,
    migrations,
    rows::ItemRow,
    signals::Signals,
    text::{Query, spaced},
};
use domain::{ContextId, TenantId};
use secrecy::ExposeSecret as _;
use sqlx::{
    ConnectOptions as _, Sqlite, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{str::FromStr as _, time::Duration};
use tracing::log::LevelFilter;

/// The driver.
pub(crate) type Db = Sqlite;

/// As in `db.system.name`.
pub(crate) const SYSTEM: &str = "sqlite";
/// There is no server that would have a log.
pub(crate) const TRACE_COMMENTS: bool = false;
/// Takes the write lock at once: taking it later could fail in the middle of the transaction.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";
/// Takes more than half a second. There is no statement that only waits.
pub(crate) const SLOW: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000) SELECT COUNT(*) FROM n";

/// Now, microseconds since 1970, by the database's clock.
macro_rules! now_micros {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
/// Leaves rows to those who work on them. Nobody else does here.
macro_rules! skip_locked {
    () => {
        ""
    };
}
/// Identifiers out of a JSON list of texts.
macro_rules! ids {
    ($list:literal) => {
        concat!("(SELECT unhex(value) FROM json_each(", $list, "))")
    };
}
/// Leases out of a JSON list: `id`, `token`, `progress`.
macro_rules! held {
    ($list:literal) => {
        concat!(
            "(SELECT unhex(value ->> 'id') AS id, value ->> 'token' AS token, value ->> 'progress' AS progress
             FROM json_each(", $list, "))"
        )
    };
}
/// Records of the audit log out of a JSON list.
macro_rules! audit_records {
    ($list:literal) => {
        concat!(
            "(SELECT unhex(value ->> 'id') AS id, unhex(value ->> 'tenant_id') AS tenant_id, value ->> 'at' AS at,
              unhex(value ->> 'key_id') AS key_id, value ->> 'key_name' AS key_name, value ->> 'door' AS door,
              value ->> 'action' AS action, value ->> 'arguments_hash' AS arguments_hash,
              value ->> 'arguments' AS arguments, value ->> 'outcome' AS outcome, value ->> 'code' AS code,
              value ->> 'duration_us' AS duration_us, value ->> 'trace_id' AS trace_id,
              unhex(value ->> 'execution_id') AS execution_id, value ->> 'count' AS count,
              value ->> 'address' AS address
              FROM json_each(", $list, "))"
        )
    };
}
/// The best of each tenant's in `turns`: as many as it has room for.
macro_rules! picks {
    () => {
        "SELECT e.id, t.step, t.room,
         ROW_NUMBER() OVER (PARTITION BY t.step ORDER BY e.priority DESC, e.run_at, e.id) AS place
         FROM turns t JOIN executions e ON e.rowid IN (
             SELECT q.rowid FROM executions q
             WHERE q.tenant_id = t.tenant_id AND q.status = 'queued' AND q.ready
             AND (q.deadline IS NULL OR q.deadline > $4)
             ORDER BY q.priority DESC, q.run_at, q.id LIMIT $2)
         WHERE t.room > 0"
    };
}
/// Those of `picks` whose turn it is.
macro_rules! chosen {
    () => {
        "SELECT id FROM picks WHERE place <= room ORDER BY place, step LIMIT $2"
    };
}
pub(crate) use {audit_records, chosen, held, ids, now_micros, picks, skip_locked};

/// There is no server that could go away and come back.
const NO_SERVER: Duration = Duration::ZERO;
/// How often a migration is tried that meets another process's: SQLite has no lock for it to wait on.
const MIGRATION_ATTEMPTS: u32 = 5;

/// Opens the database, and makes it if it is not there.
pub(crate) async fn connect(settings: &DatabaseSettings) -> Result<SqlStore> {
    let url = settings.url.expose_secret();
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Durable against a crash of the process; a power cut may cost the last moments but never consistency.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(settings.acquire_timeout)
        .pragma("temp_store", "memory")
        .optimize_on_close(true, None)
        .log_statements(LevelFilter::Trace)
        // They are logged where they are timed: on SQLite the driver does not know whose they are.
        .log_slow_statements(LevelFilter::Off, settings.slow_statement);
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    if let Some(directory) = options.get_filename().parent().filter(|_| !in_memory) {
        std::fs::create_dir_all(directory).map_err(sqlx::Error::Io)?;
    }
    let pool = SqlitePoolOptions::new()
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .max_lifetime(None)
        .idle_timeout(None);
    let write = pool
        .clone()
        .max_connections(1)
        .connect_with(options.clone())
        .await?;
    // A database in memory belongs to its one connection.
    let write = Door::new(write, NO_SERVER);
    let read = match in_memory {
        true => write.clone(),
        false => Door::new(
            pool.max_connections(settings.max_connections)
                .connect_lazy_with(options.pragma("query_only", "on")),
            NO_SERVER,
        ),
    };
    Ok(SqlStore::new(read, write, Signals::in_process()))
}

/// Readers and the writer together.
pub(crate) fn pool_state(store: &SqlStore) -> PoolState {
    let (read, write) = (&store.read, &store.write);
    PoolState {
        open: read.size() + write.size(),
        idle: read.num_idle() + write.num_idle(),
        max: read.options().get_max_connections() + write.options().get_max_connections(),
    }
}

/// Each by itself.
pub(crate) fn pools(store: &SqlStore) -> Vec<PoolReport> {
    vec![store.read.report("read"), store.write.report("write")]
}

/// Brings the schema up to date.
pub(crate) async fn migrate(store: &SqlStore, schema: Schema) -> Result<()> {
    static OURS: Migrator = sqlx::migrate!("migrations/sqlite");
    let migrator = schema.migrator(&OURS);
    let mut tried = 1;
    loop {
        match migrator.run(&*store.write).await {
            Err(_) if tried < MIGRATION_ATTEMPTS => tried += 1,
            done => return migrations::told(&migrator, done),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

const INSERT_ITEM: Statement = Statement::new(
    "context_items.insert",
    "INSERT INTO context_items (context_id, sequence, role, metadata, size_bytes, created_at, content)
     VALUES ($1, $2, $3, $4, $5, $6, $7)",
);
const INSERT_DOCUMENT: Statement = Statement::new(
    "search_documents.insert",
    "INSERT INTO search_documents (context_id, sequence) VALUES ($1, $2) RETURNING id",
);
const INDEX: Statement = Statement::new(
    "search_index.insert",
    "INSERT INTO search_index (rowid, words) VALUES ($1, $2)",
);
const UNINDEX_NAME: Statement = Statement::new(
    "search_documents.delete",
    "DELETE FROM search_documents WHERE context_id = $1 AND sequence = 0",
);

/// Inserts a context's items.
pub(crate) async fn insert_items(
    tx: &mut Transaction<'static, Db>,
    context: ContextId,
    items: Vec<ItemRow>,
) -> Result<()> {
    for item in items {
        let size = item.content.len() as i64;
        let call = INSERT_ITEM
            .bind(context.0)
            .bind(item.sequence)
            .bind(item.role)
            .bind(item.metadata);
        call.bind(size)
            .bind(item.created_at)
            .bind(item.content)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Lets a context's texts be found by their words.
pub(crate) async fn index(
    tx: &mut Transaction<'static, Db>,
    _tenant: TenantId,
    context: ContextId,
    documents: &[(i64, &str)],
) -> Result<()> {
    for (sequence, text) in documents {
        let row = INSERT_DOCUMENT
            .bind(context.0)
            .bind(*sequence)
            .first::<(i64,)>(&mut **tx)
            .await?;
        let (id,) = row.ok_or(sqlx::Error::RowNotFound)?;
        INDEX.bind(id).bind(spaced(text)).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Forgets the words of a context's name.
pub(crate) async fn unindex_name(tx: &mut Transaction<'static, Db>, context: ContextId) -> Result<()> {
    UNINDEX_NAME.bind(context.0).execute(&mut **tx).await?;
    Ok(())
}

/// The first step must be materialised: `rank` means nothing outside of the index's own query.
pub(crate) const SEARCH: Statement = Statement::new(
    "contexts.search",
    "WITH found AS MATERIALIZED (SELECT rowid AS id, -rank AS score FROM search_index WHERE search_index MATCH $1),
     hits AS (
         SELECT d.context_id, d.sequence, f.score,
                ROW_NUMBER() OVER (PARTITION BY d.context_id ORDER BY f.score DESC, d.sequence) AS place
         FROM found f JOIN search_documents d ON d.id = f.id JOIN contexts c ON c.id = d.context_id
         WHERE c.tenant_id = $2 AND (c.expires_at IS NULL OR c.expires_at > $3) AND c.updated_at >= $4
         AND ($5 IS NULL OR c.agent_id = $5) AND ($6 IS NULL OR c.session_id = $6)
         AND ($7 IS NULL OR c.kind = $7) AND ($8 IS NULL OR c.status = $8)
     ),
     best AS (SELECT * FROM hits WHERE place = 1 ORDER BY score DESC, context_id DESC LIMIT $9)
     SELECT c.id, c.tenant_id, c.name, c.kind, c.agent_id, c.session_id, c.metadata, c.status, c.version, c.item_count,
            c.size_bytes, c.created_at, c.updated_at, c.expires_at, b.sequence, b.score, COALESCE(substr(i.content, 1, 262144), c.name) AS matched
     FROM best b JOIN contexts c ON c.id = b.context_id
     LEFT JOIN context_items i ON i.context_id = b.context_id AND i.sequence = b.sequence
     ORDER BY b.score DESC, b.context_id DESC",
);

/// The query as FTS5 reads it. Quotes are safe: no word holds one.
pub(crate) fn query_text(query: &Query) -> String {
    let phrases: Vec<_> = query
        .phrases
        .iter()
        .map(|phrase| format!("\"{}\"", phrase.join(" ")))
        .collect();
    phrases.join(" ")
}
