//! The installation that is looked at: where everything answers, and how a part of it is stopped and started.

use anyhow::{Context, ensure};
use e2e::{Json, rest::Rest};
use std::{path::PathBuf, process::Stdio};
use tokio::process::Command;

/// Where everything is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Addresses {
    /// rest-api, `http://host:port`.
    #[arg(long, env = "REST_URL")]
    pub(crate) rest_url: String,
    /// mcp-server, with its path `/mcp`.
    #[arg(long, env = "MCP_URL")]
    pub(crate) mcp_url: String,
    /// worker.
    #[arg(long, env = "WORKER_URL")]
    pub(crate) worker_url: String,
    /// Prometheus.
    #[arg(long, env = "PROMETHEUS_URL")]
    pub(crate) prometheus_url: String,
    /// Alertmanager.
    #[arg(long, env = "ALERTMANAGER_URL")]
    pub(crate) alertmanager_url: String,
    /// Loki.
    #[arg(long, env = "LOKI_URL")]
    pub(crate) loki_url: String,
    /// Jaeger's query API and pages.
    #[arg(long, env = "JAEGER_URL")]
    pub(crate) jaeger_url: String,
    /// A key with all scopes.
    #[arg(long, env = "API_KEY", hide_env_values = true)]
    pub(crate) api_key: String,
    /// What opens `/admin`.
    #[arg(long, env = "ADMIN_TOKEN", hide_env_values = true)]
    pub(crate) admin_token: String,
    /// The compose project, whose containers are called `PROJECT-SERVICE-1`; none where the services are no containers
    /// of this host's: what stops and starts parts cannot run then.
    #[arg(long, env = "COMPOSE_PROJECT", default_value = "")]
    pub(crate) compose_project: String,
    /// The port of this host that the alert sinks listen on.
    #[arg(long, env = "SINK_PORT", default_value_t = 9199)]
    pub(crate) sink_port: u16,
    /// The folder that Alertmanager reads from where incidents are opened, and with which key.
    #[arg(long, env = "ALERTMANAGER_SECRETS")]
    pub(crate) alertmanager_secrets: Option<PathBuf>,
    /// The name by which containers reach this host.
    #[arg(long, env = "TARGET_HOST", default_value = "host.docker.internal")]
    pub(crate) target_host: String,
}

impl Addresses {
    /// What a command takes from the `stack.env` of `cargo xtask stack up`.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 10] {
        [
            ("REST_URL", &self.rest_url),
            ("MCP_URL", &self.mcp_url),
            ("WORKER_URL", &self.worker_url),
            ("PROMETHEUS_URL", &self.prometheus_url),
            ("ALERTMANAGER_URL", &self.alertmanager_url),
            ("LOKI_URL", &self.loki_url),
            ("JAEGER_URL", &self.jaeger_url),
            ("API_KEY", &self.api_key),
            ("ADMIN_TOKEN", &self.admin_token),
            ("COMPOSE_PROJECT", &self.compose_project),
        ]
    }
}

/// A running installation.
pub(crate) struct Stack {
    /// Where everything is.
    pub(crate) at: Addresses,
    /// A client of its REST API, with its key.
    pub(crate) rest: Rest,
    /// For everything else.
    pub(crate) http: reqwest::Client,
}

impl Stack {
    pub(crate) fn new(at: Addresses) -> Self {
        let rest = Rest::new(&at.rest_url, Some(&at.api_key));
        Self {
            rest,
            http: e2e::http_client(),
            at,
        }
    }

    /// The JSON that a GET of `url` with these query parameters answers with.
    ///
    /// # Errors
    /// When it cannot be reached, or says no; with its body.
    pub(crate) async fn get(&self, url: &str, query: &[(&str, &str)]) -> anyhow::Result<Json> {
        let mut address = reqwest::Url::parse(url).with_context(|| url.to_owned())?;
        address.query_pairs_mut().extend_pairs(query);
        let answer = self.http.get(address).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{url}: {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{url} answered no JSON: {text}"))
    }

    /// The series of an instant query to Prometheus, `[{"metric": {…}, "value": [time, "1"]}]`.
    ///
    /// # Errors
    /// When Prometheus refuses the query or is away.
    pub(crate) async fn promql(&self, query: &str) -> anyhow::Result<Vec<Json>> {
        let url = format!("{}/api/v1/query", self.at.prometheus_url);
        let answer = self.get(&url, &[("query", query)]).await?;
        let result = answer["data"]["result"].as_array();
        Ok(result.context("Prometheus answered no result")?.clone())
    }

    /// Stops the container of a compose service; `docker stop`.
    ///
    /// # Errors
    /// When Docker cannot.
    pub(crate) async fn stop(&self, service: &str) -> anyhow::Result<()> {
        self.docker(&["stop", "--time", "10"], service).await
    }

    /// Kills it: SIGKILL.
    ///
    /// # Errors
    /// When Docker cannot.
    pub(crate) async fn kill(&self, service: &str) -> anyhow::Result<()> {
        self.docker(&["kill"], service).await
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When Docker cannot.
    pub(crate) async fn start(&self, service: &str) -> anyhow::Result<()> {
        self.docker(&["start"], service).await
    }

    async fn docker(&self, command: &[&str], service: &str) -> anyhow::Result<()> {
        let project = &self.at.compose_project;
        ensure!(
            !project.is_empty(),
            "docker {command:?} {service}: no COMPOSE_PROJECT is named"
        );
        let container = format!("{project}-{service}-1");
        let output = Command::new("docker")
            .args(command)
            .arg(&container)
            .stdin(Stdio::null())
            .output()
            .await
            .context("running docker")?;
        ensure!(
            output.status.success(),
            "docker {} {container}: {}",
            command.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}
