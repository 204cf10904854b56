//! gRPC between the services: the server, the channels of clients, TLS for both, and the credentials that calls carry.

mod channel;
mod credentials;
mod resolve;
mod serve;
mod tls;
mod unsent;

pub use channel::{ChannelOptions, GrpcChannel, channel};
pub use credentials::{bearer, require_service_token, with_bearer};

pub(crate) use serve::serve;
pub(crate) use tls::Tls;

/// The largest message either way, in bytes. It is tonic's default for what is decoded; whoever makes pages cuts them below it.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

#[cfg(test)]
#[path = "../../tests/authority/mod.rs"]
#[expect(dead_code, reason = "tests/tls.rs uses all of it")]
mod authority;
