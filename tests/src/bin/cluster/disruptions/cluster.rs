//! What the disruptions ask the cluster about the three services.

use crate::kubectl::SERVICES;
use anyhow::{Context as _, ensure};
use e2e::{Json, scrape::Scrape, wait_at_most};
use futures_util::future::try_join_all;
use std::{collections::BTreeMap, time::Duration};

/// The three services.
pub(crate) const COMPONENTS: [&str; 3] = ["rest-api", "mcp-server", "worker"];
/// Until pods are as they should be, on a slow cluster.
pub(crate) const SETTLES: Duration = Duration::from_secs(180);

/// Waits until each Deployment has the pods that it should have, all of them ready and of the newest kind, and no
/// others.
///
/// # Errors
/// When one does not come about.
pub(crate) async fn settled() -> anyhow::Result<()> {
    try_join_all(COMPONENTS.map(one_settled)).await.map(drop)
}

/// The same of one.
///
/// # Errors
/// When it does not come about.
pub(crate) async fn one_settled(component: &str) -> anyhow::Result<()> {
    SERVICES
        .rollout_status(&format!("deployment/{component}"), SETTLES)
        .await?;
    let selector = format!("--selector=app.kubernetes.io/name={component}");
    // Old pods have an end to come to; their requests are the disruption's, too.
    every_second(&format!("{component}'s old pods to be gone"), async || {
        let wanted =
            SERVICES.json(&[&format!("deployment/{component}")]).await.ok()?["spec"]["replicas"].as_u64()?;
        let pods = SERVICES.json(&["pods", &selector]).await.ok()?;
        let pods = pods["items"].as_array()?;
        (pods.len() as u64 == wanted && pods.iter().all(is_ready)).then_some(())
    })
    .await
}

/// Asks once a second, for a kubectl is not cheap.
///
/// # Errors
/// When nothing came in [`SETTLES`].
pub(crate) async fn every_second<T>(
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let mut first = true;
    let started = tokio::time::Instant::now();
    loop {
        if !std::mem::take(&mut first) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if let Some(found) = probe().await {
            return Ok(found);
        }
        ensure!(started.elapsed() < SETTLES, "waited {SETTLES:?} in vain: {what}");
    }
}

/// A pod's name.
pub(crate) fn name(pod: &Json) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether the Service sends it requests.
pub(crate) fn is_ready(pod: &Json) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_ready = |condition: &Json| condition["type"] == "Ready" && condition["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(is_ready))
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The names of a component's pods that are ready.
///
/// # Errors
/// When the API server cannot be asked.
pub(crate) async fn ready(component: &str) -> anyhow::Result<Vec<String>> {
    let pods = SERVICES.pods(component).await?;
    let ready = pods.iter().filter(|pod| is_ready(pod));
    Ok(ready.map(|pod| name(pod).to_owned()).collect())
}

/// What a pod exposes at `/metrics`.
///
/// # Errors
/// When the API server cannot reach it.
pub(crate) async fn scrape(pod: &str) -> anyhow::Result<Scrape> {
    let namespace = SERVICES.namespace();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/metrics");
    let text = SERVICES.run(&["get", "--raw", &path]).await;
    Scrape::parse(&text.with_context(|| format!("/metrics of {pod}"))?)
}

/// A sum over all series of a metric, by pod.
///
/// # Errors
/// When a pod cannot be reached.
pub(crate) async fn by_pod(component: &str, metric: &str) -> anyhow::Result<BTreeMap<String, f64>> {
    let pods = ready(component).await?;
    let sums = pods.into_iter().map(async |pod| {
        let sum = scrape(&pod).await?.sum(metric, &[]);
        anyhow::Ok((pod, sum))
    });
    Ok(try_join_all(sums).await?.into_iter().collect())
}

/// Waits until exactly these many pods of a component are ready.
///
/// # Errors
/// When it does not come about.
pub(crate) async fn have(component: &str, count: usize) -> anyhow::Result<()> {
    every_second(&format!("{count} of {component} to be ready"), async || {
        (ready(component).await.ok()?.len() == count).then_some(())
    })
    .await
}

/// Each component's name for `kubectl`.
pub(crate) fn deployments() -> [String; 3] {
    COMPONENTS.map(|component| format!("deployment/{component}"))
}

/// Waits until Prometheus's answer to a query is there.
///
/// # Errors
/// When Prometheus cannot be asked within a minute; with why.
pub(crate) async fn prometheus(path: &str, query: &[(&str, &str)]) -> anyhow::Result<Vec<Json>> {
    let url = reqwest::Url::parse_with_params(&format!("http://prometheus/api/v1/{path}"), query)?;
    let namespace = crate::kubectl::MONITORING.namespace();
    let proxy = format!("/api/v1/namespaces/{namespace}/services/prometheus:9090/proxy");
    let raw = format!("{proxy}{}?{}", url.path(), url.query().unwrap_or_default());
    let answer = wait_at_most(Duration::from_secs(60), "Prometheus to answer", async || {
        crate::kubectl::MONITORING.run(&["get", "--raw", &raw]).await.ok()
    })
    .await?;
    let answer: Json = serde_json::from_str(&answer)?;
    let result = answer["data"]["result"].as_array();
    Ok(result.with_context(|| format!("Prometheus: {answer}"))?.clone())
}
