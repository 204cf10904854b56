//! New certificates between the services, without a restart.

use super::{
    cluster::{COMPONENTS, every_second, ready, scrape},
    kubectl,
};
use crate::setup::Setup;
use anyhow::{Context as _, ensure};
use std::{collections::BTreeMap, process::Stdio};
use tokio::process::Command;

/// When the certificate in use ends, seconds since 1970.
const EXPIRY: &str = "tls_certificate_expiry_timestamp_seconds";
const RELOADS: &str = "tls_reloads_total";

/// Makes new ones as an operator would, and waits until each pod uses its own.
pub(super) async fn rotate(setup: &Setup) -> anyhow::Result<String> {
    let before = expiries().await?;
    ensure!(
        before.values().all(|expiry| *expiry > 0.0),
        "not all pods have certificates: {before:?}"
    );
    let output = Command::new("sh")
        .arg(setup.root.join("deploy/kubernetes/secrets.sh"))
        .arg("--rotate-tls")
        .stdin(Stdio::null())
        .output()
        .await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "secrets.sh --rotate-tls: {}",
        complaint.trim()
    );
    // A kubelet brings changed Secrets when it next looks at a pod, within a minute or so; a change to the pod makes it
    // look at once.
    for component in COMPONENTS {
        let selector = format!("--selector=app.kubernetes.io/name={component}");
        let note = format!("devops-mcp.test/rotated={}", crate::load::watch::now());
        kubectl(&["annotate", "pods", &selector, &note, "--overwrite"]).await?;
    }
    every_second("all pods to use the new certificates", async || {
        let now = expiries().await.ok()?;
        now.iter()
            .all(|(pod, expiry)| before.get(pod).is_none_or(|before| expiry > before))
            .then_some(())
    })
    .await?;
    for pod in before.keys() {
        let failed = scrape(pod)
            .await
            .context("after the rotation")?
            .sum(RELOADS, &[("result", "failed")]);
        ensure!(failed == 0.0, "{pod} refused the new certificate {failed} times");
    }
    Ok(format!(
        "{} pods use new certificates, none restarted",
        before.len()
    ))
}

/// When each pod's certificate ends; 0 where it has none.
async fn expiries() -> anyhow::Result<BTreeMap<String, f64>> {
    let mut expiries = BTreeMap::new();
    for component in COMPONENTS {
        for pod in ready(component).await? {
            let expiry = scrape(&pod).await?.sum(EXPIRY, &[]);
            expiries.insert(pod, expiry);
        }
    }
    Ok(expiries)
}
