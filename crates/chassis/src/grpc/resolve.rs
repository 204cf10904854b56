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

/// Looks the name up until the channel is gone.
pub(super) async fn keep_resolved(
    peer: &'static str,
    uri: Uri,
    options: ChannelOptions,
    changes: Sender<Change<Member, Endpoint>>,
) {
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
            members = wanted.clone();
        }
        // The first look-up is made at once.
        if wanted != BTreeSet::from([Member::Name]) || failing {
            tokio::time::sleep(options.resolve_every).await;
        }
        match look_up(&target, options.connect_timeout).await {
            Ok(found) => {
                failing = false;
                wanted = found;
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

async fn look_up(target: &str, limit: Duration) -> Result<BTreeSet<Member>, String> {
    let found = tokio::time::timeout(limit, tokio::net::lookup_host(target)).await;
    let found = found
        .map_err(|_| "the name server does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let members: BTreeSet<_> = found.map(Member::Address).collect();
    if members.is_empty() {
        Err("the name has no address".into())
    } else {
        Ok(members)
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

    #[test]
    fn an_address_is_dialled_under_the_peers_name() {
        let uri: Uri = "http://rest-api:50051".parse().expect("a URL");
        let endpoint = at(address(7), &uri, &ChannelOptions::default());
        assert_eq!(
            endpoint.uri().authority().map(|authority| authority.as_str()),
            Some("10.0.0.7:50051")
        );
    }
}
