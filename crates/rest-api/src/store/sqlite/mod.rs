//! The store on SQLite: embedded, one file, any number of readers beside one writer.

mod dialect;
mod inspect;
#[path = "../sql/mod.rs"]
mod sql;
mod statistics;

pub(super) use dialect::connect;
