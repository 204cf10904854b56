//! Real Alertmanagers.

use crate::Outcome;
use e2e::{Json, process::free_port, rest::Rest, wait_for};
use http::Method;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Alertmanagers of this host, each by itself: what is told to both, both pass on. They end when it is dropped.
pub(super) struct Alertmanagers(Vec<(Child, String)>);

impl Alertmanagers {
    /// The program, if it is installed.
    pub(super) fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        let names = ["alertmanager", "prometheus-alertmanager"];
        let places = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
        places.into_iter().find(|program| program.is_file())
    }

    /// Starts two that deliver to rest-api with this key.
    pub(super) fn start(program: &Path, directory: &Path, rest_api: &str, key: &str) -> anyhow::Result<Self> {
        let (config, file) = (directory.join("alertmanager.yml"), directory.join("key"));
        fs::write(&file, key)?;
        let text = json!({
            "route": {"receiver": "agents", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s",
                "repeat_interval": "2s"},
            "receivers": [{"name": "agents", "webhook_configs": [{
                "url": format!("{rest_api}/api/v1/alerts"), "send_resolved": true, "max_alerts": 1000,
                "http_config": {"authorization": {"credentials_file": file}},
            }]}],
        });
        fs::write(&config, text.to_string())?;
        let mut started = Vec::new();
        for i in 0..2 {
            let url = format!("127.0.0.1:{}", free_port());
            let data = directory.join(format!("alertmanager-{i}"));
            let child = Command::new(program)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.path={}", data.display()))
                .arg(format!("--web.listen-address={url}"))
                .arg("--cluster.listen-address=")
                .stdout(Stdio::null())
                .stderr(fs::File::create(directory.join(format!("alertmanager-{i}.log")))?)
                .spawn()?;
            started.push((child, format!("http://{url}")));
        }
        Ok(Self(started))
    }

    /// Tells both of an alert.
    pub(super) async fn post(&self, alert: &Json) -> Outcome {
        for (_, url) in &self.0 {
            let rest = Rest::new(url, None);
            wait_for("Alertmanager to take an alert", async || {
                let body = json!([alert]);
                let sent = rest.send(Method::POST, "/api/v2/alerts", &[], Some(&body)).await;
                sent.ok().filter(|answer| answer.status == 200)
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for Alertmanagers {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
