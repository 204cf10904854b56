//! Lets containers reach a service that listens on 127.0.0.1: connections to the containers' gateway are passed on.
//!
//! Only this host's containers can reach that address, so that the services are no more open than before.

use anyhow::Context;
use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    thread,
};

/// Passes connections to `gateway:port` on to `127.0.0.1:port`, as long as this process lives.
///
/// # Errors
/// When that address cannot be listened on.
pub(super) fn forward(gateway: Ipv4Addr, port: u16) -> anyhow::Result<()> {
    let address = SocketAddrV4::new(gateway, port);
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    thread::spawn(move || {
        for client in listener.incoming().filter_map(Result::ok) {
            // A service that is down closes its callers' connections; they come again.
            thread::spawn(move || pass_on(&client, port).unwrap_or_default());
        }
    });
    Ok(())
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
