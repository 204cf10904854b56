//! What can go wrong in the database, as its callers need to tell it apart.

use super::outage::Loss;
use sqlx::{
    error::{DatabaseError, ErrorKind},
    migrate::MigrateError,
    sqlite::SqliteError,
};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such row for this tenant.
    #[error("not found")]
    NotFound,
    /// The name is taken.
    #[error("already exists")]
    Conflict,
    /// The row is not at the version that the caller expected.
    #[error("it is at version {current}")]
    VersionMismatch {
        /// The version it is at.
        current: i64,
    },
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// The context would grow beyond its limit.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The cursor is not one of ours.
    #[error("not a cursor of this listing")]
    BadCursor,
    /// Another has taken the execution over.
    #[error("the lease was lost")]
    LeaseLost,
    /// The database cannot be reached, is overloaded or took too long; worth a retry.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The connection broke while a change was on its way: it may have taken place.
    #[error("the database went away in the middle of a change, which may have taken place: {0}")]
    InDoubt(#[source] sqlx::Error),
    /// A migration of the schema failed, and was undone.
    #[error("migration {name} failed: {cause}")]
    Migration {
        /// Its version and what it is called, as its file is.
        name: String,
        /// Why.
        #[source]
        cause: sqlx::Error,
    },
    /// A defect: ours or the database's.
    #[error("database error: {0}")]
    Internal(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::RowNotFound => Self::NotFound,
            // What a row refers to is always the caller's tenant or something of it.
            E::Database(e) if e.kind() == ErrorKind::ForeignKeyViolation => Self::NotFound,
            E::Database(e) if e.kind() == ErrorKind::UniqueViolation => Self::Conflict,
            // No row holds U+0000, so whoever asks for one by such a text asks for none.
            E::Database(e) if e.code().as_deref() == Some("22021") => Self::NotFound,
            E::Database(e) if passes(e.as_ref()) => Self::Unavailable(error),
            // A proxy that accepts connections for a server that is gone breaks the protocol, not the connection.
            E::Io(_)
            | E::Tls(_)
            | E::Protocol(_)
            | E::PoolTimedOut
            | E::PoolClosed
            | E::WorkerCrashed
            | E::BeginFailed => Self::Unavailable(error),
            _ => Self::Internal(error),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => error.into(),
            other => Self::Internal(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}

impl StoreError {
    /// Something in the database that this version does not understand.
    pub(crate) fn decode(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(sqlx::Error::Decode(Box::new(source)))
    }

    /// Whether the database or we failed. The others are answers: a name that is taken is the caller's affair.
    pub(crate) const fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::InDoubt(_) | Self::Migration { .. } | Self::Internal(_)
        )
    }

    /// What became of a change, or of the `COMMIT` of many, that the database gave no answer to.
    pub(crate) fn of_change(error: sqlx::Error) -> Self {
        match Loss::of(&error) {
            Some(Loss::Connection) => Self::InDoubt(error),
            _ => error.into(),
        }
    }

    /// How the database was lost, if it was, and nothing took place.
    pub(crate) fn loss(&self) -> Option<Loss> {
        match self {
            Self::Unavailable(error) | Self::Migration { cause: error, .. } => Loss::of(error),
            _ => None,
        }
    }

    /// Whether somebody else held a lock for too long.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        let (Self::Unavailable(error) | Self::Migration { cause: error, .. }) = self else {
            return false;
        };
        error
            .as_database_error()
            .is_some_and(|e| e.code().as_deref() == Some("55P03"))
    }

    /// Whether the database undid the whole transaction in favour of another, so that it may simply run again.
    pub(crate) fn is_serialization(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(e)) = self else {
            return false;
        };
        // PostgreSQL's serialization failure and deadlock; SQLite's codes have no letters and fewer digits.
        matches!(e.code().as_deref(), Some("40001" | "40P01"))
    }
}

/// Whether an error says more about the moment than about the statement.
fn passes(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<SqliteError>().is_some() {
        // The low byte is the primary code: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
        return code
            .parse::<i32>()
            .is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14));
    }
    // Connection, rollback, resources, operator (statement timeout, shutdown), lock and idle timeouts; and a server that
    // only reads, as the other one does while the address moves to it.
    ["08", "40", "53", "57"]
        .iter()
        .any(|class| code.starts_with(class))
        || matches!(&*code, "55P03" | "25P03" | "25006")
}
