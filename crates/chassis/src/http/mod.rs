//! The HTTP server: the middleware stack around a service's routes, and the listener.

mod edge;
mod serve;
mod stack;

pub use edge::{BodyLimit, LargerBody};
pub use stack::{stack, stack_with};

pub(crate) use edge::EdgeLayer;
pub(crate) use serve::{Ending, serve};
