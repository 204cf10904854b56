//! The worker against real sockets: endpoints that answer, redirect, stall and break off.

mod runs;
mod service;
