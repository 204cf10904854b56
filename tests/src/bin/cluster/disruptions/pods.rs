//! Pods that end: in rollouts, at random, and the database's.

use super::{
    cluster::{COMPONENTS, deployments, every_second, is_ready, ready, settled},
    kubectl,
};
use crate::kubectl::SERVICES;
use anyhow::ensure;
use rand::seq::IndexedRandom as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often one pod of each component is deleted, and how long that takes.
const ROUNDS: usize = 5;
/// Between rounds.
const PAUSE: Duration = Duration::from_secs(7);
/// PostgreSQL's pod.
const DATABASE: &str = "--selector=app.kubernetes.io/name=postgres";

/// A rolling restart of all three at once.
pub(super) async fn restart() -> anyhow::Result<String> {
    let deployments = deployments();
    let [a, b, c] = &deployments;
    kubectl(&["rollout", "restart", a, b, c]).await?;
    settled().await?;
    Ok("rolling, all three at once".to_owned())
}

/// Every few seconds one pod of each component, whichever; never the last that is ready, which no client could survive.
pub(super) async fn delete_at_random() -> anyhow::Result<String> {
    let mut deleted = 0;
    for _ in 0..ROUNDS {
        for component in COMPONENTS {
            let ready = ready(component).await?;
            if ready.len() < 2 {
                continue;
            }
            if let Some(pod) = ready.choose(&mut rand::rng()) {
                kubectl(&["delete", "pod", pod, "--wait=false"]).await?;
                deleted += 1;
            }
        }
        sleep(PAUSE).await;
    }
    settled().await?;
    Ok(format!(
        "{deleted} pods within {} s",
        (PAUSE * ROUNDS as u32).as_secs()
    ))
}

/// Ends PostgreSQL's pod; its successor finds the data of before.
pub(super) async fn restart_database() -> anyhow::Result<String> {
    let before = database().await?;
    ensure!(before.is_some(), "PostgreSQL is not ready");
    let started = Instant::now();
    kubectl(&["delete", "pod", DATABASE, "--wait=false"]).await?;
    every_second("PostgreSQL's new pod", async || {
        let now = database().await.ok()??;
        (Some(&now) != before.as_ref()).then_some(())
    })
    .await?;
    let away = started.elapsed().as_secs();
    // Its clients come back on their own.
    sleep(Duration::from_secs(5)).await;
    settled().await?;
    Ok(format!("its only pod deleted, the next one ready {away} s later"))
}

/// The identity of PostgreSQL's pod, while it is ready.
async fn database() -> anyhow::Result<Option<String>> {
    let pods = SERVICES.pods("postgres").await?;
    let ready = pods.iter().find(|pod| is_ready(pod));
    Ok(ready
        .and_then(|pod| pod["metadata"]["uid"].as_str())
        .map(str::to_owned))
}
