//! The store on PostgreSQL 14 or later: for production, and for any number of replicas.

mod dialect;
mod inspect;
mod signals;
#[path = "../sql/mod.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "the SQL that both databases understand, typed for each"
)]
mod sql;
mod statistics;

pub(super) use dialect::connect;
