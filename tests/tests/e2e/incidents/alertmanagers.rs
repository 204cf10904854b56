//! Real Alertmanagers.

use super::ago;
use crate::{Outcome, rest_api, text};
use e2e::{Backend, Json, process::free_port, rest::Rest, stack::REST_API, wait_for};
use http::Method;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Alertmanagers of this host, each by itself: what is told to both, both pass on. They end when it is dropped.
struct Alertmanagers(Vec<(Child, String)>);

impl Alertmanagers {
    /// The program, if it is installed.
    fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        let names = ["alertmanager", "prometheus-alertmanager"];
        let places = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
        places.into_iter().find(|program| program.is_file())
    }

    /// Starts two that deliver to rest-api with this key.
    fn start(program: &Path, directory: &Path, rest_api: &str, key: &str) -> anyhow::Result<Self> {
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
    async fn post(&self, alert: &Json) -> Outcome {
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

#[tokio::test]
async fn two_alertmanagers_tell_of_one_incident() -> Outcome {
    let Some(program) = Alertmanagers::program() else {
        eprintln!("LEFT OUT: no Alertmanager on the PATH");
        return Ok(());
    };
    let (stack, rest) = rest_api(Backend::Sqlite).await?;
    let key = stack.key("acme", "alerts:receive").await?;
    let both = Alertmanagers::start(&program, stack.directory(), &stack.http(REST_API), &key)?;
    let told = |end: Option<String>| {
        let mut alert = json!({"labels": {"alertname": "DiskFull", "severity": "warning", "instance": "db-1"},
            "annotations": {"summary": "2% left"}, "startsAt": ago(30)});
        if let Some(end) = end {
            alert["endsAt"] = end.into();
        }
        alert
    };
    both.post(&told(None)).await?;
    let count = async |result: &str| -> Option<f64> {
        let scrape = stack.metrics(REST_API).await.ok()?;
        Some(scrape.sum("mcp_incident_notifications_total", &[("result", result)]))
    };
    wait_for("both to have told it, and again", async || {
        (count("repeated").await? >= 3.0).then_some(())
    })
    .await?;
    let listed = rest.get("/api/v1/incidents").await?.expect(200)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(text(&listed["items"][0], "title"), "DiskFull: db-1");
    both.post(&told(Some(ago(1)))).await?;
    wait_for("its end to be told", async || {
        let listed = rest.get("/api/v1/incidents?status=resolved").await.ok()?.json();
        (listed["items"].as_array()?.len() == 1).then_some(())
    })
    .await?;
    assert_eq!(count("opened").await, Some(1.0));
    assert_eq!(count("refused").await, Some(0.0));
    Ok(())
}
