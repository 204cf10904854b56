//! A running installation, such as the one of `docker compose`, that stands where a test would start services.
//!
//! `E2E_INSTALLATION=1` and the variables of its `stack.env` (`REST_URL`, `MCP_URL`, `WORKER_URL`, `COMPOSE_PROJECT`) say
//! which. Only tests that are content with services as they are can run on it; `TARGET_HOST` is the name by which its
//! worker reaches this host. Without `COMPOSE_PROJECT`, `rest-api` is a command of this machine that has the
//! installation's configuration: in a pod beside those of rest-api.

use crate::stack::{MCP_SERVER, REST_API, WORKER};
use anyhow::Context;
use std::env;
use tokio::process::Command;

/// Where a running installation is.
#[derive(Clone, Debug)]
pub struct Installation {
    rest: String,
    mcp: String,
    worker: String,
    /// The compose project whose containers these are.
    project: Option<String>,
}

impl Installation {
    /// The one that the environment names, if it names one.
    ///
    /// # Errors
    /// When it names one, but not where.
    pub fn from_env() -> anyhow::Result<Option<Self>> {
        if env::var_os("E2E_INSTALLATION").is_none() {
            return Ok(None);
        }
        let variable =
            |name: &str| env::var(name).with_context(|| format!("E2E_INSTALLATION without {name}"));
        let mcp = variable("MCP_URL")?;
        Ok(Some(Self {
            rest: variable("REST_URL")?,
            mcp: mcp.strip_suffix("/mcp").unwrap_or(&mcp).to_owned(),
            worker: variable("WORKER_URL")?,
            project: env::var("COMPOSE_PROJECT").ok(),
        }))
    }

    /// A service's HTTP address, `http://host:port`.
    ///
    /// # Panics
    /// When it is none of the three.
    pub fn http(&self, service: &str) -> String {
        match service {
            REST_API => self.rest.clone(),
            MCP_SERVER => self.mcp.clone(),
            WORKER => self.worker.clone(),
            _ => panic!("{service} is no service of ours"),
        }
    }

    /// `rest-api ARGUMENTS`, where its configuration is.
    pub fn admin(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.project {
            Some(project) => {
                let mut command = Command::new("docker");
                command.args(["exec", &format!("{project}-rest-api-1"), "rest-api"]);
                command
            }
            None => Command::new("rest-api"),
        };
        command.args(arguments);
        command
    }
}

/// The name by which tools reach this host, when that is not 127.0.0.1.
pub fn target_host() -> Option<String> {
    env::var_os("E2E_INSTALLATION")?;
    env::var("TARGET_HOST").ok()
}
