//! From nothing to everything ready, as a person would do it: Secrets, the services, the monitoring, and no edits.

use crate::{
    inside::why,
    kubectl::{CLUSTER, Kubectl, LOGS, MONITORING, SERVICES},
    overlay,
    setup::Setup,
};
use anyhow::{Context as _, ensure};
use e2e::{Json, alerts::scale::ROUTING_KEY};
use futures_util::future::try_join_all;
use serde_json::json;
use std::{
    fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, process::Stdio, time::Duration,
};
use tokio::process::Command;
use uuid::Uuid;

/// All that is made.
const ALL: [Kubectl; 3] = [SERVICES, MONITORING, LOGS];
/// On namespaces that this made, and may therefore remove.
pub(crate) const MADE_BY: &str = "devops-mcp.test/made-by";
pub(crate) const US: &str = "cluster-test";
/// Until everything is ready, on a slow machine: images are in the cluster already, or are fetched meanwhile.
const READY: Duration = Duration::from_secs(300);
/// Until everything of the namespaces is gone.
const GONE: Duration = Duration::from_secs(240);
/// Where Alertmanager finds the sink.
pub(crate) const SINK: &str = "http://alert-sink:8080";

/// Installs everything.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<()> {
    from_nothing().await?;
    secrets(setup).await?;
    let services = overlay::services(setup)?;
    let monitoring = overlay::monitoring(setup)?;
    apply(&services).await?;
    apply(&monitoring).await?;
    try_join_all(ALL.map(ready)).await?;
    if setup.without_grafana {
        println!("   LEFT OUT: Grafana, whose image cannot be had here");
    }
    Ok(())
}

/// Removes everything that a run has made, and nothing else.
pub(crate) async fn remove() -> anyhow::Result<()> {
    let (selector, limit) = (
        format!("--selector={MADE_BY}={US}"),
        format!("--timeout={}s", GONE.as_secs()),
    );
    let said = CLUSTER
        .run(&["delete", "namespaces", &selector, "--wait", &limit])
        .await?;
    println!("   removed: {}", said.replace('\n', ", "));
    Ok(())
}

/// Makes sure that what is there was made by this test: the other steps disturb what they find.
pub(crate) async fn ours() -> anyhow::Result<()> {
    for namespace in ALL {
        let name = namespace.namespace();
        let found = CLUSTER.json(&["namespace", name]).await?;
        ensure!(
            found["metadata"]["labels"][MADE_BY] == US,
            "this test has not made the namespace {name}, and would disturb what runs there: \
             run the step install first"
        );
    }
    Ok(())
}

/// Makes sure that there is nothing, what an earlier run left removed.
async fn from_nothing() -> anyhow::Result<()> {
    let mut left = false;
    for namespace in ALL {
        let name = namespace.namespace();
        let found = namespace
            .run(&["get", "namespace", name, "--ignore-not-found", "--output=json"])
            .await?;
        if found.is_empty() {
            continue;
        }
        let found: Json = serde_json::from_str(&found)?;
        ensure!(
            found["metadata"]["labels"][MADE_BY] == US,
            "there is a namespace {name} that this test has not made: it starts from nothing, and would remove it. \
             Remove it by hand, or take another cluster"
        );
        left = true;
    }
    if left {
        println!("   an earlier run's namespaces are removed first");
        remove().await?;
    }
    Ok(())
}

/// Makes all Secrets: by `secrets.sh`, and what only the throw-away parts want.
async fn secrets(setup: &Setup) -> anyhow::Result<()> {
    let password = Uuid::now_v7().simple().to_string();
    let file = setup.work.join("exporter_password");
    private(&file, &password)?;
    let output = Command::new("sh")
        .arg(setup.root.join("deploy/kubernetes/secrets.sh"))
        .args([
            "--database-url",
            "postgres://devops_mcp@postgres.devops-mcp:5432/devops_mcp?sslmode=disable",
        ])
        .args([
            "--redis-url",
            "redis://redis.devops-mcp:6379",
            "--exporter-password-file",
        ])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .await
        .context("starting secrets.sh")?;
    // First of all: what this has made must be known by it, whatever comes.
    for namespace in [SERVICES, MONITORING] {
        label(namespace).await?;
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "secrets.sh: {}", complaint.trim());
    secret(
        SERVICES,
        "postgres-exporter-role",
        &json!({ "password": password }),
    )
    .await?;
    let told = json!({
        "slack_webhook_url": format!("{SINK}/slack"),
        "pagerduty_routing_key": ROUTING_KEY,
        "dead_man_url": format!("{SINK}/dead-man"),
        "incidents_url": format!("{SINK}/agents"),
        "incidents_api_key": "nobody's",
    });
    secret(MONITORING, "alertmanager", &told).await
}

async fn secret(of: Kubectl, name: &str, data: &Json) -> anyhow::Result<()> {
    let metadata = json!({ "name": name, "namespace": of.namespace() });
    let object = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data });
    // What `secrets.sh` made was not applied: there is no former configuration to compare with.
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    of.said(&arguments, Some(&object.to_string())).await?;
    Ok(())
}

fn private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path).with_context(|| path.display().to_string());
    Ok(file?.write_all(text.as_bytes())?)
}

async fn label(namespace: Kubectl) -> anyhow::Result<()> {
    let label = format!("{MADE_BY}={US}");
    let name = namespace.namespace();
    CLUSTER.run(&["label", "namespace", name, &label]).await?;
    Ok(())
}

/// Applies an overlay; a warning is a finding, for the Pod Security standard only warns about Deployments.
pub(crate) async fn apply(overlay: &Path) -> anyhow::Result<()> {
    let folder = overlay.display().to_string();
    let said = CLUSTER.said(&["apply", "--kustomize", &folder], None).await?;
    println!("   {} objects of {folder}", said.out.lines().count());
    ensure!(said.err.is_empty(), "the API server warns:\n{}", said.err);
    Ok(())
}

/// Waits until every workload of a namespace is as it should be; what a person would look at when one is not.
async fn ready(namespace: Kubectl) -> anyhow::Result<()> {
    let kinds = "deployments,statefulsets,daemonsets";
    let names = namespace.run(&["get", kinds, "--output=name"]).await?;
    let waits = names.lines().map(|name| namespace.rollout_status(name, READY));
    match try_join_all(waits).await {
        Ok(_) => {
            println!(
                "   ready in {}: {}",
                namespace.namespace(),
                names.replace('\n', ", ")
            );
            Ok(())
        }
        Err(error) => Err(error.context(why(namespace, &[]).await)),
    }
}
