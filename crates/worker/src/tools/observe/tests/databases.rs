//! For tests: databases that misbehave, and real ones where their programs are installed.

use super::testing::{call, settings};
use crate::{
    outcome::{Code, Failure},
    sources::{Kind, Sources},
    tools::built_in::BuiltIn,
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use telemetry::tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// What a server does after it got the first bytes of a client.
#[derive(Clone, Copy)]
enum Manner {
    /// Nothing, until the client leaves.
    Silent,
    /// It writes these again and again, after those.
    Endless(&'static [u8], &'static [u8]),
    /// It says this and hangs up.
    Abrupt(&'static [u8]),
}

/// Starts a server; tells `asked` and `left`.
async fn start(manner: Manner) -> (u16, mpsc::UnboundedReceiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::unbounded_channel();
    tasks::spawn("database", async move {
        while let Ok((client, _)) = listener.accept().await {
            tasks::spawn("client", serve(client, manner, tell.clone()));
        }
    });
    (port, told)
}

async fn serve(mut client: TcpStream, manner: Manner, tell: mpsc::UnboundedSender<&'static str>) {
    let mut bytes = [0; 1024];
    let _ = client.read(&mut bytes).await;
    let _ = tell.send("asked");
    match manner {
        Manner::Abrupt(last) => drop(client.write_all(last).await),
        Manner::Silent => while client.read(&mut bytes).await.is_ok_and(|read| read > 0) {},
        Manner::Endless(first, again) => {
            let again = again.repeat(4096);
            if client.write_all(first).await.is_ok() {
                while client.write_all(&again).await.is_ok() {}
            }
        }
    }
    let _ = tell.send("left");
}

/// A source of this kind at an address whose port is `PORT`.
fn sources(kind: Kind, url: &str, port: u16) -> Sources {
    let url = url.replace("PORT", &port.to_string());
    let mut settings = settings([("db", kind, &url)]);
    settings.values_mut().for_each(|source| source.grants.clear());
    Sources::new(&settings, "tests").unwrap()
}

/// What must hold of each tool over a database, whatever happens to that. `endless`: an answer without an end.
pub(crate) async fn bears_its_source<B: BuiltIn>(
    kind: Kind,
    url: &str,
    endless: (&'static [u8], &'static [u8]),
) {
    let (port, _told) = start(Manner::Endless(endless.0, endless.1)).await;
    let failure = call::<B>(&sources(kind, url, port), json!({})).await.unwrap_err();
    assert_eq!(failure.code, Code::ResponseTooLarge, "{failure}");

    let away = sources(kind, url, 1);
    let failure = call::<B>(&away, json!({})).await.unwrap_err();
    assert_eq!(failure.code, Code::SourceUnavailable, "{failure}");
    for (wrong, code) in [
        (json!({ "source": "nowhere" }), Code::UnknownSource),
        (json!({ "surprise": 1 }), Code::InvalidArguments),
    ] {
        assert_eq!(call::<B>(&away, wrong).await.unwrap_err().code, code);
    }

    let failure = hung_up_on::<B>(kind, url, b"").await;
    assert_eq!(failure.code, Code::SourceUnavailable, "{failure}");

    let (port, _told) = start(Manner::Silent).await;
    let silent = sources(kind, url, port);
    let failure = call::<B>(&silent, json!({})).await.unwrap_err();
    assert_eq!(failure.code, Code::Timeout, "{failure}");

    let (port, mut told) = start(Manner::Silent).await;
    let silent = sources(kind, url, port);
    tokio::select! {
        _ = call::<B>(&silent, json!({})) => panic!("nothing was answered"),
        asked = told.recv() => assert_eq!(asked, Some("asked")), // the call is dropped here
    }
    let left = tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
    assert_eq!(left, Ok(Some("left")));
}

/// How a call fails whose server says this and hangs up.
pub(crate) async fn hung_up_on<B: BuiltIn>(kind: Kind, url: &str, last: &'static [u8]) -> Failure {
    let (port, _told) = start(Manner::Abrupt(last)).await;
    call::<B>(&sources(kind, url, port), json!({})).await.unwrap_err()
}

/// A real server; stopped when dropped, its data removed.
pub(crate) struct Server {
    child: Child,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT reaches PostgreSQL's own processes, too.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.child.wait();
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn answers(port: u16) {
    let answers = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answers)
        .await
        .expect("the server answers within a minute");
}

/// A Redis with this password; `None`, and a word about it, where there is no program.
pub(crate) async fn redis(password: &str) -> Option<Server> {
    let port = free_port();
    let program = std::env::var("TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let mut command = Command::new(program);
    let settings =
        format!("--port {port} --bind 127.0.0.1 --requirepass {password} --slowlog-log-slower-than 0");
    command
        .args(settings.split(' '))
        .args(["--save", ""])
        .stdout(Stdio::null());
    let Ok(child) = command.spawn() else {
        eprintln!("LEFT OUT: a real Redis (no redis-server on the PATH and no TEST_REDIS_SERVER)");
        return None;
    };
    answers(port).await;
    Some(Server {
        child,
        directory: None,
        port,
    })
}

/// A PostgreSQL with pg_stat_statements, a certificate for 127.0.0.1 that nobody signed, and a user `postgres` who needs
/// the password `secret`; `None`, and a word about it, where there are no programs.
pub(crate) async fn postgres() -> Option<Server> {
    let Some((programs, account)) = programs().zip(account()) else {
        eprintln!("LEFT OUT: a real PostgreSQL (no initdb in /usr/lib/postgresql, or no account for it)");
        return None;
    };
    let directory = std::env::temp_dir().join(format!("devops-mcp-worker-{}", uuid::Uuid::now_v7().simple()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("password"), "secret").unwrap();
    certify(&directory);
    for name in ["", "password", "cert.pem", "key.pem"] {
        own(&directory.join(name), account);
    }
    let run = |program: &str, arguments: &str| {
        let mut command = Command::new(programs.join(program));
        command
            .arg("-D")
            .arg(directory.join("data"))
            .args(arguments.split_whitespace());
        command.current_dir(&directory).stdout(Stdio::null());
        if let Some((user, group)) = account {
            command.uid(user).gid(group);
        }
        command
    };
    let initdb = "-U postgres -A scram-sha-256 --pwfile password --no-sync --locale=C.UTF-8";
    assert!(run("initdb", initdb).status().unwrap().success());
    let (port, here) = (free_port(), directory.display());
    let settings = format!(
        "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c ssl=on \
         -c shared_preload_libraries=pg_stat_statements -c ssl_cert_file={here}/cert.pem -c ssl_key_file={here}/key.pem"
    );
    let child = run("postgres", &settings).stderr(Stdio::null()).spawn();
    let server = Server {
        child: child.unwrap(),
        directory: Some(directory.clone()),
        port,
    };
    answers(port).await;
    Some(server)
}

fn certify(directory: &std::path::Path) {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=db \
        -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem";
    let mut openssl = Command::new("openssl");
    openssl.args(arguments.split_whitespace()).current_dir(directory);
    assert!(openssl.output().unwrap().status.success());
}

fn own(path: &std::path::Path, account: Option<(u32, u32)>) {
    if let Some((user, group)) = account {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// The newest of those that Debian keeps off the `PATH`.
fn programs() -> Option<PathBuf> {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let packaged = packaged.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    packaged
        .filter(|programs| programs.join("initdb").is_file())
        .max()
}

/// Whom it runs as: PostgreSQL refuses root. `None`: as nobody else; the outer one: it cannot.
#[expect(
    clippy::option_option,
    reason = "an account that need not be another is not one that is missing"
)]
fn account() -> Option<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").ok()?.uid() != 0 {
        return Some(None);
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let ids = |line: &str| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    users.lines().find_map(ids).map(Some)
}

/// A source at a real server.
pub(crate) fn source(kind: Kind, url: &str, port: u16, more: Value) -> Result<Sources, String> {
    let mut source = json!({ "kind": kind, "url": url.replace("PORT", &port.to_string()), "timeout": "10s" });
    if let (Some(source), Value::Object(more)) = (source.as_object_mut(), more) {
        source.extend(more);
    }
    let source = serde_json::from_value(source).map_err(|error| error.to_string())?;
    let settings = crate::sources::Settings::from([("db".to_owned(), source)]);
    Sources::new(&settings, "tests").map_err(|error| format!("{error:#}"))
}
