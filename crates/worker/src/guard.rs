//! Which addresses a tool's call may connect to.
//!
//! Tools are registered by tenants, so their URLs are input: without a guard, anyone who may register a tool could
//! read the network that the worker stands in. Names are resolved here, and only addresses that pass are handed to
//! the connector: what was checked is what is connected to, however often the name's records change.

use crate::metrics;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use url::{Host, Url};

/// Decides about addresses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    allow: Arc<[IpNet]>,
}

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is {}", self.describe())]
pub enum Refused {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// This machine.
    Loopback,
    /// RFC 1918 and RFC 4193.
    Private,
    /// This link.
    LinkLocal,
    /// RFC 6598: behind a carrier's NAT.
    Shared,
    /// A cloud's instance metadata.
    Metadata,
    /// A group.
    Multicast,
    /// For examples in texts.
    Documentation,
    /// For benchmarks.
    Benchmarking,
    /// Otherwise not part of the public Internet.
    Reserved,
}

impl Refused {
    /// The words of every reason there is.
    pub const WORDS: [&'static str; 10] = [
        Self::Unspecified.as_str(),
        Self::Loopback.as_str(),
        Self::Private.as_str(),
        Self::LinkLocal.as_str(),
        Self::Shared.as_str(),
        Self::Metadata.as_str(),
        Self::Multicast.as_str(),
        Self::Documentation.as_str(),
        Self::Benchmarking.as_str(),
        Self::Reserved.as_str(),
    ];

    /// The word in the metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link_local",
            Self::Shared => "shared",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Reserved => "reserved",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "a loopback address",
            Self::Private => "in a private network",
            Self::LinkLocal => "link-local",
            Self::Shared => "in the shared address space of carriers",
            Self::Metadata => "a cloud's metadata service",
            Self::Multicast => "a multicast group",
            Self::Documentation => "reserved for documentation",
            Self::Benchmarking => "reserved for benchmarks",
            Self::Reserved => "reserved",
        }
    }
}

impl Guard {
    /// A guard that lets pass, besides the public Internet, what lies in `allow`.
    pub fn new(allow: &[IpNet]) -> Self {
        Self { allow: allow.into() }
    }

    /// Checks one address. IPv6 addresses that stand for an IPv4 address are held to that one.
    ///
    /// # Errors
    /// What kind of address it is, when it is not allowed.
    pub fn check(&self, ip: IpAddr) -> Result<(), Refused> {
        let ip = ip.to_canonical();
        if self.allows(ip) {
            return Ok(());
        }
        match ip {
            IpAddr::V4(v4) => refusal_v4(v4).map_or(Ok(()), Err),
            IpAddr::V6(v6) => match embedded(v6) {
                Some(inside) => inside
                    .into_iter()
                    .flatten()
                    .try_for_each(|v4| self.check(v4.into())),
                None => refusal_v6(v6).map_or(Ok(()), Err),
            },
        }
    }

    /// Checks an address literal in a URL, which no resolver would see. Names pass: they are checked when resolved.
    ///
    /// # Errors
    /// As [`Guard::check`].
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        let checked = match url.host() {
            Some(Host::Ipv4(ip)) => self.check(ip.into()),
            Some(Host::Ipv6(ip)) => self.check(ip.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        };
        checked.inspect_err(|refused| report(url.host_str().unwrap_or_default(), *refused))
    }

    /// Metadata services hand out credentials: a wide network in the allow-list does not open them, only their very
    /// address does.
    fn allows(&self, ip: IpAddr) -> bool {
        let exact = is_metadata(ip);
        self.allow
            .iter()
            .any(|net| net.contains(&ip) && (!exact || net.prefix_len() == net.max_prefix_len()))
    }

    fn pick(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let mut refused = None;
        let mut allowed = found;
        allowed.retain(|address| {
            self.check(address.ip())
                .map_err(|why| refused = Some(why))
                .is_ok()
        });
        match refused {
            Some(why) if allowed.is_empty() => {
                report(host, why);
                Err(why)
            }
            _ => Ok(allowed),
        }
    }
}

fn report(host: &str, refused: Refused) {
    metrics::GUARD_REFUSALS.inc([refused.as_str()]);
    tracing::warn!(
        server.address = host,
        reason = refused.as_str(),
        "address refused"
    );
}

impl Resolve for Guard {
    /// Resolves with the system's resolver and keeps what is allowed; fails with [`Refused`] when nothing is left.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed = guard.pick(name.as_str(), found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), // AWS, Azure, Google and others
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure's wire server, in public address space
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), // Google
];

fn is_metadata(ip: IpAddr) -> bool {
    METADATA.contains(&ip)
}

/// Against IANA's registry of special-purpose addresses.
fn refusal_v4(ip: Ipv4Addr) -> Option<Refused> {
    if is_metadata(ip.into()) {
        return Some(Refused::Metadata);
    }
    match ip.octets() {
        [0, ..] => Some(Refused::Unspecified),
        [127, ..] => Some(Refused::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Refused::Private),
        [169, 254, ..] => Some(Refused::LinkLocal),
        [100, 64..=127, ..] => Some(Refused::Shared),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(Refused::Documentation),
        [198, 18..=19, ..] => Some(Refused::Benchmarking),
        [224..=239, ..] => Some(Refused::Multicast),
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Some(Refused::Reserved),
        _ => None,
    }
}

fn refusal_v6(ip: Ipv6Addr) -> Option<Refused> {
    if is_metadata(ip.into()) {
        return Some(Refused::Metadata);
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Refused::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Refused::Loopback),
        [0xfc00..=0xfdff, ..] => Some(Refused::Private),
        [0xfe80..=0xfeff, ..] => Some(Refused::LinkLocal), // and the deprecated site-local ones
        [0xff00..=0xffff, ..] => Some(Refused::Multicast),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(Refused::Documentation),
        [0x2001, 2, 0, ..] => Some(Refused::Benchmarking),
        [0x2001, 0..=0x1ff, ..] => Some(Refused::Reserved), // IETF protocol assignments
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Refused::Reserved),
    }
}

/// The IPv4 addresses that an IPv6 address leads to, where it does. (IPv4-mapped ones are canonical by now.)
fn embedded(ip: Ipv6Addr) -> Option<[Option<Ipv4Addr>; 2]> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible and IPv4-translated.
        [0, 0, 0, 0, 0, 0, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] => Some([v4(a, b), None]),
        // NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => Some([v4(a, b), None]),
        // 6to4.
        [0x2002, a, b, ..] => Some([v4(a, b), None]),
        // Teredo: the server, and the client obfuscated.
        [0x2001, 0, a, b, _, _, c, d] => Some([v4(a, b), v4(!c, !d)]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, ip: &str) -> Result<(), Refused> {
        guard.check(ip.parse().unwrap())
    }

    #[test]
    fn only_the_public_internet_passes() {
        let guard = Guard::new(&[]);
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(check(&guard, ip), Ok(()), "{ip}");
        }
    }

    #[test]
    fn everything_else_is_refused_by_its_kind() {
        let guard = Guard::new(&[]);
        for (ip, kind) in [
            ("0.0.0.0", Refused::Unspecified),
            ("0.1.2.3", Refused::Unspecified),
            ("::", Refused::Unspecified),
            ("127.0.0.1", Refused::Loopback),
            ("127.255.255.254", Refused::Loopback),
            ("::1", Refused::Loopback),
            ("10.0.0.0", Refused::Private),
            ("10.255.255.255", Refused::Private),
            ("172.16.0.1", Refused::Private),
            ("172.31.255.255", Refused::Private),
            ("192.168.1.1", Refused::Private),
            ("fc00::1", Refused::Private),
            ("fdff:ffff::1", Refused::Private),
            ("169.254.0.1", Refused::LinkLocal),
            ("fe80::1", Refused::LinkLocal),
            ("fec0::1", Refused::LinkLocal),
            ("100.64.0.1", Refused::Shared),
            ("100.127.255.255", Refused::Shared),
            ("169.254.169.254", Refused::Metadata),
            ("100.100.100.200", Refused::Metadata),
            ("192.0.0.192", Refused::Metadata),
            ("168.63.129.16", Refused::Metadata),
            ("fd00:ec2::254", Refused::Metadata),
            ("fd20:ce::254", Refused::Metadata),
            ("224.0.0.1", Refused::Multicast),
            ("239.255.255.255", Refused::Multicast),
            ("ff02::1", Refused::Multicast),
            ("192.0.2.1", Refused::Documentation),
            ("198.51.100.1", Refused::Documentation),
            ("203.0.113.1", Refused::Documentation),
            ("2001:db8::1", Refused::Documentation),
            ("3fff::1", Refused::Documentation),
            ("198.18.0.1", Refused::Benchmarking),
            ("198.19.255.255", Refused::Benchmarking),
            ("2001:2::1", Refused::Benchmarking),
            ("192.0.0.1", Refused::Reserved),
            ("192.88.99.1", Refused::Reserved),
            ("240.0.0.1", Refused::Reserved),
            ("255.255.255.255", Refused::Reserved),
            ("100::1", Refused::Reserved),
            ("2001:20::1", Refused::Reserved),
            ("64:ff9b:1::1", Refused::Reserved),
            ("5f00::1", Refused::Reserved),
            ("4000::1", Refused::Reserved),
            // One inside the other: mapped, compatible, translated, NAT64, 6to4, Teredo's server and client.
            ("::ffff:127.0.0.1", Refused::Loopback),
            ("::ffff:169.254.169.254", Refused::Metadata),
            ("::10.0.0.1", Refused::Private),
            ("::ffff:0:10.0.0.1", Refused::Private),
            ("64:ff9b::10.0.0.1", Refused::Private),
            ("64:ff9b::169.254.169.254", Refused::Metadata),
            ("2002:7f00:1::1", Refused::Loopback),
            ("2001:0:a00:1::f7f7:f7f7", Refused::Private),
            ("2001:0:808:808::80ff:fffe", Refused::Loopback),
        ] {
            assert_eq!(check(&guard, ip), Err(kind), "{ip}");
        }
    }

    #[test]
    fn the_allow_list_opens_what_it_names() {
        let nets = [
            "10.1.0.0/16",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "100.100.100.200/32",
            "fd00::/16",
        ];
        let guard = Guard::new(&nets.map(|net| net.parse().unwrap()));
        for ip in [
            "10.1.2.3",
            "127.0.0.1",
            "::ffff:10.1.2.3",
            "64:ff9b::10.1.2.3",
            "fd00::1",
            "100.100.100.200",
        ] {
            assert_eq!(check(&guard, ip), Ok(()), "{ip}");
        }
        for ip in [
            "10.2.0.1",
            "::1",
            "100.100.100.201",
            "169.254.169.254",
            "fd00:ec2::254",
        ] {
            assert!(check(&guard, ip).is_err(), "{ip}");
        }
    }

    #[test]
    fn odd_spellings_of_literals_are_seen_through() {
        let guard = Guard::new(&[]);
        for url in [
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "http://169.254.169.254./",
            "http://①②⑦.0.0.1/",
        ] {
            assert!(guard.check_url(&url.parse().unwrap()).is_err(), "{url}");
        }
        assert_eq!(
            guard.check_url(&"http://localhost/".parse().unwrap()),
            Ok(()),
            "names wait for the resolver"
        );
    }

    #[tokio::test]
    async fn names_resolve_to_allowed_addresses_only() {
        let error = Guard::new(&[])
            .resolve("localhost".parse().unwrap())
            .await
            .err()
            .unwrap();
        assert_eq!(error.downcast_ref(), Some(&Refused::Loopback));
        let guard = Guard::new(&["127.0.0.0/8".parse().unwrap()]);
        let found: Vec<_> = guard
            .resolve("localhost".parse().unwrap())
            .await
            .unwrap()
            .collect();
        assert!(
            found.iter().all(|address| address.ip() == Ipv4Addr::LOCALHOST),
            "{found:?}"
        );
        let mixed = vec!["10.0.0.1:0".parse().unwrap(), "8.8.8.8:0".parse().unwrap()];
        assert_eq!(
            Guard::new(&[]).pick("h", mixed),
            Ok(vec!["8.8.8.8:0".parse().unwrap()])
        );
    }
}
