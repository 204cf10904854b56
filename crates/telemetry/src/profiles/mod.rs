//! Profiles of memory and CPU, in the format of pprof, with names resolved in the process.

pub mod cpu;
mod encode;
pub mod heap;
pub mod message;
mod symbols;

pub use encode::{Frame, Profile};

crate::metrics! {
    /// Profiles asked for: answered, refused because another was being taken, given up by the caller, or failed.
    pub static PROFILES: Counter["kind", "outcome"] = "profiles_total",
        known: &[&["heap", "allocs", "cpu", "tasks"], &["ok", "busy", "cancelled", "error"]];
}
