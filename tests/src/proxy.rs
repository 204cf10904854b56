//! A TCP proxy that stands before a server which a test must not stop, and loses it on demand.

use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// How the way to the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections are cut, new ones end at once.
    Cut,
    /// Nothing passes any more, and nothing ends.
    Silent,
}

/// The proxy; stops when dropped.
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Starts one on a free port of 127.0.0.1, before `upstream` (`host:port`).
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(upstream: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, upstream) = (listener.local_addr()?, upstream.to_owned());
        let (way, state) = watch::channel(Way::Open);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, upstream.clone(), state.clone()));
            }
        });
        Ok(Self { address, way, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loses the server: its connections break.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// Loses the server without a word.
    pub fn silence(&self) {
        self.way.send_replace(Way::Silent);
    }

    /// The server is back.
    pub fn restore(&self) {
        self.way.send_replace(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        self.cut();
    }
}

async fn pass(mut client: TcpStream, upstream: String, mut way: watch::Receiver<Way>) {
    let relay = async {
        if let Ok(mut server) = TcpStream::connect(&upstream).await {
            // Either side may end it.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    };
    let lost = tokio::select! {
        biased;
        // An error says that the proxy is gone.
        changed = way.wait_for(|way| *way != Way::Open) => changed.map_or(Way::Cut, |way| *way),
        () = relay => return,
    };
    if lost == Way::Silent {
        // Held open until the way is cut or open again.
        let _ = way.wait_for(|way| *way != Way::Silent).await;
    }
}
