//! `docker compose`, told about our files, variables and project.

use super::{
    Project, Variables,
    docker::{self, docker},
    folder,
};
use crate::workspace::Workspace;
use anyhow::Context;
use serde_json::Value;
use std::{env, fs, path::PathBuf, process::Command};

const SERVICES: &str = "docker-compose.yml";
const MONITORING: &str = "docker-compose.monitoring.yml";
/// They look at what only `docker-compose.yml` starts.
pub(super) const EXPORTERS: [&str; 2] = ["postgres-exporter", "redis-exporter"];

/// A compose project.
pub(super) struct Compose {
    /// The project's name.
    pub(super) project: String,
    /// What the files' variables are.
    pub(super) variables: Variables,
    /// The folder of the compose files.
    pub(super) deploy: PathBuf,
    files: Vec<PathBuf>,
    pub(super) monitoring_only: bool,
}

/// A container.
pub(super) struct Container {
    /// Its service.
    pub(super) service: String,
    /// Its name.
    pub(super) name: String,
    /// `running`, `exited`, `restarting` …
    pub(super) state: String,
    /// `healthy`, `unhealthy`, `starting`, or empty where nothing is asked.
    pub(super) health: String,
}

impl Compose {
    /// Nothing is asked or started yet.
    pub(super) fn new(
        workspace: &Workspace,
        project: &Project,
        variables: Variables,
    ) -> anyhow::Result<Self> {
        let deploy = workspace.root.join("deploy");
        let own = if project.monitoring_only {
            &[MONITORING][..]
        } else {
            &[SERVICES, MONITORING]
        };
        let mut files: Vec<PathBuf> = own.iter().map(|file| deploy.join(file)).collect();
        let here = env::current_dir()?;
        files.extend(project.files.iter().map(|file| here.join(file)));
        Ok(Self {
            project: project.name.clone(),
            variables,
            deploy,
            files,
            monitoring_only: project.monitoring_only,
        })
    }

    /// The command, to which the sub-command is added.
    pub(super) fn command(&self) -> Command {
        let mut command = docker(&["compose", "--project-name", &self.project]);
        command.arg("--project-directory").arg(&self.deploy);
        for file in self.variables.files() {
            command.arg("--env-file").arg(file);
        }
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        // Whole, since ports may have been moved: the environment wins over files.
        command.envs(self.variables.all());
        command
    }

    /// The services that are started: those of the active profiles.
    pub(super) fn services(&self) -> anyhow::Result<Vec<String>> {
        let listed = docker::said(self.command().args(["config", "--services"]))?;
        let wanted = |name: &&str| !(self.monitoring_only && EXPORTERS.contains(name));
        let mut services: Vec<String> = listed.lines().filter(wanted).map(str::to_owned).collect();
        services.sort();
        Ok(services)
    }

    /// The containers, running or not.
    pub(super) fn containers(&self) -> anyhow::Result<Vec<Container>> {
        let listed = docker::said(self.command().args(["ps", "--all", "--format", "json"]))?;
        containers(&listed)
    }

    /// The last lines of a service's log.
    pub(super) fn tail(&self, service: &str) -> String {
        let mut command = self.command();
        command.args(["logs", "--no-log-prefix", "--no-color", "--tail", "15", service]);
        docker::said(&mut command).unwrap_or_else(|error| format!("{error:#}"))
    }

    /// The folder of the secrets.
    pub(super) fn secrets(&self) -> PathBuf {
        folder(&self.deploy, self.variables.get("SECRETS_DIR"))
    }

    /// A secret.
    pub(super) fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.secrets().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text.trim().to_owned())
    }
}

/// Reads what `docker compose ps --format json` prints: an object a line, an array before 2.21.
fn containers(listed: &str) -> anyhow::Result<Vec<Container>> {
    let objects: Vec<Value> = if listed.starts_with('[') {
        serde_json::from_str(listed)?
    } else {
        let lines = listed.lines().filter(|line| !line.is_empty());
        lines.map(serde_json::from_str).collect::<Result<_, _>>()?
    };
    let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let container = |object: &Value| Container {
        service: text(object, "Service"),
        name: text(object, "Name"),
        state: text(object, "State"),
        health: text(object, "Health"),
    };
    Ok(objects.iter().map(container).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_listing_containers_are_read() -> anyhow::Result<()> {
        let one = r#"{"Service":"loki","Name":"x-loki-1","State":"running","Health":"starting"}"#;
        for listed in [format!("{one}\n{one}\n"), format!("[{one},{one}]")] {
            let read = containers(&listed)?;
            assert_eq!(read.len(), 2);
            assert_eq!(
                (read[1].service.as_str(), read[1].health.as_str()),
                ("loki", "starting")
            );
        }
        assert!(containers("")?.is_empty());
        Ok(())
    }
}
