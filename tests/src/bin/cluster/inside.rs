//! Programs of the tests' image in the cluster: Jobs beside the services, with rest-api's own configuration, so that
//! `rest-api tenants create` and `rest-api keys create` work there as they are.

use crate::{
    kubectl::{Kubectl, SERVICES},
    setup::Setup,
};
use anyhow::{Context as _, ensure};
use e2e::{Json, wait_at_most};
use serde_json::json;
use std::time::Duration;

/// What the tests' own pods are called by; test-only NetworkPolicies know them by it.
pub(crate) const NAME: &str = "cluster-test";
/// How many events are shown.
const EVENTS: usize = 15;
/// Until a Job's container runs.
const START: Duration = Duration::from_secs(120);

/// A program to be run inside.
pub(crate) struct Job {
    name: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Job {
    /// `command` in a Job of this name.
    pub(crate) fn new<I: IntoIterator<Item = impl Into<String>>>(name: &str, command: I) -> Self {
        Self {
            name: name.to_owned(),
            command: command.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
        }
    }

    /// With this variable.
    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, a former one of the same name removed, and waits until its container runs or has ended.
    /// `TARGET_HOST` is its pod's address.
    ///
    /// # Errors
    /// When it does not come to run; with why.
    pub(crate) async fn start(&self, setup: &Setup) -> anyhow::Result<Running> {
        let name = format!("job/{}", self.name);
        SERVICES
            .run(&["delete", &name, "--ignore-not-found", "--cascade=foreground"])
            .await?;
        let deployment = SERVICES.json(&["deployment/rest-api"]).await?;
        let warnings = SERVICES.apply(&[self.object(setup, &deployment)?]).await?;
        ensure!(warnings.is_empty(), "{name}: {warnings}");
        let running = Running(name);
        running.started().await?;
        Ok(running)
    }

    /// Runs it to its end, its lines printed as they come, indented.
    ///
    /// # Errors
    /// When it does not succeed within `limit`.
    pub(crate) async fn run(&self, setup: &Setup, limit: Duration) -> anyhow::Result<()> {
        let running = self.start(setup).await?;
        let (_child, mut lines) = SERVICES.follow(&running.0)?;
        let print = async {
            while let Ok(Some(line)) = lines.next_line().await {
                println!("   {line}");
            }
        };
        // Its end is told by the cluster, below; this is only to be heard.
        let _ = tokio::time::timeout(limit, print).await;
        running.succeeded(limit).await?;
        running.remove().await
    }

    /// The Job, its pod made from the one of rest-api.
    fn object(&self, setup: &Setup, deployment: &Json) -> anyhow::Result<Json> {
        let mut pod = deployment["spec"]["template"]["spec"].clone();
        let spec = pod.as_object_mut().context("rest-api's Deployment has no pod")?;
        for key in ["topologySpreadConstraints", "affinity", "initContainers"] {
            spec.remove(key);
        }
        spec.insert("restartPolicy".to_owned(), json!("Never"));
        spec.insert("terminationGracePeriodSeconds".to_owned(), json!(5));
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        let volumes = volumes.as_array_mut().context("volumes are a list")?;
        volumes.push(json!({ "name": "scratch", "emptyDir": { "medium": "Memory", "sizeLimit": "256Mi" } }));
        let mut container = spec["containers"][0].clone();
        let own = container.as_object_mut().context("its pod has no container")?;
        for key in [
            "ports",
            "startupProbe",
            "livenessProbe",
            "readinessProbe",
            "lifecycle",
            "args",
        ] {
            own.remove(key);
        }
        own.insert("name".to_owned(), json!(NAME));
        own.insert("image".to_owned(), json!(setup.tests_image));
        own.insert("command".to_owned(), json!(self.command));
        own.insert(
            "resources".to_owned(),
            json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "1Gi" } }),
        );
        let mounts = own.entry("volumeMounts").or_insert_with(|| json!([]));
        let mounts = mounts.as_array_mut().context("mounts are a list")?;
        mounts.retain(|mount| mount["mountPath"] != "/tmp");
        mounts.push(json!({ "name": "scratch", "mountPath": "/tmp" }));
        let env = own.entry("env").or_insert_with(|| json!([]));
        let env = env.as_array_mut().context("variables are a list")?;
        env.push(
            json!({ "name": "TARGET_HOST", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }),
        );
        env.extend(
            self.environment
                .iter()
                .map(|(name, value)| json!({ "name": name, "value": value })),
        );
        spec.insert("containers".to_owned(), json!([container]));
        let labels = json!({ "app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "devops-mcp" });
        Ok(json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": self.name, "namespace": SERVICES.namespace(), "labels": labels },
            "spec": { "backoffLimit": 0, "template": { "metadata": { "labels": labels }, "spec": pod } },
        }))
    }
}

/// A Job that runs: `job/NAME`.
pub(crate) struct Running(String);

impl Running {
    /// `job/NAME`, for [`Kubectl::follow`] and [`Kubectl::logs`].
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Waits until it has succeeded.
    ///
    /// # Errors
    /// When it has failed, or goes on for longer than `limit`; with the last lines of its log.
    pub(crate) async fn succeeded(&self, limit: Duration) -> anyhow::Result<()> {
        let what = format!("{} to end", self.0);
        let ended = wait_at_most(limit, &what, async || {
            let job = SERVICES.json(&[&self.0]).await.ok()?;
            let conditions = job["status"]["conditions"].as_array()?.clone();
            let is = |kind: &str| {
                conditions
                    .iter()
                    .any(|condition| condition["type"] == kind && condition["status"] == "True")
            };
            (is("Complete") || is("Failed")).then(|| is("Complete"))
        });
        if ended.await? {
            return Ok(());
        }
        let log = SERVICES.run(&["logs", "--tail=15", &self.0]).await?;
        anyhow::bail!("{} failed:\n{log}", self.0)
    }

    /// Removes it, whatever it is at.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        SERVICES.delete(&[&self.0]).await
    }

    async fn started(&self) -> anyhow::Result<()> {
        let selector = format!("--selector=job-name={}", self.0.trim_start_matches("job/"));
        let what = format!("{} to start", self.0);
        let started = wait_at_most(START, &what, async || {
            let pods = SERVICES.json(&["pods", &selector]).await.ok()?;
            let phase = pods["items"][0]["status"]["phase"].as_str()?;
            (phase != "Pending").then_some(())
        });
        match started.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(why(SERVICES, &[&selector]).await)),
        }
    }
}

/// What a person would look at when pods do not come up: their states, the latest events, and the last lines of those
/// that are not ready. `narrowed` are options for `kubectl get pods`.
pub(crate) async fn why(of: Kubectl, narrowed: &[&str]) -> String {
    let look = async |arguments: &[&str]| of.run(arguments).await.unwrap_or_else(|error| error.to_string());
    let pods = look(&[&["get", "pods", "--output=wide"], narrowed].concat()).await;
    let events = look(&["get", "events", "--sort-by=.lastTimestamp"]).await;
    let older = events.lines().count().saturating_sub(EVENTS);
    let mut told = vec![format!("in {}:", of.namespace()), pods];
    told.extend(events.lines().skip(older).map(str::to_owned));
    for pod in unready(of, narrowed).await {
        told.push(format!("the last lines of {pod}:"));
        told.push(look(&["logs", &pod, "--all-containers", "--tail=8"]).await);
    }
    told.join("\n")
}

async fn unready(of: Kubectl, narrowed: &[&str]) -> Vec<String> {
    let Ok(pods) = of.json(&[&["pods"], narrowed].concat()).await else {
        return Vec::new();
    };
    let is_ready = |pod: &&Json| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let all = pods["items"].as_array().into_iter().flatten();
    all.filter(|pod| !is_ready(pod))
        .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
        .collect()
}
