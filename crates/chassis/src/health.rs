//! The sub-command `health`: asks the service that runs beside it whether it takes requests. For a container's health
//! check, since the images hold no other program that could ask.

use crate::{Settings, settings};
use anyhow::{Context as _, bail};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

/// For connecting, and again for the answer: below any time-out of a health check.
const PATIENCE: Duration = Duration::from_secs(2);
/// The report is short; whatever answers with more is not the service.
const MAX_ANSWER: u64 = 64 << 10;

/// Asks `/readyz` where the settings say that the service listens, and gives back the report.
///
/// # Errors
/// When the settings cannot be used, nobody answers there, or the answer is not 200.
pub fn health<S: Settings>(config: Option<&Path>) -> anyhow::Result<String> {
    let address = settings::load::<S>(config)?.common.http.address;
    ask(reachable(address)).with_context(|| format!("no word from {address}"))
}

/// Who listens everywhere is reached on the loopback interface.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, report) = answer.split_once("\r\n\r\n").context("that is no HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(report.to_owned()),
        _ => bail!("it is not ready: {report}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_nearby() {
        for (listens, reached) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            let listens: SocketAddr = listens.parse().expect("an address");
            assert_eq!(reachable(listens).to_string(), reached);
        }
    }
}
