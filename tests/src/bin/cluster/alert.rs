//! A Deployment without pods becomes a notification at a sink in the cluster, and its return the word that it is over.
//!
//! It runs with copies of the rules and configurations in which a minute takes a second; the originals' times are tested
//! by promtool and amtool.

use crate::{
    install::SINK,
    kubectl::{MONITORING, SERVICES},
    setup::Setup,
};
use anyhow::{Context as _, ensure};
use e2e::{Json, alerts::scale, wait_at_most};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The Deployment that is lost.
const LOST: &str = "worker";
/// Until a restarted Prometheus, or Alertmanager, is ready.
const RESTARTS: Duration = Duration::from_secs(120);
/// From a fault to its notification, and from its end to the word that it is over.
const TOLD: Duration = Duration::from_secs(120);

/// Takes it away, and brings it back whatever comes.
pub(crate) async fn run(_setup: &Setup) -> anyhow::Result<()> {
    scaled().await?;
    wait("Watchdog at the dead man's switch", |line| {
        !line["heartbeat"].is_null()
    })
    .await?;
    let fault = Instant::now();
    SERVICES.scale(&format!("deployment/{LOST}"), 0).await?;
    let fired = wait("Slack and PagerDuty to be told", |line| {
        is(line, "PagerDuty", true)
    })
    .await;
    let fired = match fired {
        Ok(()) => wait("Slack to be told", |line| is(line, "Slack", true)).await,
        Err(error) => Err(error),
    };
    let took = fault.elapsed();
    SERVICES.scale(&format!("deployment/{LOST}"), 1).await?;
    let back = Instant::now();
    fired?;
    println!(
        "   {LOST} has no pods: TargetDown at PagerDuty and Slack after {:.0} s",
        took.as_secs_f32()
    );
    wait("PagerDuty to be told that it is over", |line| {
        is(line, "PagerDuty", false)
    })
    .await?;
    wait("Slack to be told that it is over", |line| {
        is(line, "Slack", false)
    })
    .await?;
    println!(
        "   it is back: resolved at both after {:.0} s",
        back.elapsed().as_secs_f32()
    );
    let nonsense: Vec<Json> = told()
        .await?
        .into_iter()
        .filter(|line| !line["nonsense"].is_null())
        .collect();
    ensure!(
        nonsense.is_empty(),
        "notifications as nobody takes them: {nonsense:?}"
    );
    SERVICES
        .rollout_status(&format!("deployment/{LOST}"), RESTARTS)
        .await
}

fn is(line: &Json, channel: &str, firing: bool) -> bool {
    line["alert"] == "TargetDown"
        && line["service"] == LOST
        && line["channel"] == channel
        && line["firing"] == firing
        && line["severity"] == "critical"
}

/// What the sink has told so far.
async fn told() -> anyhow::Result<Vec<Json>> {
    let log = MONITORING.logs("deployment/alert-sink").await?;
    log.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

async fn wait(what: &str, wanted: impl Fn(&Json) -> bool) -> anyhow::Result<()> {
    let waited = wait_at_most(TOLD, what, async || {
        // A kubectl is not cheap.
        sleep(Duration::from_millis(500)).await;
        told().await.ok()?.iter().any(&wanted).then_some(())
    });
    let waited = waited.await;
    if waited.is_err() {
        let all: Vec<_> = told().await?.iter().map(Json::to_string).collect();
        return waited.with_context(|| format!("the sink has:\n{}", all.join("\n")));
    }
    waited
}

/// Puts the scaled-down copies into the ConfigMaps, and starts who reads them anew.
async fn scaled() -> anyhow::Result<()> {
    for (name, data) in copies().await? {
        let patch = json!({ "data": data });
        MONITORING.patch(&format!("configmap/{name}"), &patch).await?;
    }
    let workloads = [
        "deployment/alert-sink",
        "statefulset/alertmanager",
        "statefulset/prometheus",
    ];
    for workload in workloads {
        MONITORING.restart(workload).await?;
    }
    for workload in workloads {
        MONITORING.rollout_status(workload, RESTARTS).await?;
    }
    Ok(())
}

/// What changes in which ConfigMap. Nothing does that is a copy already, when this step runs again.
async fn copies() -> anyhow::Result<Vec<(String, Json)>> {
    let maps = MONITORING.json(&["configmaps"]).await?;
    let (mut files, mut changed) = (0, Vec::new());
    for map in maps["items"].as_array().into_iter().flatten() {
        let mut data = serde_json::Map::new();
        for (name, text) in map["data"].as_object().into_iter().flatten() {
            let text = text.as_str().unwrap_or_default();
            let Some(copy) = scale::scaled(name, text, SINK)? else {
                continue;
            };
            files += 1;
            if !text.contains("interval: 1s") {
                data.insert(name.clone(), json!(copy));
            }
        }
        if !data.is_empty() {
            let name = map["metadata"]["name"].as_str().unwrap_or_default();
            changed.push((name.to_owned(), Json::Object(data)));
        }
    }
    ensure!(
        files >= 3,
        "of the ConfigMaps with Prometheus's and Alertmanager's configurations and the rules, some are missing"
    );
    Ok(changed)
}
