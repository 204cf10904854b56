//! Layers for gRPC, around tonic's server and around its channel.
//!
//! A call's status is in the headers only when it failed at once; otherwise it comes in the trailers. Both layers
//! therefore follow the response's body to its end. Metadata is never recorded: it holds credentials.

mod body;
mod call;
mod client;
mod server;
#[cfg(test)]
pub(crate) mod tests;

pub use body::Metered;
pub use client::{Client, ClientLayer};
pub use server::{Server, ServerLayer};
