//! What is PostgreSQL's own.

use super::sql::{Door, SqlStore, Statement};
use crate::store::{
    DatabaseSettings, PoolState, Result, Schema,
    inspect::PoolReport,
    migrations,
    rows::ItemRow,
    text::{Query, places},
};
use domain::{ContextId, TenantId};
use secrecy::ExposeSecret as _;
use sqlx::{
    ConnectOptions as _, Connection as _, Postgres, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    fmt::Write as _,
    str::FromStr as _,
    time::{Duration, Instant},
};
use tracing::log::LevelFilter;

/// The name of the service's connections, by which the server tells them from others'.
pub(crate) const APPLICATION: &str = "rest-api";

/// The driver.
pub(crate) type Db = Postgres;

/// As in `db.system.name`.
pub(crate) const SYSTEM: &str = "postgresql";
/// The server has a log, in which slow statements are found.
pub(crate) const TRACE_COMMENTS: bool = true;
/// Rows are locked by changing them first, so the default isolation is enough.
pub(crate) const BEGIN: &str = "BEGIN";
/// Takes more than half a second.
pub(crate) const SLOW: &str = "SELECT pg_sleep(0.6)";

/// Now, microseconds since 1970, by the database's clock.
macro_rules! now_micros {
    () => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}
/// Leaves rows to those who work on them.
macro_rules! skip_locked {
    () => {
        " FOR UPDATE SKIP LOCKED"
    };
}
/// Identifiers out of a JSON list of texts.
macro_rules! ids {
    ($list:literal) => {
        concat!(
            "(SELECT CAST(id AS UUID) FROM json_array_elements_text(CAST(",
            $list,
            " AS JSON)) AS listed (id))"
        )
    };
}
/// Leases out of a JSON list: `id`, `token`, `progress`.
macro_rules! held {
    ($list:literal) => {
        concat!(
            "(SELECT id, token, progress FROM json_to_recordset(CAST(",
            $list,
            " AS JSON))
             AS listed (id UUID, token BIGINT, progress TEXT))"
        )
    };
}
/// Records of the audit log out of a JSON list.
macro_rules! audit_records {
    ($list:literal) => {
        concat!(
            "(SELECT * FROM json_to_recordset(CAST(",
            $list,
            " AS JSON))
             AS listed (id UUID, tenant_id UUID, at BIGINT, key_id UUID, key_name TEXT, door TEXT, action TEXT,
                        arguments_hash TEXT, arguments TEXT, outcome TEXT, code TEXT, duration_us BIGINT,
                        trace_id TEXT, execution_id UUID, count BIGINT, address TEXT))"
        )
    };
}
/// The best of each tenant's in `turns`: as many as it has room for. More than are asked for, since another replica may
/// be about to take some.
macro_rules! picks {
    () => {
        "SELECT e.id, t.step, ROW_NUMBER() OVER (PARTITION BY t.step ORDER BY e.priority DESC, e.run_at, e.id) AS place
         FROM turns t CROSS JOIN LATERAL (
             SELECT q.id, q.priority, q.run_at FROM executions q
             WHERE q.tenant_id = t.tenant_id AND q.status = 'queued' AND q.ready
             AND (q.deadline IS NULL OR q.deadline > $4)
             ORDER BY q.priority DESC, q.run_at, q.id LIMIT LEAST(t.room, 3 * $2)) e
         WHERE t.room > 0"
    };
}
/// Those of `picks` whose turn it is, and that nobody else is about to take.
macro_rules! chosen {
    () => {
        "SELECT e.id FROM (SELECT * FROM picks ORDER BY place, step LIMIT 3 * $2) p
         JOIN executions e ON e.id = p.id WHERE e.status = 'queued'
         ORDER BY p.place, p.step LIMIT $2 FOR UPDATE OF e SKIP LOCKED"
    };
}
pub(crate) use {audit_records, chosen, held, ids, now_micros, picks, skip_locked};

/// A connection that was idle for longer is tried before it is used: the server may have gone in the meantime.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// For how long a migration makes others wait for a lock that it waits for; the pause before it tries again, and for
/// how long it does: less than a start may take.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_secs(2);
const LOCKED_FOR: Duration = Duration::from_secs(240);
/// How many places of one word a `tsvector` keeps.
const MAX_PLACES: usize = 255;
/// The greatest place that a `tsvector` knows.
const LAST_PLACE: usize = 16_383;

/// Makes the pool. Connects when first asked to, so a service starts also while its database is away.
pub(crate) fn connect(settings: &DatabaseSettings) -> Result<SqlStore> {
    let options = PgConnectOptions::from_str(settings.url.expose_secret())?
        .application_name(APPLICATION)
        .log_statements(LevelFilter::Trace)
        // They are logged where they are timed.
        .log_slow_statements(LevelFilter::Off, settings.slow_statement);
    let options = match &settings.password {
        Some(password) => options.password(password.expose_secret()),
        None => options,
    };
    let options = options.options([
        ("statement_timeout", settings.statement_timeout.as_millis()),
        // A transaction waits for nothing but its own next statement.
        (
            "idle_in_transaction_session_timeout",
            settings.statement_timeout.as_millis(),
        ),
    ]);
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options);
    let door = Door::new(pool, settings.outage_patience);
    let signals = super::signals::carry(&door);
    Ok(SqlStore::new(door.clone(), door, signals))
}

/// The pool.
pub(crate) fn pool_state(store: &SqlStore) -> PoolState {
    let pool = &store.write;
    PoolState {
        open: pool.size(),
        idle: pool.num_idle(),
        max: pool.options().get_max_connections(),
    }
}

/// The same for who looks for what is wrong.
pub(crate) fn pools(store: &SqlStore) -> Vec<PoolReport> {
    vec![store.write.report("all")]
}

/// Brings the schema up to date. Other replicas wait for an advisory lock meanwhile. What waits for a lock on a table
/// makes all who come after it wait as well, replicas of the version before among them, so a migration gives that up
/// soon and begins anew.
pub(crate) async fn migrate(store: &SqlStore, schema: Schema) -> Result<()> {
    static OURS: Migrator = sqlx::migrate!("migrations/postgres");
    let migrator = schema.migrator(&OURS);
    let (mut patience, begun) = (store.write.patience(), Instant::now());
    let mut told = false;
    loop {
        let error = match migrate_once(store, &migrator).await {
            Err(error) => error,
            done => return done,
        };
        if error.is_lock_timeout() && begun.elapsed() < LOCKED_FOR {
            if !told {
                tracing::info!(%error, "the schema's migration waits for a lock");
                told = true;
            }
            tokio::time::sleep(LOCK_PAUSE).await;
            continue;
        }
        // Where it was lost, the database knows which migrations were applied.
        match error.loss() {
            Some(loss) if patience.again(loss).await => {}
            _ => return Err(error),
        }
    }
}

/// On a connection of its own: an index may take longer to build than a request may take.
async fn migrate_once(store: &SqlStore, migrator: &Migrator) -> Result<()> {
    let options = PgConnectOptions::clone(&store.write.connect_options());
    let limit = store.write.options().get_acquire_timeout();
    let options = options.options([
        ("statement_timeout", 0_u128),
        ("lock_timeout", LOCK_TIMEOUT.as_millis()),
    ]);
    let connecting = tokio::time::timeout(limit, options.connect());
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let mut connection = connecting.await.map_err(late)??;
    let done = migrator.run_direct(None, &mut connection, false).await;
    // The lock ends with the connection, however this went.
    let closed = connection.close().await;
    migrations::told(migrator, done)?;
    Ok(closed?)
}

const INSERT_ITEMS: Statement = Statement::new(
    "context_items.insert",
    "INSERT INTO context_items (context_id, sequence, role, metadata, size_bytes, created_at, content)
     SELECT $1, sequence, role, metadata, octet_length(content), created_at, content
     FROM UNNEST($2, $3, $4, $5, $6) AS item (sequence, role, metadata, created_at, content)",
);
const INDEX: Statement = Statement::new(
    "search_documents.insert",
    "INSERT INTO search_documents (context_id, sequence, words)
     SELECT $1, sequence, CAST(words AS TSVECTOR) FROM UNNEST($2, $3) AS document (sequence, words)",
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
    let (mut sequences, mut roles, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
    let (mut times, mut contents) = (Vec::new(), Vec::new());
    for item in items {
        sequences.push(item.sequence);
        roles.push(item.role);
        metadata.push(item.metadata);
        times.push(item.created_at);
        contents.push(item.content);
    }
    let call = INSERT_ITEMS
        .bind(context.0)
        .bind(sequences)
        .bind(roles)
        .bind(metadata);
    call.bind(times).bind(contents).execute(&mut **tx).await?;
    Ok(())
}

/// Lets a context's texts be found by their words.
pub(crate) async fn index(
    tx: &mut Transaction<'static, Db>,
    tenant: TenantId,
    context: ContextId,
    documents: &[(i64, &str)],
) -> Result<()> {
    let sequences: Vec<_> = documents.iter().map(|(sequence, _)| *sequence).collect();
    let words: Vec<_> = documents.iter().map(|(_, text)| vector(tenant, text)).collect();
    INDEX
        .bind(context.0)
        .bind(sequences)
        .bind(words)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Forgets the words of a context's name.
pub(crate) async fn unindex_name(tx: &mut Transaction<'static, Db>, context: ContextId) -> Result<()> {
    UNINDEX_NAME.bind(context.0).execute(&mut **tx).await?;
    Ok(())
}

/// A text as a `tsvector` literal, the tenant as a word that no text can hold. Quotes are safe: no word holds one.
fn vector(tenant: TenantId, text: &str) -> String {
    let mut out = format!("'t:{tenant}'");
    for (word, places) in places(text, MAX_PLACES) {
        // Writing to a string cannot fail.
        let _ = write!(out, " '{word}'");
        for (i, place) in places.into_iter().enumerate() {
            let _ = write!(out, "{}{}", if i == 0 { ':' } else { ',' }, place.min(LAST_PLACE));
        }
    }
    out
}

/// The tenant's word narrows the index's answer; it does not count for the rank.
pub(crate) const SEARCH: Statement = Statement::new(
    "contexts.search",
    "WITH query AS (SELECT CAST($1 AS TSQUERY) AS words, CAST('''t:' || $2 || '''' AS TSQUERY) AS tenant),
     hits AS (
         SELECT DISTINCT ON (d.context_id) d.context_id, d.sequence,
                CAST(ts_rank(d.words, query.words, 1) AS DOUBLE PRECISION) AS score
         FROM query CROSS JOIN search_documents d JOIN contexts c ON c.id = d.context_id
         WHERE d.words @@ (query.words && query.tenant)
         AND c.tenant_id = $2 AND (c.expires_at IS NULL OR c.expires_at > $3) AND c.updated_at >= $4
         AND ($5 IS NULL OR c.agent_id = $5) AND ($6 IS NULL OR c.session_id = $6)
         AND ($7 IS NULL OR c.kind = $7) AND ($8 IS NULL OR c.status = $8)
         ORDER BY d.context_id, score DESC, d.sequence
     ),
     best AS (SELECT * FROM hits ORDER BY score DESC, context_id DESC LIMIT $9)
     SELECT c.id, c.tenant_id, c.name, c.kind, c.agent_id, c.session_id, c.metadata, c.status, c.version, c.item_count,
            c.size_bytes, c.created_at, c.updated_at, c.expires_at, b.sequence, b.score, COALESCE(substr(i.content, 1, 262144), c.name) AS matched
     FROM best b JOIN contexts c ON c.id = b.context_id
     LEFT JOIN context_items i ON i.context_id = b.context_id AND i.sequence = b.sequence
     ORDER BY b.score DESC, b.context_id DESC",
);

/// The query as `tsquery` reads it. Quotes are safe: no word holds one.
pub(crate) fn query_text(query: &Query) -> String {
    let quoted = |phrase: &Vec<String>| {
        phrase
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" <-> ")
    };
    query
        .phrases
        .iter()
        .map(|phrase| format!("({})", quoted(phrase)))
        .collect::<Vec<_>>()
        .join(" & ")
}
