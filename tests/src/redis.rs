//! A Redis of a test's own, to be lost and to come back.

use std::{
    env,
    process::{Child, Command, Stdio},
};

/// The server; killed when dropped.
pub struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    /// Starts one; `None`, and a word about it, where there is no program.
    pub fn start(port: u16) -> Option<Self> {
        let program = env::var("TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn();
        if child.is_err() {
            eprintln!("LEFT OUT: loss of Redis (no redis-server on the PATH and no TEST_REDIS_SERVER)");
        }
        child.ok().map(|child| Self { port, child })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
