//! Profiles of memory and CPU, in the format of pprof, with names resolved in the process.

mod encode;
pub mod message;

pub use encode::{Frame, Profile};
