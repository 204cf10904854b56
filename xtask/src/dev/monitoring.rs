//! What watches the services of a run: the stack's containers, or the programs of this host, as far as there are any.

use super::{forward, plan::Ports, supervisor::private_dir};
use crate::{
    servers::{
        Server,
        monitoring::{self, alertmanager_program, prometheus_program},
    },
    stack::{self, Stack, docker},
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What the containers of `--stack` are called.
const PROJECT: &str = "devops-mcp-dev";

/// What watches a run, and a line for people about each part.
#[derive(Default)]
pub(super) struct Watch {
    /// Programs of this host.
    pub(super) servers: Vec<Server>,
    /// Where each part is, or why it is not there.
    pub(super) lines: Vec<String>,
}

impl Watch {
    /// Starts Prometheus and Alertmanager where they are installed. What cannot be started is told and does without.
    pub(super) fn programs(
        workspace: &Workspace,
        data: &Path,
        offset: u16,
        services: Ports,
    ) -> anyhow::Result<Self> {
        let ports = monitoring::Ports::with_offset(offset)?;
        let dir = data.join("monitoring");
        let mut watch = Self::default();
        let alertmanager = alertmanager_program().map(|program| {
            monitoring::alertmanager(&program, workspace, &dir.join("alertmanager"), ports.alertmanager)
        });
        watch.add("Alertmanager", alertmanager);
        let prometheus = prometheus_program().map(|program| {
            let targets = services.metrics();
            monitoring::prometheus(
                &program,
                workspace,
                &dir.join("prometheus"),
                ports,
                &targets,
                &environment(),
            )
        });
        watch.add("Prometheus", prometheus);
        let how = if docker::ensure_compose().is_ok() {
            "run in containers: cargo xtask dev --stack"
        } else {
            "cannot be started: they run in containers, and there is no Docker with `docker compose` here"
        };
        watch
            .lines
            .push(format!("Grafana, Loki, Jaeger and the Collector {how}"));
        Ok(watch)
    }

    /// Where those that are installed will be: what tools ask, by its kind.
    pub(super) fn sources(offset: u16) -> anyhow::Result<Vec<(&'static str, String)>> {
        let ports = monitoring::Ports::with_offset(offset)?;
        let programs = [
            ("prometheus", prometheus_program(), ports.prometheus),
            ("alertmanager", alertmanager_program(), ports.alertmanager),
        ];
        let there = programs.into_iter().filter(|(_, program, _)| program.is_some());
        Ok(there
            .map(|(kind, _, port)| (kind, format!("http://127.0.0.1:{port}")))
            .collect())
    }

    fn add(&mut self, name: &str, started: Option<anyhow::Result<Server>>) {
        self.lines.push(match started {
            None => format!(
                "{name:<12} is not installed (Debian and Ubuntu: apt-get install prometheus prometheus-alertmanager)"
            ),
            Some(Err(error)) => format!("{name:<12} does not run: {error:#}"),
            Some(Ok(server)) => {
                let line = format!("{name:<12} {}", server.url);
                self.servers.push(server);
                line
            }
        });
    }
}

/// The monitoring stack in containers, beside services of this host.
pub(super) struct Containers {
    stack: Stack,
}

impl Containers {
    /// Starts them, and lets them reach the services' HTTP ports. The services write their logs to `logs`.
    ///
    /// # Errors
    /// When there is no Docker, or a part does not become healthy.
    pub(super) fn start(
        workspace: &Workspace,
        data: &Path,
        offset: u16,
        images_env: Option<&Path>,
        services: Ports,
    ) -> anyhow::Result<Self> {
        docker::ensure_compose()?;
        let gateway = docker::gateway()?;
        let targets = data.join("monitoring/targets");
        for (name, port) in services.http() {
            // A Docker that runs in a virtual machine has a gateway of its own, which leads here by itself.
            if let Err(error) = forward::forward(gateway, port) {
                eprintln!("note: {error:#}; containers reach {name} only if Docker leads them here");
            }
            write_target(&targets, name, port)?;
        }
        let variables = [
            ("SERVICE_LOGS_DIR", readable(data.join("logs"))?),
            ("TARGETS_DIR", readable(targets)?),
        ];
        let mut variables: Vec<_> = variables
            .map(|(name, path)| (name.to_owned(), path.display().to_string()))
            .into();
        variables.push(("ENVIRONMENT".to_owned(), environment()));
        let options = stack::Options {
            project: stack::Project {
                name: project(workspace, data),
                port_offset: offset,
                images_env: images_env.map(Path::to_owned),
                monitoring_only: true,
                files: Vec::new(),
                variables,
            },
            profile: crate::images::Profile::Dev,
            no_build: true,
        };
        let stack = Stack::up(workspace, &options)?;
        Ok(Self { stack })
    }

    /// Where spans are taken.
    pub(super) fn otlp(&self) -> String {
        self.stack.url("OTLP_PORT")
    }

    /// Where people look at traces.
    pub(super) fn jaeger(&self) -> String {
        self.stack.url("JAEGER_PORT")
    }

    /// Where each part is that tools ask, by its kind.
    pub(super) fn sources(&self) -> Vec<(&'static str, String)> {
        let parts = [
            ("prometheus", "PROMETHEUS_PORT"),
            ("alertmanager", "ALERTMANAGER_PORT"),
            ("loki", "LOKI_PORT"),
            ("jaeger", "JAEGER_PORT"),
        ];
        parts.map(|(kind, port)| (kind, self.stack.url(port))).into()
    }

    /// Where each part is, for scripts.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        self.stack.variables()
    }

    /// Where each part is, and who is not told of alerts.
    pub(super) fn lines(&self) -> Vec<String> {
        self.stack.watchers()
    }

    /// Stops them; what they stored is kept for the next time.
    pub(super) fn stop(&self) {
        if let Err(error) = self.stack.down(false) {
            eprintln!("warning: stopping the monitoring stack: {error:#}");
        }
    }
}

/// Where the services say that they run, so that what watches them says the same.
fn environment() -> String {
    env::var("DEVOPS_MCP__ENVIRONMENT").unwrap_or_else(|_| "development".to_owned())
}

/// A compose project of each data directory; that of the usual one bears no more than [`PROJECT`].
fn project(workspace: &Workspace, data: &Path) -> String {
    if data == workspace.target.join("dev") {
        return PROJECT.to_owned();
    }
    let path = data.display().to_string().to_ascii_lowercase();
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    format!("{PROJECT}-{}", words.join("-"))
}

/// A file that tells Prometheus of one service.
fn write_target(dir: &Path, service: &str, port: u16) -> anyhow::Result<()> {
    private_dir(dir)?;
    let path = dir.join(format!("{service}.yml"));
    let text = format!("- targets: [\"host.docker.internal:{port}\"]\n");
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Makes a directory that containers, whose users are not ours, can read through a mount: only the mount leads there,
/// for the data directory around it is closed to others.
fn readable(dir: PathBuf) -> anyhow::Result<PathBuf> {
    private_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("opening {} for containers", dir.display()))?;
    Ok(dir)
}
