//! What runs where and with which settings.

use super::{Args, secrets::Secrets};
use crate::workspace::Workspace;
use anyhow::{Context, bail};
use std::{
    env,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

/// The ports of one run. The defaults are those of the services themselves.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    rest_http: u16,
    rest_grpc: u16,
    mcp_http: u16,
    worker_http: u16,
    worker_grpc: u16,
}

impl Ports {
    /// The default ports, each moved up by `offset`.
    pub(super) fn with_offset(offset: u16) -> anyhow::Result<Self> {
        let port = |port: u16| {
            port.checked_add(offset)
                .with_context(|| format!("--port-offset {offset} leaves no port {port}"))
        };
        Ok(Self {
            rest_http: port(8080)?,
            rest_grpc: port(50051)?,
            mcp_http: port(8090)?,
            worker_http: port(8091)?,
            worker_grpc: port(50053)?,
        })
    }

    /// Where each service has its metrics: its name and `host:port`.
    pub(super) fn metrics(self) -> [(&'static str, String); 3] {
        self.http().map(|(name, port)| (name, loopback(port).to_string()))
    }

    /// Each service's name and HTTP port.
    pub(super) const fn http(self) -> [(&'static str, u16); 3] {
        [
            ("rest-api", self.rest_http),
            ("mcp-server", self.mcp_http),
            ("worker", self.worker_http),
        ]
    }

    /// Whether all can be listened on; an error names those that cannot and what to do.
    pub(super) fn ensure_free(self) -> anyhow::Result<()> {
        let doors = [
            (self.rest_http, "rest-api's HTTP"),
            (self.rest_grpc, "rest-api's gRPC"),
            (self.mcp_http, "mcp-server's HTTP"),
            (self.worker_http, "worker's HTTP"),
            (self.worker_grpc, "worker's gRPC"),
        ];
        let taken: Vec<String> = doors
            .iter()
            .filter(|(port, _)| TcpListener::bind(loopback(*port)).is_err())
            .map(|(port, door)| format!("{port} ({door})"))
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        bail!(
            "already in use on 127.0.0.1: port {}. Stop what listens there (`ss -ltnp` shows it; \
             `cargo xtask dev --stop` stops a run in the background), or take other ports with --port-offset 100",
            taken.join(", ")
        )
    }
}

const fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// The outside of what was started: addresses for people and scripts.
pub(super) struct Urls {
    pub(super) rest: String,
    pub(super) rest_grpc: String,
    pub(super) mcp: String,
    pub(super) mcp_base: String,
    pub(super) worker: String,
    pub(super) worker_grpc: String,
}

impl From<Ports> for Urls {
    fn from(ports: Ports) -> Self {
        let url = |port| format!("http://{}", loopback(port));
        Self {
            rest: url(ports.rest_http),
            rest_grpc: url(ports.rest_grpc),
            mcp: format!("{}/mcp", url(ports.mcp_http)),
            mcp_base: url(ports.mcp_http),
            worker: url(ports.worker_http),
            worker_grpc: url(ports.worker_grpc),
        }
    }
}

/// One service: its binary, its environment and where it answers when ready.
#[derive(Clone)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    pub(super) ready: Option<String>,
    program: PathBuf,
    args: &'static [&'static str],
    variables: Vec<(String, String)>,
    dir: PathBuf,
}

impl Unit {
    /// The command that runs it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(self.args)
            .current_dir(&self.dir)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The stores that the services use.
pub(super) struct Stores {
    /// `sqlite://…` or `postgres://…`
    pub(super) database: String,
    /// `redis://…`
    pub(super) redis: Option<String>,
}

/// Everything about a run that does not change.
pub(super) struct Plan<'a> {
    pub(super) args: &'a Args,
    pub(super) workspace: &'a Workspace,
    pub(super) ports: Ports,
    pub(super) secrets: &'a Secrets,
    pub(super) stores: &'a Stores,
    /// Where spans go.
    pub(super) otlp: Option<String>,
    /// Where people look at traces: what runs beside the services, or `JAEGER_URL`.
    pub(super) jaeger: Option<String>,
    /// What the product's own tools ask: kinds and addresses.
    pub(super) sources: Vec<(&'static str, String)>,
}

impl Plan<'_> {
    /// The three services, in the order that they are started.
    pub(super) fn services(&self) -> anyhow::Result<[Unit; 3]> {
        let (ports, urls) = (self.ports, Urls::from(self.ports));
        let mut rest = vec![
            ("DATABASE__URL", self.stores.database.clone()),
            ("CREDENTIALS__KEYS", self.secrets.credentials_key.clone()),
            ("WORKER__URL", urls.worker_grpc.clone()),
        ];
        let mut mcp = vec![("REST_API__URL", urls.rest_grpc.clone())];
        let mut worker = vec![("REST_API__URL", urls.rest_grpc.clone())];
        if let Some(url) = &self.stores.redis {
            rest.push(("REDIS__URL", url.clone()));
            mcp.push(("REDIS__URL", url.clone()));
        }
        let mut allowed = self.args.allow_private.clone();
        // The traffic's tools call the driver itself.
        allowed.extend(self.args.traffic.then(|| "127.0.0.1/32".to_owned()));
        if !allowed.is_empty() {
            worker.push(("OUTBOUND__ALLOW_PRIVATE", allowed.join(",")));
        }
        let sources = self.source_settings();
        worker.extend(sources.iter().map(|(key, value)| (key.as_str(), value.clone())));
        Ok([
            self.unit("rest-api", ports.rest_http, Some(ports.rest_grpc), rest)?,
            self.unit("worker", ports.worker_http, Some(ports.worker_grpc), worker)?,
            self.unit("mcp-server", ports.mcp_http, None, mcp)?,
        ])
    }

    /// The worker's sources, each named after its kind.
    fn source_settings(&self) -> Vec<(String, String)> {
        let redis = self.stores.redis.clone().map(|url| ("redis", url));
        let sources = self.sources.iter().cloned().chain(redis);
        let settings = sources.flat_map(|(kind, url)| {
            let key = format!("SOURCES__{}", kind.to_ascii_uppercase());
            [
                (format!("{key}__KIND"), kind.to_owned()),
                (format!("{key}__URL"), url),
            ]
        });
        settings.collect()
    }

    fn unit(
        &self,
        name: &'static str,
        http: u16,
        grpc: Option<u16>,
        settings: Vec<(&str, String)>,
    ) -> anyhow::Result<Unit> {
        let mut settings = settings;
        settings.push(("HTTP__ADDRESS", loopback(http).to_string()));
        settings.extend(grpc.map(|port| ("GRPC__ADDRESS", loopback(port).to_string())));
        settings.push(("ADMIN_TOKEN", self.secrets.admin_token.clone()));
        settings.push(("SERVICE_TOKEN", self.secrets.service_token.clone()));
        // Nobody routes requests to these ports from outside: no need to wait for that to end.
        settings.push(("SHUTDOWN__DRAIN", "0s".to_owned()));
        // The terminal shows lines for people, files hold lines for programs.
        let format = if self.args.logs_to_files() {
            "json"
        } else {
            "pretty"
        };
        settings.push(("MONITORING__LOGGING__FORMAT", format.to_owned()));
        if let Some(url) = &self.otlp {
            settings.push(("MONITORING__TRACING__ENDPOINT", url.clone()));
        }
        if let Some(url) = &self.jaeger {
            settings.push(("MONITORING__TRACING__UI_URL", url.clone()));
        }
        let mut variables: Vec<(String, String)> = settings
            .into_iter()
            .map(|(key, value)| (format!("DEVOPS_MCP__{key}"), value))
            .collect();
        // What was asked for by variable wins over what this program only prefers.
        variables.retain(|(name, _)| !(preference(name) && env::var_os(name).is_some()));
        let program = self.workspace.bin(self.args.release, name)?;
        let ready = Some(format!("http://{}/readyz", loopback(http)));
        Ok(Unit {
            name,
            ready,
            program,
            args: &[],
            variables,
            dir: self.workspace.root.clone(),
        })
    }
}

/// The traffic driver.
pub(super) fn traffic(
    args: &Args,
    workspace: &Workspace,
    variables: Vec<(String, String)>,
) -> anyhow::Result<Unit> {
    let program = workspace.bin(args.release, "traffic")?;
    Ok(Unit {
        name: "traffic",
        ready: None,
        program,
        // A year: as long as anybody lets it run.
        args: &["--seconds", "31536000"],
        variables,
        dir: workspace.root.clone(),
    })
}

fn preference(variable: &str) -> bool {
    ["__LOGGING__", "__SHUTDOWN__", "__TRACING__UI_URL"]
        .iter()
        .any(|part| variable.contains(part))
}

/// SQLite's URL for a file in the data directory, made when it is not there.
pub(super) fn sqlite(data: &Path) -> String {
    format!("sqlite://{}?mode=rwc", data.join("dev.db").display())
}
