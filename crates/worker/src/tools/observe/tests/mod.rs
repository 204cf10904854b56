//! What all of the tools have in common: they keep tenants apart and endure bad sources.

pub(crate) mod databases;
pub(crate) mod endures;
mod isolation;
mod metrics_live;
pub(crate) mod testing;
