//! The queue's moving parts: the executions table is the queue, these hand out what stands in it, keep what is handed
//! out, and tell who waits.

mod backlog;
mod hub;
mod lease;
pub mod report;
mod sweep;

pub use backlog::Backlog;
pub use hub::{Hub, Waiter};
pub use lease::{LeaseStream, Sent};
pub(crate) use sweep::sweep;
