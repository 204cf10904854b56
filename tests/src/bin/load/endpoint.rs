//! The endpoint that tools call, and the bare MCP server that calls it, each in a process of its own.

use anyhow::Context;
use e2e::{
    Json,
    process::{Process, free_port},
};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

/// An endpoint, or a bare MCP server that calls one; ends when dropped.
pub(crate) struct Endpoint {
    process: Process,
    base: String,
    client: reqwest::Client,
}

/// What has arrived at an endpoint.
pub(crate) struct Arrived {
    /// How many requests for work since it was started.
    pub(crate) count: u64,
    /// How long those took that say when they were sent, since the last time that anybody asked.
    pub(crate) delays: Vec<Duration>,
}

impl Endpoint {
    /// Starts one with its log in `directory`.
    pub(crate) async fn start(directory: &Path, upstream: Option<&Self>) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", free_port());
        let mut environment = BTreeMap::from([("ENDPOINT_ADDRESS".to_owned(), address.clone())]);
        if let Some(upstream) = upstream {
            environment.insert("ENDPOINT_UPSTREAM".to_owned(), upstream.url("/work"));
        }
        // Its ready files are numbered: each server has a directory of its own.
        let home = directory.join(&address);
        fs::create_dir(&home)?;
        let mut process = Process::new("endpoint", &home, environment)?;
        process.start().await?;
        Ok(Self {
            process,
            base: format!("http://{address}"),
            client: e2e::http_client(),
        })
    }

    /// A URL of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid()
    }

    /// What has arrived.
    pub(crate) async fn arrived(&self) -> anyhow::Result<Arrived> {
        let answer = self.client.get(self.url("/arrived")).send().await?;
        let told: Json = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
        let delays = told["delays_us"].as_array().context("no delays")?;
        Ok(Arrived {
            count: told["count"].as_u64().context("no count")?,
            delays: delays
                .iter()
                .filter_map(|delay| delay.as_u64().map(Duration::from_micros))
                .collect(),
        })
    }
}
