//! Keeps a balanced channel at the addresses that a name has now, and at the newest TLS files.

use super::{channel::Target, tls::Changes};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::{sync::mpsc::Sender, time::Instant};
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

/// The members of a balanced channel.
struct Members {
    target: Target,
    changes: Sender<Change<Member, Endpoint>>,
    now: BTreeSet<Member>,
}

impl Members {
    /// Puts these in the place of those before; `false` when the channel is gone.
    async fn replace(&mut self, peer: &'static str, wanted: BTreeSet<Member>) -> bool {
        for (member, stays) in difference(&self.now, &wanted) {
            let sent = if stays {
                self.insert(member).await
            } else {
                self.changes.send(Change::Remove(member)).await.is_ok()
            };
            if !sent {
                return false;
            }
        }
        if self.now != wanted {
            tracing::debug!(peer, members = ?wanted, "gRPC peer's addresses changed");
        }
        self.now = wanted;
        true
    }

    /// Has every member connect anew. One that is inserted again takes its own place once it is connected.
    async fn renew(&self) -> bool {
        for member in &self.now {
            if !self.insert(*member).await {
                return false;
            }
        }
        true
    }

    async fn insert(&self, member: Member) -> bool {
        let address = match member {
            Member::Name => None,
            Member::Address(address) => Some(address),
        };
        let endpoint = self.target.endpoint(address);
        self.changes.send(Change::Insert(member, endpoint)).await.is_ok()
    }
}

/// Waits for new TLS files: forever without TLS.
async fn renewed(tls: &mut Option<Changes>) {
    match tls {
        Some(tls) => tls.next().await,
        None => std::future::pending().await,
    }
}

/// Has the channel to a fixed address connect anew when the TLS files change, until the channel is gone.
pub(super) async fn keep_renewed(target: Target, changes: Sender<Change<Member, Endpoint>>) {
    let mut tls = target.tls.as_ref().map(|tls| tls.changes());
    let members = Members {
        target,
        changes,
        now: BTreeSet::from([Member::Name]),
    };
    while members.renew().await {
        renewed(&mut tls).await;
    }
}

/// Looks the name up until the channel is gone. `look_up` is [`by_name_server`], but for tests.
pub(super) async fn keep_resolved<F>(
    peer: &'static str,
    target: Target,
    changes: Sender<Change<Member, Endpoint>>,
    look_up: impl Fn(String, Duration) -> F + Send,
) where
    F: Future<Output = Result<Vec<SocketAddr>, String>> + Send,
{
    let (name, options) = (target.host_and_port(), target.options.clone());
    let mut tls = target.tls.as_ref().map(|tls| tls.changes());
    let mut members = Members {
        target,
        changes,
        now: BTreeSet::new(),
    };
    let mut wanted = BTreeSet::from([Member::Name]);
    let mut failing = false;
    // The first look-up is made at once.
    let mut next = Instant::now();
    while members.replace(peer, wanted.clone()).await {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = renewed(&mut tls) => {
                if !members.renew().await {
                    return;
                }
                continue;
            }
        }
        let found = look_up(name.clone(), options.connect_timeout).await;
        next = Instant::now() + options.resolve_every;
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
                    tracing::warn!(peer, target = name, error, "cannot resolve a gRPC peer");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{
        ChannelOptions, Tls,
        authority::{Authority, Secret},
    };
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
            async move { crate::grpc::serve(listener, Routes::default(), &settings, None, stop).await }
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
        let target = Target::new("http://peer.invalid:50051", &options, None).expect("a URL");
        let (channel, changes) = Channel::balance_channel(8);
        tokio::spawn(keep_resolved("peer", target, changes, look_up));

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

    /// A server with a certificate for `peer.invalid`, its address, what it was mounted from and its CA.
    async fn secure_server(stop: CancellationToken) -> (SocketAddr, Tls, Secret, Authority) {
        let directory = std::env::temp_dir().join(format!("devops-mcp-resolve-{}", std::process::id()));
        let authority = Authority::new(&directory, "ca");
        let pair = authority.issue(&["peer.invalid"]);
        let secret = Secret::mount(directory.join("server"), &pair, authority.certificate());
        let settings = crate::settings::Tls {
            certificate: Some(secret.path("tls.crt")),
            key: Some(secret.path("tls.key")),
            ca: Some(secret.path("ca.crt")),
            ..Default::default()
        };
        let tls = Tls::open(&settings).await.expect("good files").expect("files");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let server = listener.local_addr().expect("bound");
        let serving = tls.clone();
        tokio::spawn(async move {
            let settings = crate::settings::Grpc::default();
            crate::grpc::serve(listener, Routes::default(), &settings, Some(serving), stop).await
        });
        (server, tls, secret, authority)
    }

    #[tokio::test]
    async fn addresses_of_a_name_are_believed_by_a_certificate_for_the_name() {
        let stop = CancellationToken::new();
        let (server, tls, secret, authority) = secure_server(stop.clone()).await;
        let channel_to = |url: &str| {
            let options = ChannelOptions::default();
            let target = Target::new(url, &options, Some(tls.clone())).expect("a URL");
            let (channel, changes) = Channel::balance_channel(8);
            let look_up = move |_, _| std::future::ready(Ok(vec![server]));
            tokio::spawn(keep_resolved("peer", target, changes, look_up));
            channel
        };
        let (right, wrong) = (
            channel_to("https://peer.invalid:50051"),
            channel_to("https://other.invalid:50051"),
        );
        // The first calls may be made while the name alone is known, which means nothing to anybody.
        let arrives = async || {
            let arrived = async {
                while call(&right).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), arrived).await
        };
        arrives().await.expect("the name stands in the certificate");
        let error = async {
            loop {
                let error = format!("{:?}", call(&wrong).await.expect_err("another's certificate"));
                if error.contains("NotValidForName") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), error)
            .await
            .expect("the address is asked");

        let pair = authority.issue(&["peer.invalid"]);
        secret.swap(&pair, authority.certificate());
        assert_eq!(tls.reload().await, Ok(true));
        for _ in 0..100 {
            call(&right).await.expect("with the new certificate");
        }
        stop.cancel();
        let _ = std::fs::remove_dir_all(secret.path("..").as_path());
    }

    async fn call(channel: &Channel) -> Result<http::Response<Body>, tonic::transport::Error> {
        let request = http::Request::post("http://peer/sample.Sample/Missing")
            .header("content-type", "application/grpc")
            .body(Body::empty())
            .expect("a good request");
        channel.clone().oneshot(request).await
    }
}
