use super::{resolve, tls::Tls, unsent::Resend};
use crate::Host;
use anyhow::Context;
use http::Uri;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use telemetry::grpc::ClientLayer;
use tokio_rustls::rustls::pki_types::ServerName;
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
/// With `grpc.tls` it shows this service's certificate, and believes a server that has one of the CA for the host that
/// `url` names. It connects anew when the files change; calls that are on their way end on the connection they have.
///
/// # Errors
/// When `url` is no `http://host:port`, or no `https://host:port` where there is `grpc.tls`.
pub fn channel(
    host: &Host,
    peer: &'static str,
    url: &str,
    options: &ChannelOptions,
) -> anyhow::Result<GrpcChannel> {
    host.common.grpc.check_peer("the peer's url", url)?;
    let target = Target::new(url, options, host.tls.clone())?;
    let named = !is_fixed(&target.host);
    let channel = if named {
        let (channel, changes) = Channel::balance_channel(64);
        let every = options.resolve_every.max(options.connect_timeout);
        let resolved = resolve::keep_resolved(peer, target, changes, resolve::by_name_server);
        host.tasks.spawn_every("resolve a gRPC peer", every, resolved);
        channel
    } else if target.tls.is_some() {
        let (channel, changes) = Channel::balance_channel(64);
        let renewed = resolve::keep_renewed(target, changes);
        host.tasks.spawn("renew TLS to a gRPC peer", renewed);
        channel
    } else {
        target.endpoint(None).connect_lazy()
    };
    Ok(ClientLayer::new(peer).layer(Resend::new(channel, named)))
}

/// A peer, and how it is reached.
pub(super) struct Target {
    uri: Uri,
    /// The URL's host, without the brackets of an IPv6 address.
    host: String,
    pub(super) options: ChannelOptions,
    pub(super) tls: Option<Tls>,
}

impl Target {
    pub(super) fn new(url: &str, options: &ChannelOptions, tls: Option<Tls>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let host = uri.host().with_context(|| format!("{url} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if tls.is_some() {
            ServerName::try_from(host.as_str())
                .with_context(|| format!("{url}: no certificate can be for this host"))?;
        }
        Ok(Self {
            uri,
            host,
            options: options.clone(),
            tls,
        })
    }

    /// What a resolver is asked for.
    pub(super) fn host_and_port(&self) -> String {
        let default = if self.tls.is_some() { 443 } else { 80 };
        format!("{}:{}", self.host, self.uri.port_u16().unwrap_or(default))
    }

    /// One address of the peer, or whatever its name stands for.
    pub(super) fn endpoint(&self, address: Option<SocketAddr>) -> Endpoint {
        let options = &self.options;
        let endpoint = Endpoint::from(self.at(address))
            // With an address, too, the peer still sees the name that was meant.
            .origin(self.uri.clone())
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_keep_alive_interval(options.keep_alive)
            .keep_alive_timeout(options.keep_alive)
            .keep_alive_while_idle(true);
        let Some(tls) = &self.tls else {
            return endpoint;
        };
        let config = tls
            .client()
            .domain_name(&self.host)
            .timeout(options.connect_timeout);
        endpoint.clone().tls_config(config).unwrap_or_else(|error| {
            // Without it no https connection can be made: calls fail.
            tracing::error!(%error, host = self.host, "TLS cannot be used for a gRPC peer");
            endpoint
        })
    }

    fn at(&self, address: Option<SocketAddr>) -> Uri {
        let literal = address.and_then(|address| {
            Uri::builder()
                .scheme(self.uri.scheme_str().unwrap_or("http"))
                .authority(address.to_string())
                .path_and_query("/")
                .build()
                .ok()
        });
        literal.unwrap_or_else(|| self.uri.clone())
    }
}

/// Whether looking the name up again can bring nothing new.
fn is_fixed(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_are_not_resolved() {
        assert!(is_fixed("127.0.0.1") && is_fixed("::1") && is_fixed("localhost"));
        assert!(!is_fixed("rest-api") && !is_fixed("worker.devops-mcp.svc"));
    }
}
