//! The worker against real sockets: endpoints that answer, redirect, stall and break off.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod documents;
mod fake;
mod hostile;
mod mcp;
mod queue;
mod runs;
mod service;
mod support;
