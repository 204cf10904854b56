//! The real service over a fake rest-api: both eras of the protocol, and everything that is refused.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod confirm;
mod door;
mod eras;
mod fake;
mod resources;
mod rules;
mod sessions;
mod support;
mod tasks;
