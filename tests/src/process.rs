//! One service as a process: its environment, its log, its end.

use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    net::TcpListener,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How long a service may take to become ready, on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A service's binary, beside this executable or one directory above it.
///
/// # Errors
/// When it has not been built, with the command that builds it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = env::current_exe()?;
    let candidates = here.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    for path in candidates {
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "{name} is not built: run `cargo build --workspace --bins` first (or `cargo xtask test`, which does)"
    )
}

/// A port that nobody listens on, and that is given out once. They come from below the range that outgoing
/// connections are given, in blocks of 100: whoever listens on a block's first port has the others to give, so that
/// test runs side by side do not give out the same ones.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    static BLOCKS: Mutex<Vec<(TcpListener, RangeInclusive<u16>)>> = Mutex::new(Vec::new());
    let listen = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok();
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let last = blocks.last_mut();
        if let Some(port) = last.and_then(|(_, ports)| ports.find(|port| listen(*port).is_some())) {
            return port;
        }
        let block = (20_000..30_000)
            .step_by(100)
            .find_map(|first| Some((listen(first)?, first + 1..=first + 99)));
        blocks.push(block.expect("a block of ports between 20000 and 30000"));
    }
}

/// A service that runs, or has run; killed when dropped.
pub struct Process {
    name: &'static str,
    binary: PathBuf,
    environment: BTreeMap<String, String>,
    directory: PathBuf,
    starts: u32,
    child: Option<Child>,
}

impl Process {
    /// A service that has yet to be started. Its environment is what is given here, and `PATH`.
    ///
    /// # Errors
    /// When it is not built.
    pub fn new(
        name: &'static str,
        directory: &Path,
        environment: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let binary = binary(name)?;
        Ok(Self {
            name,
            binary,
            environment,
            directory: directory.to_owned(),
            starts: 0,
            child: None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Another process of the same service, with `changes` to its environment, in a directory below.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn replica(&self, changes: &[(&str, String)]) -> anyhow::Result<Self> {
        let directory = self.directory.join(uuid::Uuid::now_v7().to_string());
        fs::create_dir_all(&directory)?;
        let mut replica = Self::new(self.name, &directory, self.environment.clone())?;
        for (name, value) in changes {
            replica.set(name, value);
        }
        Ok(replica)
    }

    /// What a variable is set to.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Changes one variable for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Where it writes standard output and error, of all its starts.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self
            .child
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))?
            .id())
    }

    /// The command, with environment and standard streams as for the service itself.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; with the end of its log.
    pub async fn start(&mut self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.starts += 1;
        let ready = self
            .directory
            .join(format!("{}.{}.ready", self.name, self.starts));
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let child = self
            .command()
            .env("DEVOPS_MCP__READY_FILE", &ready)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.child = Some(child);
        while !ready.exists() {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten())
            {
                bail!(
                    "{} ended with {status} while starting:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            if started.elapsed() > START {
                bail!(
                    "{} was not ready within {START:?}:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(started.elapsed())
    }

    /// Sends a signal by `kill`'s name for it, such as `-TERM`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.pid()?.to_string();
        let sent = Command::new("kill").args([signal, &pid]).status()?.success();
        anyhow::ensure!(sent, "{} does not take {signal}", self.name);
        Ok(())
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let name = self.name;
        let child = self
            .child
            .as_mut()
            .with_context(|| format!("{name} does not run"))?;
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            anyhow::ensure!(started.elapsed() < limit, "{name} did not end within {limit:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of what it has written, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // What a service wrote belongs beside the failure of the test that started it.
        if std::thread::panicking() {
            eprintln!("---- the end of {}'s log ----\n{}", self.name, self.log_tail());
        }
    }
}
