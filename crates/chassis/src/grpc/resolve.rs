//! Keeps a balanced channel at the addresses that a name has now.

use super::{ChannelOptions, channel::endpoint};
use http::Uri;
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::sync::mpsc::Sender;
use tonic::transport::{Endpoint, channel::Change};

/// What a balanced channel holds: the name itself until it was resolved, then its addresses.
///
/// The name stands in because a balanced channel without members would keep calls waiting; through it they fail fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Member {
    Name,
    Address(SocketAddr),
}

/// What the name servers say about `host:port`.
pub(super) async fn by_name_server(target: String, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::time::timeout(limit, tokio::net::lookup_host(target)).await;
    let found = found.map_err(|_| "the name server does not answer".to_owned())?;
    Ok(found.map_err(|error| error.to_string())?.collect())
}

/// Looks the name up until the channel is gone. `look_up` is [`by_name_server`], but for tests.
pub(super) async fn keep_resolved<F>(
    peer: &'static str,
    uri: Uri,
    options: ChannelOptions,
    changes: Sender<Change<Member, Endpoint>>,
    look_up: impl Fn(String, Duration) -> F + Send,
) where
    F: Future<Output = Result<Vec<SocketAddr>, String>> + Send,
{
    let target = format!(
        "{}:{}",
        uri.host().unwrap_or_default(),
        uri.port_u16().unwrap_or(80)
    );
    let mut members = BTreeSet::new();
    let mut wanted = BTreeSet::from([Member::Name]);
    let mut failing = false;
    loop {
        for (member, stays) in difference(&members, &wanted) {
            let change = if stays {
                Change::Insert(member, at(member, &uri, &options))
            } else {
                Change::Remove(member)
            };
            if changes.send(change).await.is_err() {
                return;
            }
        }
        if members != wanted {
            tracing::debug!(peer, members = ?wanted, "gRPC peer's addresses changed");
        }
        // The first look-up is made at once.
        if !members.is_empty() {
            tokio::time::sleep(options.resolve_every).await;
        }
        members.clone_from(&wanted);
        let found = look_up(target.clone(), options.connect_timeout).await;
        match found.and_then(|found| {
            if found.is_empty() {
                Err("it has no address".into())
            } else {
                Ok(found)
            }
        }) {
            Ok(found) => {
                failing = false;
                wanted = found.into_iter().map(Member::Address).collect();
            }
            // What was known is better than nothing: name servers have their bad moments.
            Err(error) => {
                if !failing {
                    tracing::warn!(peer, target, error, "cannot resolve a gRPC peer");
                }
                failing = true;
            }
        }
    }
}

/// What to insert (`true`) and then what to remove (`false`): in this order the channel is never empty.
fn difference(now: &BTreeSet<Member>, wanted: &BTreeSet<Member>) -> Vec<(Member, bool)> {
    let new = wanted.difference(now).map(|member| (*member, true));
    new.chain(now.difference(wanted).map(|member| (*member, false)))
        .collect()
}

fn at(member: Member, uri: &Uri, options: &ChannelOptions) -> Endpoint {
    let Member::Address(address) = member else {
        return endpoint(uri, options);
    };
    let literal = Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("/")
        .build();
    match literal {
        // The peer still sees the name that was meant.
        Ok(literal) => endpoint(&literal, options).origin(uri.clone()),
        Err(_) => endpoint(uri, options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    use tokio_util::sync::CancellationToken;
    use tonic::{body::Body, service::Routes, transport::Channel};
    use tower::ServiceExt;

    fn address(last: u8) -> Member {
        Member::Address(SocketAddr::from(([10, 0, 0, last], 50051)))
    }

    #[test]
    fn new_addresses_come_before_old_ones_go() {
        let now = BTreeSet::from([Member::Name, address(1)]);
        let wanted = BTreeSet::from([address(1), address(2)]);
        assert_eq!(
            difference(&now, &wanted),
            [(address(2), true), (Member::Name, false)]
        );
        assert!(difference(&wanted, &wanted).is_empty());
    }

    #[tokio::test]
    async fn calls_fail_fast_until_the_name_resolves_and_then_arrive() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let server = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let settings = crate::settings::Grpc::default();
        tokio::spawn({
            let stop = stop.clone();
            async move { crate::grpc::serve(listener, Routes::default(), &settings, stop).await }
        });
        let known = Arc::new(AtomicBool::new(false));
        let look_up = {
            let known = known.clone();
            move |target: String, _| {
                assert_eq!(target, "peer.invalid:50051");
                let known = known.load(Ordering::SeqCst);
                std::future::ready(if known {
                    Ok(vec![server])
                } else {
                    Err("not yet".into())
                })
            }
        };
        let options = ChannelOptions {
            resolve_every: Duration::from_millis(20),
            ..ChannelOptions::default()
        };
        let uri: Uri = "http://peer.invalid:50051".parse().expect("a URL");
        let (channel, changes) = Channel::balance_channel(8);
        tokio::spawn(keep_resolved("peer", uri, options, changes, look_up));

        assert!(call(&channel).await.is_err(), "a name without address");
        known.store(true, Ordering::SeqCst);
        let arrived = async {
            loop {
                if let Ok(response) = call(&channel).await {
                    return tonic::Status::from_header_map(response.headers())
                        .expect("a gRPC answer")
                        .code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let code = tokio::time::timeout(Duration::from_secs(60), arrived)
            .await
            .expect("resolved soon");
        assert_eq!(code, tonic::Code::Unimplemented);
        stop.cancel();
    }

    async fn call(channel: &Channel) -> Result<http::Response<Body>, tonic::transport::Error> {
        let request = http::Request::post("http://peer/sample.Sample/Missing")
            .header("content-type", "application/grpc")
            .body(Body::empty())
            .expect("a good request");
        channel.clone().oneshot(request).await
    }
}
