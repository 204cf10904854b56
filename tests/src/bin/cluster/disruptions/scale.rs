//! More and fewer replicas, by the bounds of the autoscalers; with three, each has its part of the load.

use super::cluster::{COMPONENTS, by_pod, have, one_settled};
use crate::kubectl::SERVICES;
use anyhow::ensure;
use e2e::Json;
use futures_util::future::try_join_all;
use serde_json::json;
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};
use tokio::time::sleep;

/// How long the load is watched with three replicas.
const WATCHED: Duration = Duration::from_secs(25);
/// Until connections from before have been replaced: the load keeps them for 10 s, gRPC resolves names more often.
const SPREADS: Duration = Duration::from_secs(12);
/// The least part of a component's requests that each of three replicas must have, where clients spread each call; and
/// where a Service spreads connections: the load has few of them, and those of a session all go to one.
const CALLS: f64 = 0.20;
const CONNECTIONS: f64 = 0.02;
/// What is counted where, and the least part.
const COUNTED: [(&str, &str, f64); 4] = [
    ("rest-api", "http_requests_total", CONNECTIONS),
    ("rest-api", "grpc_server_requests_total", CALLS),
    ("mcp-server", "http_requests_total", CONNECTIONS),
    ("worker", "grpc_server_requests_total", CALLS),
];

/// The autoscalers' bounds, to be set back.
struct Bounds([Json; 3]);

/// Does `work` with so many replicas of each component, neither more nor fewer, whatever their load.
///
/// # Errors
/// When they do not come up, or the work fails.
pub(crate) async fn with<T>(
    count: usize,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let bounds = fix(count).await?;
    let done = work.await;
    bounds.restore().await?;
    done
}

async fn fix(count: usize) -> anyhow::Result<Bounds> {
    let [a, b, c] = COMPONENTS.map(bounds);
    let (a, b, c) = tokio::try_join!(a, b, c)?;
    all_to(count).await?;
    Ok(Bounds([a, b, c]))
}

impl Bounds {
    /// Leaves the number to the autoscalers again.
    async fn restore(&self) -> anyhow::Result<()> {
        for (component, spec) in COMPONENTS.iter().zip(&self.0) {
            SERVICES
                .patch(&format!("hpa/{component}"), &json!({ "spec": spec }))
                .await?;
        }
        Ok(())
    }
}

/// From three replicas to one, back to three, and to one again.
pub(super) async fn up_and_down() -> anyhow::Result<String> {
    all_to(1).await?;
    all_to(3).await?;
    sleep(SPREADS).await;
    let begin = try_join_all(COUNTED.map(|(component, metric, _)| by_pod(component, metric))).await?;
    sleep(WATCHED).await;
    let end = try_join_all(COUNTED.map(|(component, metric, _)| by_pod(component, metric))).await?;
    let mut told = "3, 1, 3, 1 replicas".to_owned();
    let mut unfair = Vec::new();
    for (((component, metric, fair), begin), end) in COUNTED.iter().zip(&begin).zip(&end) {
        let shares = shares(begin, end);
        let kind = metric.split('_').next().unwrap_or_default();
        let text: Vec<_> = shares
            .iter()
            .map(|share| format!("{:.0}", share * 100.0))
            .collect();
        let _ = write!(told, "; {component} {kind} {} %", text.join("/"));
        if shares.len() != 3 || shares.iter().any(|share| share < fair) {
            unfair.push(format!("{component} {kind}"));
        }
    }
    all_to(1).await?;
    ensure!(
        unfair.is_empty(),
        "{told}: not a fair part for each replica of {}",
        unfair.join(", ")
    );
    Ok(told)
}

/// Each pod's part of what was counted between.
fn shares(begin: &BTreeMap<String, f64>, end: &BTreeMap<String, f64>) -> Vec<f64> {
    let counts = end
        .iter()
        .filter_map(|(pod, count)| Some(count - begin.get(pod)?));
    let counts: Vec<f64> = counts.collect();
    let all: f64 = counts.iter().sum();
    counts.iter().map(|count| count / all.max(1.0)).collect()
}

/// What an autoscaler's bounds are now.
async fn bounds(component: &str) -> anyhow::Result<Json> {
    let spec = &SERVICES.json(&[&format!("hpa/{component}")]).await?["spec"];
    Ok(json!({ "minReplicas": spec["minReplicas"], "maxReplicas": spec["maxReplicas"] }))
}

async fn all_to(count: usize) -> anyhow::Result<()> {
    let bounds = json!({ "spec": { "minReplicas": count, "maxReplicas": count } });
    try_join_all(COMPONENTS.map(async |component| {
        SERVICES.patch(&format!("hpa/{component}"), &bounds).await?;
        have(component, count).await?;
        one_settled(component).await
    }))
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_what_was_counted_meanwhile() {
        let counts = |all: &[(&str, f64)]| {
            all.iter()
                .map(|(pod, count)| ((*pod).to_owned(), *count))
                .collect()
        };
        let shares = shares(
            &counts(&[("a", 100.0), ("b", 0.0)]),
            &counts(&[("a", 130.0), ("b", 10.0)]),
        );
        assert_eq!(shares, [0.75, 0.25]);
    }
}
