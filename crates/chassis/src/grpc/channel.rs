use super::{resolve, unsent::Resend};
use crate::Host;
use anyhow::{Context, ensure};
use http::Uri;
use std::{net::IpAddr, time::Duration};
use telemetry::grpc::ClientLayer;
use tonic::transport::{Channel, Endpoint};
use tower::Layer;

/// A channel whose calls are traced and counted. Cheap to clone; give it to the generated clients' `new`.
pub type GrpcChannel = <ClientLayer as Layer<Resend>>::Service;

/// How a channel behaves. Deadlines of calls are the callers'.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How often a silent connection is asked whether it is still there; an answer may take as long again.
    pub keep_alive: Duration,
    /// How often a name's addresses are looked up again.
    pub resolve_every: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(10),
            resolve_every: Duration::from_secs(3),
        }
    }
}

/// A channel to `url`, named `peer` in metrics and traces. It connects with the first call, and again whenever needed:
/// the peer may be away now. Calls fail with `UNAVAILABLE` while it is.
///
/// A name is resolved again and again and the calls are balanced over all its addresses, because tonic alone would keep
/// to those of the first look-up; a literal address or `localhost` needs none of that. Call it inside of the runtime.
///
/// # Errors
/// When `url` is no `http://host:port`.
pub fn channel(
    host: &Host,
    peer: &'static str,
    url: &str,
    options: &ChannelOptions,
) -> anyhow::Result<GrpcChannel> {
    let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    ensure!(
        uri.scheme_str() == Some("http"),
        "{url}: expected http://host:port"
    );
    let name = uri.host().with_context(|| format!("{url} names no host"))?;
    let channel = if is_fixed(name) {
        endpoint(&uri, options).connect_lazy()
    } else {
        let (channel, changes) = Channel::balance_channel(64);
        let resolved = resolve::keep_resolved(peer, uri, options.clone(), changes, resolve::by_name_server);
        let every = options.resolve_every.max(options.connect_timeout);
        host.tasks.spawn_every("resolve a gRPC peer", every, resolved);
        channel
    };
    Ok(ClientLayer::new(peer).layer(Resend(channel)))
}

/// One address of the peer. What TLS needs will be set here and nowhere else.
pub(super) fn endpoint(uri: &Uri, options: &ChannelOptions) -> Endpoint {
    Endpoint::from(uri.clone())
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .http2_keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive)
        .keep_alive_while_idle(true)
}

/// Whether looking the name up again can bring nothing new.
fn is_fixed(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_are_not_resolved() {
        assert!(is_fixed("127.0.0.1") && is_fixed("[::1]") && is_fixed("localhost"));
        assert!(!is_fixed("rest-api") && !is_fixed("worker.devops-mcp.svc"));
    }
}
