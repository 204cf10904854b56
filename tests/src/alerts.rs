//! Where notifications arrive in tests, and the copies of rules and configurations that make them arrive soon.

pub mod notice;
mod promql;
pub mod scale;
pub mod sinks;
