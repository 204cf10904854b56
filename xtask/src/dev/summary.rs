//! What a person and a script need to use a run.

use super::plan::Urls;
use crate::{servers::write_private, workspace::Workspace};
use anyhow::Context;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of `NAME=value` lines that a shell can source.
pub(crate) struct EnvFile(PathBuf);

impl EnvFile {
    /// `dev.env` of a data directory.
    pub(crate) fn at(data: &Path) -> Self {
        Self(data.join("dev.env"))
    }

    /// Any such file.
    pub(crate) fn of(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Its variables.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<(String, String)>> {
        let text = fs::read_to_string(&self.0)?;
        let pair = |line: &str| {
            line.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(pair)
            .collect())
    }

    /// Writes it; `by` says which command did.
    pub(crate) fn write(&self, by: &str, variables: &[(String, String)]) -> anyhow::Result<()> {
        let lines = variables.iter().map(|(name, value)| format!("{name}={value}\n"));
        let text: String = std::iter::once(format!("# By `{by}`, to be sourced by a shell\n"))
            .chain(lines)
            .collect();
        write_private(&self.0, &text)
    }
}

/// A run that is ready.
pub(super) struct Ready<'a> {
    pub(super) urls: &'a Urls,
    pub(super) api_key: &'a str,
    pub(super) admin_token: &'a str,
    pub(super) database: String,
    pub(super) redis: Option<String>,
    /// The directory of the log files of a detached run.
    pub(super) logs: Option<String>,
    /// What watches it, a line a part.
    pub(super) monitoring: &'a [String],
    /// Where its parts are, for scripts.
    pub(super) watchers: Vec<(String, String)>,
}

impl Ready<'_> {
    /// Writes `dev.env`, and gives the variables in it.
    ///
    /// A copy goes to `target/dev` of the clone when the target directory is elsewhere, so that a script
    /// finds it in one place.
    pub(super) fn write_env(
        &self,
        data: &Path,
        workspace: &Workspace,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut variables = vec![
            variable("REST_URL", &self.urls.rest),
            variable("MCP_URL", &self.urls.mcp),
            variable("WORKER_URL", &self.urls.worker),
            variable("API_KEY", self.api_key),
            variable("ADMIN_TOKEN", self.admin_token),
        ];
        variables.extend(self.watchers.iter().cloned());
        EnvFile::at(data).write("cargo xtask dev", &variables)?;
        let usual = workspace.root.join("target/dev");
        if data == workspace.target.join("dev") && data != usual {
            fs::create_dir_all(&usual).with_context(|| format!("creating {}", usual.display()))?;
            EnvFile::at(&usual).write("cargo xtask dev", &variables)?;
        }
        Ok(variables)
    }

    /// The text for the terminal.
    pub(super) fn text(&self, env_file: &str, stop: &str) -> String {
        let Self {
            urls,
            api_key,
            admin_token,
            database,
            ..
        } = self;
        let redis = self
            .redis
            .as_deref()
            .unwrap_or("none (rate limits and notices stay in each process)");
        let logs = self
            .logs
            .as_ref()
            .map(|dir| format!("  Logs         {dir}\n"))
            .unwrap_or_default();
        let monitoring: String = self.monitoring.iter().map(|line| format!("  {line}\n")).collect();
        format!(
            r#"
DevOps MCP is ready.

  mcp-server   {mcp}
  rest-api     {rest}/api/v1   gRPC {rest_grpc}   API pages {rest}/api/v1/docs
  worker       {worker}   gRPC {worker_grpc}
               each with /healthz /readyz /metrics, and /admin and /debug/ with the admin token ({mcp_base} for mcp-server)

  Database     {database}
  Redis        {redis}
  API key      {api_key}   (tenant dev, all scopes)
  Admin token  {admin_token}
  Debug pages  {rest}/debug/   a browser asks for a name (any) and a password (the admin token)
  Check it     cargo xtask doctor --env-file {env_file}
  For scripts  . {env_file}
{logs}
{monitoring}
{first}
{stop}
"#,
            first = first_steps(&urls.rest, &urls.mcp, api_key),
            mcp = urls.mcp,
            mcp_base = urls.mcp_base,
            rest = urls.rest,
            rest_grpc = urls.rest_grpc,
            worker = urls.worker,
            worker_grpc = urls.worker_grpc,
        )
    }
}

/// The first calls to make, and an MCP client's configuration.
pub(crate) fn first_steps(rest_url: &str, mcp_url: &str, api_key: &str) -> String {
    let configuration = json!({ "mcpServers": { "devops-mcp": {
        "type": "http",
        "url": mcp_url,
        "headers": { "Authorization": format!("Bearer {api_key}") },
    } } });
    format!(
        r#"Make a context and list it:

  curl -s {rest_url}/api/v1/contexts -H 'Authorization: Bearer {api_key}' \
    -H 'Content-Type: application/json' -d '{{"name": "first", "type": "manual"}}'
  curl -s {rest_url}/api/v1/contexts -H 'Authorization: Bearer {api_key}'

An MCP client's configuration:

{configuration:#}
"#
    )
}
