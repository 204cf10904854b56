//! Private servers on this host, from the installed programs: PostgreSQL, Redis, and what watches the services.

mod install;
pub(crate) mod monitoring;

pub(crate) use install::install;

use crate::process;
use anyhow::{Context, bail, ensure};
use rustix::process::{Signal, geteuid};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{OpenOptionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(15);

/// How to get the programs when they are absent.
pub(crate) const REMEDY: &str = "on Debian or Ubuntu: apt-get install postgresql redis-server";

/// A running server of ours; stopped by [`Server::stop`], and when dropped.
pub(crate) struct Server {
    /// What people call it, such as `PostgreSQL`.
    pub(crate) name: &'static str,
    /// The program's name as the system shows it.
    pub(crate) program: &'static str,
    /// Where it listens, credentials included.
    pub(crate) url: String,
    child: Child,
    how: Signal,
}

impl Server {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(process::ended)
    }

    /// Stops it: connections are cut, data is kept.
    pub(crate) fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        process::signal(self.pid(), self.how);
        if let Err(error) = process::wait_or_kill(&mut self.child, STOP, None) {
            eprintln!("warning: stopping {}: {error}", self.name);
        }
    }

    /// Waits until `ready`; an error shows the end of the log.
    fn wait(mut self, log: &Path, ready: impl Fn() -> bool) -> anyhow::Result<Self> {
        let deadline = Instant::now() + START;
        while !ready() {
            let ended = self.ended();
            if ended.is_some() || Instant::now() > deadline {
                let how = ended.unwrap_or_else(|| format!("was not ready within {} s", START.as_secs()));
                bail!(
                    "{} {how}; its log {} ends:\n{}",
                    self.name,
                    log.display(),
                    tail(log, 15)
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where PostgreSQL's server programs are: Debian keeps them off the `PATH`, a directory a version.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    let version = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
    };
    let packaged = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin/initdb").is_file())
        .max_by_key(version)
        .map(|path| path.join("bin"));
    packaged.or_else(|| Some(process::on_path("initdb")?.parent()?.to_path_buf()))
}

/// Where Redis's server program is.
pub(crate) fn redis_program() -> Option<PathBuf> {
    process::on_path("redis-server")
}

/// Starts PostgreSQL on data in `dir`, made at the first start. Only `durable` data survives a power cut.
pub(crate) fn postgres(dir: &Path, password: &str, durable: bool) -> anyhow::Result<Server> {
    let programs = postgres_programs().with_context(|| format!("PostgreSQL is not installed ({REMEDY})"))?;
    let account = Account::for_postgres()?;
    let dir = account.own_directory(dir)?;
    let data = dir.join("data");
    if !data.join("PG_VERSION").is_file() {
        create_cluster(&programs, &account, &dir, &data, password)?;
    }
    let port = free_port()?;
    let log = dir.join("postgres.log");
    let mut command = account.command(&programs.join("postgres"), &dir);
    command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
    let mut settings = vec![
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=300",
    ];
    // Statistics of statements, where the package has brought them.
    let statistics = has_statement_statistics(&programs);
    if statistics {
        settings.push("shared_preload_libraries=pg_stat_statements");
    }
    if !durable {
        settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    let child = spawn(&mut command, &log)?;
    let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
    // SIGINT is PostgreSQL's fast shutdown: clients are disconnected, everything is written.
    let server = Server {
        name: "PostgreSQL",
        program: "postgres",
        url,
        child,
        how: Signal::INT,
    };
    let server = server.wait(&log, || {
        let mut check = Command::new(programs.join("pg_isready"));
        check.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
        check.status().is_ok_and(|status| status.success())
    })?;
    if statistics {
        create_statement_statistics(&programs, port, password)?;
    }
    Ok(server)
}

/// Whether PostgreSQL's own additional modules are installed: Debian puts them beside the programs, others do not always
/// have them.
fn has_statement_statistics(programs: &Path) -> bool {
    ["../lib", "../lib/postgresql"]
        .iter()
        .any(|lib| programs.join(lib).join("pg_stat_statements.so").is_file())
}

/// Makes the extension in the database that there is, and in the template of those that tests make.
fn create_statement_statistics(programs: &Path, port: u16, password: &str) -> anyhow::Result<()> {
    for database in ["template1", "postgres"] {
        let output = Command::new(programs.join("psql"))
            .args(["-X", "-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["-U", "postgres", "-d", database])
            .args(["-c", "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"])
            .env("PGPASSWORD", password)
            .output()
            .context("starting psql")?;
        ensure!(
            output.status.success(),
            "the extension pg_stat_statements cannot be made: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Removes the data that [`postgres`] keeps for `dir`.
pub(crate) fn forget_postgres(dir: &Path) -> anyhow::Result<()> {
    if postgres_programs().is_some() && dir.is_dir() {
        remove(&Account::for_postgres()?.own_directory(dir)?.join("data"))?;
    }
    Ok(())
}

/// Removes a file or a directory that may not be there.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    let done = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn create_cluster(
    programs: &Path,
    account: &Account,
    dir: &Path,
    data: &Path,
    password: &str,
) -> anyhow::Result<()> {
    let file = dir.join("password");
    write_private(&file, password)?;
    account.own(&file)?;
    let output = account
        .command(&programs.join("initdb"), dir)
        .arg("-D")
        .arg(data)
        .args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ])
        .arg(format!("--pwfile={}", file.display()))
        .output()
        .context("starting initdb")?;
    fs::remove_file(&file)?;
    ensure!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Starts Redis, keeping nothing on disk.
pub(crate) fn redis(dir: &Path) -> anyhow::Result<Server> {
    let program = redis_program().with_context(|| format!("Redis is not installed ({REMEDY})"))?;
    fs::create_dir_all(dir)?;
    let port = free_port()?;
    let log = dir.join("redis.log");
    let mut command = Command::new(program);
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    command.arg("--dir").arg(dir).process_group(0);
    let child = spawn(&mut command, &log)?;
    let url = format!("redis://127.0.0.1:{port}");
    let server = Server {
        name: "Redis",
        program: "redis-server",
        url,
        child,
        how: Signal::TERM,
    };
    server.wait(&log, || redis_answers(port).unwrap_or(false))
}

fn redis_answers(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"+PONG")
}

fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    command
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))
}

/// Who PostgreSQL runs as: it refuses root.
struct Account(Option<(u32, u32)>);

impl Account {
    fn for_postgres() -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let ids = |line: &str| {
            let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        let found = users.lines().find_map(ids);
        Ok(Self(Some(found.context(
            "PostgreSQL refuses to run as root and there is no user `postgres`",
        )?)))
    }

    fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C in the terminal reaches us alone, and we stop it in order.
        command.current_dir(dir).process_group(0);
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }

    fn own(&self, path: &Path) -> anyhow::Result<()> {
        let Some((user, group)) = self.0 else {
            return Ok(());
        };
        chown(path, Some(user), Some(group)).with_context(|| format!("giving {} to postgres", path.display()))
    }

    /// Makes a directory that the account can use: `dir`, or, where the account may not walk there (root's
    /// home is closed to others), one under `/var/tmp` that belongs to it alone.
    fn own_directory(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut dir = dir.canonicalize()?;
        if self.0.is_some() && !dir.ancestors().skip(1).all(open_to_others) {
            let name = dir.to_string_lossy().replace('/', "-");
            dir = Path::new("/var/tmp").join(format!("devops-mcp{name}"));
            fs::create_dir_all(&dir)?;
        }
        self.own(&dir)?;
        Ok(dir)
    }
}

fn open_to_others(dir: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let _absent = fs::remove_file(path); // the mode counts only for a new file
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

/// A port that nobody listens on at this moment.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The last lines of a log, or nothing.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Servers for one run of the tests, in a directory that goes with them.
pub(crate) struct ForTests {
    servers: Vec<Server>,
    dir: PathBuf,
}

impl ForTests {
    /// Nothing started yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("devops-mcp-test-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self {
            servers: Vec::new(),
            dir,
        })
    }

    /// Starts PostgreSQL without durability and gives its URL.
    pub(crate) fn postgres(&mut self) -> anyhow::Result<String> {
        self.keep(postgres(&self.dir.join("postgres"), "test", false))
    }

    /// Starts PostgreSQL as it would run in production, for measurements, and gives its URL.
    pub(crate) fn durable_postgres(&mut self) -> anyhow::Result<String> {
        self.keep(postgres(&self.dir.join("postgres"), "test", true))
    }

    /// Starts Redis and gives its URL.
    pub(crate) fn redis(&mut self) -> anyhow::Result<String> {
        self.keep(redis(&self.dir.join("redis")))
    }

    fn keep(&mut self, server: anyhow::Result<Server>) -> anyhow::Result<String> {
        let server = server?;
        let url = server.url.clone();
        self.servers.push(server);
        Ok(url)
    }
}

impl Drop for ForTests {
    fn drop(&mut self) {
        self.servers.clear();
        let _left = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends for want of the programs where they are not installed.
    #[test]
    fn starts_and_stops_what_is_installed() -> anyhow::Result<()> {
        let mut servers = ForTests::new()?;
        if postgres_programs().is_some() {
            let url = servers.postgres()?;
            assert!(url.starts_with("postgres://postgres:test@127.0.0.1:"), "{url}");
        }
        if redis_program().is_some() {
            servers.redis()?;
        }
        let pids: Vec<u32> = servers.servers.iter().map(Server::pid).collect();
        let dir = servers.dir.clone();
        assert!(pids.iter().all(|pid| process::alive(*pid)));
        drop(servers);
        assert!(!pids.iter().any(|pid| process::alive(*pid)));
        assert!(!dir.exists());
        Ok(())
    }
}
