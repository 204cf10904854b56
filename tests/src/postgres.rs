//! A PostgreSQL of a test's own, to be restarted.

use crate::process::free_port;
use anyhow::Context;
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use uuid::Uuid;

/// The server; stopped when dropped, its data removed.
pub struct Postgres {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Postgres {
    /// Starts one on new data; `None`, and a word about it, where there are no programs.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else {
            eprintln!("LEFT OUT: restart of PostgreSQL (no initdb in /usr/lib/postgresql or on the PATH)");
            return Ok(None);
        };
        let directory = std::env::temp_dir().join(format!("devops-mcp-postgres-{}", Uuid::now_v7().simple()));
        fs::create_dir_all(&directory)?;
        let mut server = Self {
            programs,
            directory,
            port: free_port(),
            child: None,
        };
        if let Some((user, group)) = account()? {
            chown(&server.directory, Some(user), Some(group))?;
        }
        let made = server
            .command("initdb")?
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .output()?;
        let said = String::from_utf8_lossy(&made.stderr);
        anyhow::ensure!(made.status.success(), "initdb failed: {}", said.trim());
        server.begin().await?;
        Ok(Some(server))
    }

    /// The address of its database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn begin(&mut self) -> anyhow::Result<()> {
        let port = self.port.to_string();
        let child = self
            .command("postgres")?
            .args(["-p", &port, "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting postgres")?;
        self.child = Some(child);
        let isready = self.programs.join("pg_isready");
        crate::wait_for("PostgreSQL to answer", async || {
            let mut asked = Command::new(&isready);
            asked.args(["-q", "-h", "127.0.0.1", "-p", &port]);
            asked.status().is_ok_and(|status| status.success()).then_some(())
        })
        .await
    }

    /// Stops it as an orderly restart does ("fast"): clients are disconnected, what was committed is kept.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("PostgreSQL does not run")?;
        signal("-INT", &child);
        tokio::task::spawn_blocking(move || child.wait()).await??;
        Ok(())
    }

    /// One of its programs, as the account that it runs as: PostgreSQL refuses root.
    fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.programs.join(program));
        command
            .arg("-D")
            .arg(self.directory.join("data"))
            .current_dir(&self.directory);
        if let Some((user, group)) = account()? {
            command.uid(user).gid(group);
        }
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGQUIT reaches its own processes, too, which SIGKILL would leave behind.
            signal("-QUIT", &child);
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Debian keeps them off the `PATH`, a directory a version.
fn programs() -> Option<PathBuf> {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let packaged = packaged.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<_> = packaged.collect();
    // The newest version first.
    all.sort_by(|a, b| b.cmp(a));
    all.extend(std::env::split_paths(&path));
    all.into_iter()
        .find(|bin: &PathBuf| Path::new(bin).join("initdb").is_file())
}

fn account() -> anyhow::Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |line: &str| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = users.lines().find_map(ids);
    found
        .context("PostgreSQL refuses to run as root and there is no user postgres")
        .map(Some)
}

/// What cannot be told has ended already.
fn signal(signal: &str, child: &Child) {
    let _ = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
}
