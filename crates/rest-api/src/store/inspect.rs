//! What a database and the way to it tell somebody who looks for what is wrong.

use super::{Result, timings::TIMINGS};
use domain::Time;
use serde::{Deserialize, Serialize, Serializer};
use std::{collections::BTreeMap, time::Duration};

/// By what statements are ordered, the greatest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The mean duration.
    #[default]
    Mean,
    /// The duration of all calls together.
    Total,
    /// The longest duration.
    Max,
    /// How often it was called.
    Calls,
}

impl Order {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Total => "total",
            Self::Max => "max",
            Self::Calls => "calls",
        }
    }
}

/// Which statements are asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatementAsk {
    /// Only those whose mean duration is above this, milliseconds.
    pub min_mean_ms: f64,
    /// At most so many.
    pub limit: u32,
    /// Which come first.
    pub order: Order,
}

impl Default for StatementAsk {
    fn default() -> Self {
        Self {
            min_mean_ms: 100.0,
            limit: 20,
            order: Order::Mean,
        }
    }
}

/// What a statement has cost. Durations are milliseconds, as in PostgreSQL's `pg_stat_statements`.
#[derive(Clone, Debug, Serialize)]
pub struct StatementCost {
    /// The name that spans and metrics know it by; PostgreSQL does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    /// Its text, with placeholders for values and without comments.
    pub query: String,
    /// How often it ran.
    pub calls: u64,
    /// How long it took on average, milliseconds.
    #[serde(serialize_with = "to_microseconds")]
    pub mean_exec_time: f64,
    /// How long it took at most, milliseconds.
    #[serde(serialize_with = "to_microseconds")]
    pub max_exec_time: f64,
    /// How long all calls took, milliseconds.
    #[serde(serialize_with = "to_microseconds")]
    pub total_exec_time: f64,
    /// How many rows it gave or touched; the service does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How often it failed; PostgreSQL does not count those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
}

/// One run of a statement that took long.
#[derive(Clone, Debug, Serialize)]
pub struct SlowStatement {
    /// The statement's name.
    pub operation: &'static str,
    /// Its text, with placeholders for values.
    pub query: String,
    /// How long it took, with the wait for a connection, milliseconds.
    #[serde(serialize_with = "to_microseconds")]
    pub duration_ms: f64,
    /// When it ended.
    pub ended_at: Time,
    /// Whether it failed.
    pub failed: bool,
    /// The trace of the request that it ran for; none for what the service does by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Whether that trace was recorded.
    pub sampled: bool,
    /// The request that it ran for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What this process has timed itself.
#[derive(Clone, Debug, Serialize)]
pub struct OwnView {
    /// Since when.
    pub since: Option<Time>,
    /// The statements asked for.
    pub queries: Vec<StatementCost>,
}

/// What this process has timed itself.
pub fn own_view(ask: &StatementAsk) -> OwnView {
    OwnView {
        since: TIMINGS.since(),
        queries: TIMINGS.list(ask),
    }
}

/// The last statements of this process that took as long as [`slow_from`] or longer, newest first.
pub fn slow_statements() -> Vec<SlowStatement> {
    TIMINGS.slow()
}

/// From which duration on a statement is slow.
pub fn slow_from() -> Duration {
    TIMINGS.slow_from()
}

/// What the database has counted itself.
#[derive(Clone, Debug)]
pub enum DatabaseView {
    /// This kind of database keeps no count.
    NotKept,
    /// It would, but is not set up for it.
    NotReadable,
    /// The statements asked for.
    Read {
        /// When it began to count anew; `None` where it does not say.
        reset_at: Option<Time>,
        /// The statements.
        queries: Vec<StatementCost>,
    },
}

/// A pool of connections.
#[derive(Clone, Debug, Serialize)]
pub struct PoolReport {
    /// What it is for: `all`, or on SQLite `read` and `write`.
    pub name: &'static str,
    /// Open connections.
    pub size: u32,
    /// Those of them that wait for work.
    pub idle: u32,
    /// Those of them that work.
    pub in_use: u32,
    /// The most that there may be.
    pub max: u32,
    /// How many wait for a connection now.
    pub waiting: u64,
    /// How long connections were waited for.
    pub acquired: Acquired,
}

/// How long connections were waited for since the service started.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Acquired {
    /// How often one was given.
    pub count: u64,
    /// How often none was to be had in time.
    pub failed: u64,
    /// How long it took on average, milliseconds.
    #[serde(serialize_with = "to_microseconds")]
    pub mean_ms: f64,
    /// How long it took at most, milliseconds.
    #[serde(serialize_with = "to_microseconds")]
    pub max_ms: f64,
}

/// What the database says of itself.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum ServerReport {
    /// A PostgreSQL server.
    Postgres(Box<PostgresReport>),
    /// A SQLite file.
    Sqlite(SqliteReport),
}

/// What PostgreSQL says of itself, and of all connections of the services to this database.
#[derive(Clone, Debug, Serialize)]
pub struct PostgresReport {
    /// The server's version.
    pub version: String,
    /// Whether it is a replica, which takes no writes.
    pub is_replica: bool,
    /// Whether transactions may write nothing, as a rule.
    pub read_only: bool,
    /// When the server started.
    pub started_at: Option<Time>,
    /// The database's size, bytes.
    pub size_bytes: u64,
    /// The most connections that the server takes.
    pub max_connections: u64,
    /// The server's connections, of everybody and to every database.
    pub connections: u64,
    /// This database's connections of rest-api, of every replica, by state.
    pub own_connections: BTreeMap<String, u64>,
    /// The oldest of them, seconds.
    pub oldest_connection_seconds: Option<f64>,
    /// The longest transaction of them that is open, seconds.
    pub longest_transaction_seconds: Option<f64>,
    /// How many of them wait for a lock that another holds.
    pub waiting_for_locks: u64,
}

/// What SQLite says of its file.
#[derive(Clone, Debug, Serialize)]
pub struct SqliteReport {
    /// The library's version.
    pub version: String,
    /// `wal`, or `memory`.
    pub journal_mode: String,
    /// A page's size, bytes.
    pub page_size: u64,
    /// The file's pages.
    pub page_count: u64,
    /// Those of them that hold nothing.
    pub free_pages: u64,
    /// The file's size, bytes.
    pub size_bytes: u64,
    /// The write-ahead log's size, bytes; `None` for a database in memory.
    pub wal_bytes: Option<u64>,
}

/// The part of a store that tells of itself.
#[async_trait::async_trait]
pub trait InspectStore: Send + Sync {
    /// The statements that the database itself counted. Does not need a connection of the pool where there is a server.
    async fn database_view(&self, ask: &StatementAsk) -> Result<DatabaseView>;
    /// The pools of this process.
    fn pools(&self) -> Vec<PoolReport>;
    /// What the database says of itself. Does not need a connection of the pool where there is a server.
    async fn server(&self) -> Result<ServerReport>;
}

/// Milliseconds with three digits after the point: nobody reads more.
fn to_microseconds<S: Serializer>(millis: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((millis * 1e3).round() / 1e3)
}
