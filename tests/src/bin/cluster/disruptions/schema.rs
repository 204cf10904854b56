//! From one version of the schema to the next and back, with pods of both versions at work.

use super::{
    cluster::{every_second, is_ready, name, one_settled},
    kubectl,
};
use crate::kubectl::SERVICES;
use anyhow::Context as _;
use e2e::Json;
use std::collections::BTreeMap;

const REST_API: &str = "deployment/rest-api";
/// What makes a rest-api the next version.
const NEXT: &str = "DEVOPS_MCP__TEST_FAULTS=next_migration";

/// Rolls rest-api to the next version and stops half-way: there a pod of the old version dies, and its successor, of the
/// old version too, must start on the new schema. Then on to the end, and back.
pub(super) async fn next() -> anyhow::Result<String> {
    let old = hashes().await?.into_keys().collect::<Vec<_>>();
    kubectl(&["set", "env", REST_API, NEXT]).await?;
    let result = half_way(&old).await;
    // Whatever came of it, it does not stay half-way.
    let resumed = kubectl(&["rollout", "resume", REST_API]).await;
    let told = result?;
    resumed?;
    one_settled("rest-api")
        .await
        .context("rolling on to the next version")?;
    kubectl(&["rollout", "undo", REST_API]).await?;
    one_settled("rest-api")
        .await
        .context("the old version on the next schema")?;
    Ok(told)
}

async fn half_way(old: &[String]) -> anyhow::Result<String> {
    every_second("a pod of the next version to be ready", async || {
        let ready = hashes().await.ok()?;
        ready.keys().any(|hash| !old.contains(hash)).then_some(())
    })
    .await?;
    kubectl(&["rollout", "pause", REST_API]).await?;
    let ready = hashes().await?;
    let pods = ready
        .iter()
        .find(|(hash, _)| old.contains(hash))
        .map(|(_, pods)| pods.clone());
    let pods = pods.context("the old version is gone already")?;
    kubectl(&["delete", "pod", &pods[0], "--wait=false"]).await?;
    every_second("the old version to start on the next schema", async || {
        let ready = hashes().await.ok()?;
        let (_, now) = ready.iter().find(|(hash, _)| old.contains(hash))?;
        (now.len() >= pods.len() && now.iter().any(|pod| !pods.contains(pod))).then_some(())
    })
    .await?;
    Ok("there, an old pod started anew half-way, and back".to_owned())
}

/// The ready pods of rest-api by their version.
async fn hashes() -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut hashes = BTreeMap::<_, Vec<_>>::new();
    let pods = SERVICES.pods("rest-api").await?;
    for pod in pods.iter().filter(|pod: &&Json| is_ready(pod)) {
        let hash = pod["metadata"]["labels"]["pod-template-hash"]
            .as_str()
            .unwrap_or_default();
        hashes
            .entry(hash.to_owned())
            .or_default()
            .push(name(pod).to_owned());
    }
    Ok(hashes)
}
