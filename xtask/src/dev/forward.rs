//! Lets containers reach a service that listens on 127.0.0.1: connections to the containers' gateway are passed on.
//!
//! Only this host and its containers are served, so that the services are no more open than before. That the address is
//! the gateway's does not see to it: Linux takes packets to any of its addresses on any of its interfaces, so a
//! neighbour in the local network who sends them here would be heard.

use crate::stack::docker::{docker, said};
use anyhow::Context;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// How long the engine's networks are taken as they were, at least: asking takes it a moment.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// Passes connections to `gateway:port` on to `127.0.0.1:port`, as long as this process lives.
///
/// # Errors
/// When that address cannot be listened on.
pub(super) fn forward(gateway: Ipv4Addr, port: u16) -> anyhow::Result<()> {
    let address = SocketAddrV4::new(gateway, port);
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    thread::spawn(move || {
        let mut networks = Networks::default();
        for client in listener.incoming().filter_map(Result::ok) {
            if !client.peer_addr().is_ok_and(|peer| networks.serve(peer.ip())) {
                continue;
            }
            // A service that is down closes its callers' connections; they come again.
            thread::spawn(move || pass_on(&client, port).unwrap_or_default());
        }
    });
    Ok(())
}

/// The containers' networks, as the engine told them last: they come and go.
#[derive(Default)]
struct Networks {
    known: Vec<Network>,
    asked: Option<Instant>,
}

impl Networks {
    /// Whether who calls from `peer` is on this host, or a container's.
    fn serve(&mut self, peer: IpAddr) -> bool {
        let IpAddr::V4(peer) = peer else { return false };
        if peer.is_loopback() || self.hold(peer) {
            return true;
        }
        if self.asked.is_some_and(|asked| asked.elapsed() < ASKED_EVERY) {
            return false;
        }
        // An engine that does not answer has no containers that could call.
        self.known = networks().unwrap_or_default();
        self.asked = Some(Instant::now());
        self.hold(peer)
    }

    fn hold(&self, peer: Ipv4Addr) -> bool {
        self.known.iter().any(|network| network.holds(peer))
    }
}

/// An address and the length of its prefix.
struct Network(Ipv4Addr, u32);

impl Network {
    /// `172.17.0.0/16`; None for IPv6.
    fn of(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let length = length.parse().ok().filter(|length| (1..=32).contains(length))?;
        Some(Self(address.parse().ok()?, length))
    }

    fn holds(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.0.to_bits()) >> (32 - self.1) == 0
    }
}

/// Of all networks that are bridges on this host.
fn networks() -> anyhow::Result<Vec<Network>> {
    let ids = said(&mut docker(&[
        "network",
        "ls",
        "--quiet",
        "--filter",
        "driver=bridge",
    ]))?;
    let template = "{{range .IPAM.Config}}{{.Subnet}} {{end}}";
    let mut inspect = docker(&["network", "inspect", "--format", template]);
    let told = said(inspect.args(ids.split_whitespace()))?;
    Ok(told.split_whitespace().filter_map(Network::of).collect())
}

fn pass_on(client: &TcpStream, port: u16) -> io::Result<()> {
    let service = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (from, to) = (client.try_clone()?, service.try_clone()?);
    let there = thread::spawn(move || copy(&from, &to));
    let back = copy(&service, client);
    there.join().unwrap_or(Ok(()))?;
    back
}

/// Copies until the end, and hands the end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    let _gone = to.shutdown(Shutdown::Write);
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn containers_are_told_from_neighbours() {
        let networks = ["172.17.0.0/16", "fd00::/64", "192.168.16.0/20", "10.0.0.0/0"];
        let mut networks = Networks {
            known: networks.into_iter().filter_map(Network::of).collect(),
            asked: Some(Instant::now()),
        };
        for (peer, served) in [
            ("127.0.0.1", true),
            ("172.17.0.1", true),
            ("192.168.31.255", true),
            ("172.18.0.2", false),
            ("192.168.15.9", false),
            ("192.168.32.9", false),
            ("10.1.2.3", false),
            ("fd00::2", false),
        ] {
            let address = peer.parse().expect("an address");
            assert_eq!(networks.serve(address), served, "{peer}");
        }
    }

    #[test]
    fn passes_both_ways_on() -> anyhow::Result<()> {
        let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = service.local_addr()?.port();
        // Any address of the loopback network will do for a gateway.
        let gateway = Ipv4Addr::new(127, 0, 0, 2);
        forward(gateway, port)?;
        let mut client = TcpStream::connect((gateway, port))?;
        let (mut inside, _) = service.accept()?;
        client.write_all(b"GET")?;
        client.shutdown(Shutdown::Write)?;
        let (mut asked, mut answered) = (String::new(), String::new());
        inside.read_to_string(&mut asked)?;
        inside.write_all(b"200")?;
        drop(inside);
        client.read_to_string(&mut answered)?;
        assert_eq!((asked.as_str(), answered.as_str()), ("GET", "200"));
        Ok(())
    }
}
