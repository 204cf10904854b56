//! What can go wrong in the database, as its callers need to tell it apart.

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
    /// A defect: ours or the database's.
    #[error("database error: {0}")]
    Internal(#[source] sqlx::Error),
}
