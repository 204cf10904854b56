//! What a person and a script need to use the stack.

use super::{compose::Compose, configuration};
use crate::{
    dev::{self, EnvFile},
    servers,
};
use anyhow::Context;
use std::{fs, path::Path};

/// A stack that is healthy.
pub(super) struct Ready {
    admin_token: String,
    /// None where the services are not part of it.
    api_key: Option<String>,
    grafana_password: Option<String>,
    not_told: Vec<&'static str>,
}

impl Ready {
    /// Reads the secrets.
    pub(super) fn of(compose: &Compose, api_key: Option<String>) -> anyhow::Result<Self> {
        let grafana = compose.variables.profile("grafana");
        let not_told = configuration::not_told(compose)?;
        Ok(Self {
            admin_token: compose.secret("admin_token")?,
            api_key,
            grafana_password: grafana
                .then(|| compose.secret("grafana_admin_password"))
                .transpose()?,
            not_told: not_told.iter().map(|way| way.whom).collect(),
        })
    }

    /// Addresses and credentials for scripts.
    pub(super) fn variables(&self, compose: &Compose) -> Vec<(String, String)> {
        let url = |port| compose.variables.url(port);
        let mut variables = vec![
            ("PROMETHEUS_URL", url("PROMETHEUS_PORT")),
            ("ALERTMANAGER_URL", url("ALERTMANAGER_PORT")),
            ("LOKI_URL", url("LOKI_PORT")),
            ("JAEGER_URL", url("JAEGER_PORT")),
        ];
        if self.grafana_password.is_some() {
            variables.push(("GRAFANA_URL", url("GRAFANA_PORT")));
        }
        if let Some(key) = &self.api_key {
            variables.extend([
                ("REST_URL", url("REST_API_PORT")),
                ("MCP_URL", format!("{}/mcp", url("MCP_SERVER_PORT"))),
                ("WORKER_URL", url("WORKER_HTTP_PORT")),
                ("API_KEY", key.clone()),
                ("ADMIN_TOKEN", self.admin_token.clone()),
            ]);
        }
        variables.push(("COMPOSE_PROJECT", compose.project.clone()));
        let owned = variables.into_iter();
        owned.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Writes them to `path`.
    pub(super) fn write_env(&self, path: &Path, compose: &Compose) -> anyhow::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        EnvFile::of(path).write("cargo xtask stack up", &self.variables(compose))
    }

    /// Where each part of what watches is, a line each, and who is not told of alerts.
    pub(super) fn watchers(&self, compose: &Compose) -> Vec<String> {
        let url = |port| compose.variables.url(port);
        let grafana = match &self.grafana_password {
            Some(password) => format!("{}   admin / {password}", url("GRAFANA_PORT")),
            None => "not part of it: COMPOSE_PROFILES does not name it".to_owned(),
        };
        let mut parts = vec![
            ("Grafana", grafana),
            ("Prometheus", url("PROMETHEUS_PORT")),
            ("Alertmanager", url("ALERTMANAGER_PORT")),
            ("Jaeger", url("JAEGER_PORT")),
            ("Loki", format!("{} (API)", url("LOKI_PORT"))),
            ("OTLP", format!("{} (gRPC)", url("OTLP_PORT"))),
        ];
        if !self.not_told.is_empty() {
            let whom = self.not_told.join(", ");
            let dir = compose.secrets();
            parts.push((
                "Not told",
                format!(
                    "of any alert: {whom}. Put the real values into {}, start again",
                    dir.display()
                ),
            ));
        }
        let lines = parts.iter().map(|(name, value)| format!("{name:<12} {value}"));
        lines.collect()
    }

    /// The text for the terminal.
    pub(super) fn text(&self, compose: &Compose, env_file: &Path) -> String {
        let url = |port| compose.variables.url(port);
        let (rest, mcp) = (url("REST_API_PORT"), format!("{}/mcp", url("MCP_SERVER_PORT")));
        let mut lines = vec![format!(
            "\nThe stack is ready (compose project {}).\n",
            compose.project
        )];
        let mut line = |name: &str, value: &str| lines.push(format!("  {name:<12} {value}"));
        if self.api_key.is_some() {
            line("mcp-server", &mcp);
            line(
                "rest-api",
                &format!("{rest}/api/v1   API pages {rest}/api/v1/docs"),
            );
            line("worker", &url("WORKER_HTTP_PORT"));
        }
        lines.extend(self.watchers(compose).iter().map(|line| format!("  {line}")));
        let mut line = |name: &str, value: &str| lines.push(format!("  {name:<12} {value}"));
        if let Some(key) = &self.api_key {
            line("API key", &format!("{key}   (tenant dev, all scopes)"));
            line("Admin token", &self.admin_token);
        }
        line("For scripts", &format!(". {}", env_file.display()));
        lines.push(String::new());
        if let Some(key) = &self.api_key {
            lines.push(dev::first_steps(&rest, &mcp, key));
        }
        lines.push("Stop: cargo xtask stack down (--volumes forgets what was stored)".to_owned());
        lines.join("\n") + "\n"
    }
}

/// Removes the file of a stack that is no more, and its configurations; another project's stay.
pub(super) fn forget(path: &Path, compose: &Compose) -> anyhow::Result<()> {
    let project = ("COMPOSE_PROJECT".to_owned(), compose.project.clone());
    if EnvFile::of(path)
        .read()
        .is_ok_and(|variables| variables.contains(&project))
    {
        servers::remove(path)?;
        servers::remove(&path.with_extension(""))?;
    }
    Ok(())
}
