//! `kubectl` as a child process, in one namespace.

use anyhow::{Context as _, ensure};
use e2e::Json;
use serde_json::json;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// The three services.
pub(crate) const SERVICES: Kubectl = Kubectl("devops-mcp");
/// What watches them.
pub(crate) const MONITORING: Kubectl = Kubectl("devops-mcp-monitoring");
/// The collector of the nodes' logs.
pub(crate) const LOGS: Kubectl = Kubectl("devops-mcp-logs");

/// Objects that name their namespaces themselves, and those that have none.
pub(crate) const CLUSTER: Kubectl = Kubectl("");

/// `kubectl --namespace NAME`; the cluster is the one that `KUBECONFIG` names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kubectl(pub(crate) &'static str);

impl Kubectl {
    /// The namespace.
    pub(crate) const fn namespace(self) -> &'static str {
        self.0
    }

    /// `kubectl ARGUMENTS`; what it prints.
    ///
    /// # Errors
    /// When it fails; with what it complained about.
    pub(crate) async fn run(self, arguments: &[&str]) -> anyhow::Result<String> {
        self.said(arguments, None).await.map(|said| said.out)
    }

    /// The same with something to read, and warnings kept apart.
    ///
    /// # Errors
    /// When it fails; with what it complained about.
    pub(crate) async fn said(self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<Said> {
        let mut child = self
            .command(arguments)
            .stdin(input.map_or_else(Stdio::null, |_| Stdio::piped()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(
            output.status.success(),
            "kubectl {}: {err}{}",
            arguments.join(" "),
            if err.is_empty() { &out } else { "" }
        );
        Ok(Said { out, err })
    }

    /// Applies objects; what warnings the API server gave.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub(crate) async fn apply(self, objects: &[Json]) -> anyhow::Result<String> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string();
        Ok(self.said(&["apply", "-f", "-"], Some(&list)).await?.err)
    }

    /// `kubectl get WHAT… -o json`; a list has its objects in `items`.
    ///
    /// # Errors
    /// When there is no such object.
    pub(crate) async fn json(self, what: &[&str]) -> anyhow::Result<Json> {
        let mut arguments = vec!["get", "--output=json"];
        arguments.extend(what);
        let text = self.run(&arguments).await?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {}: {text}", what.join(" ")))
    }

    /// The pods of a component (its `app.kubernetes.io/name`) that are not being deleted.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub(crate) async fn pods(self, component: &str) -> anyhow::Result<Vec<Json>> {
        let selector = format!("--selector=app.kubernetes.io/name={component}");
        let list = self.json(&["pods", &selector]).await?;
        let all = list["items"].as_array().into_iter().flatten();
        Ok(all
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .cloned()
            .collect())
    }

    /// Waits until a workload (`deployment/worker`) is as it should be.
    ///
    /// # Errors
    /// When it is not in that time; with what kubectl says of it.
    pub(crate) async fn rollout_status(self, workload: &str, limit: Duration) -> anyhow::Result<()> {
        let limit = timeout(limit);
        self.run(&["rollout", "status", workload, &limit]).await?;
        Ok(())
    }

    /// Starts all pods of a workload anew, the rolling way.
    ///
    /// # Errors
    /// When there is no such workload.
    pub(crate) async fn restart(self, workload: &str) -> anyhow::Result<()> {
        self.run(&["rollout", "restart", workload]).await?;
        Ok(())
    }

    /// Sets the number of a workload's replicas; does not wait.
    ///
    /// # Errors
    /// When there is no such workload.
    pub(crate) async fn scale(self, workload: &str, replicas: u32) -> anyhow::Result<()> {
        let replicas = format!("--replicas={replicas}");
        self.run(&["scale", workload, &replicas]).await?;
        Ok(())
    }

    /// Deletes objects (`["job/load", "pod/a"]`) where they are there; does not wait until they are gone.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn delete(self, what: &[&str]) -> anyhow::Result<()> {
        let mut arguments = vec!["delete", "--ignore-not-found", "--wait=false"];
        arguments.extend(what);
        self.run(&arguments).await?;
        Ok(())
    }

    /// Evicts a pod, as draining its node would: a PodDisruptionBudget may forbid it.
    ///
    /// # Errors
    /// When it is forbidden, or there is no such pod.
    pub(crate) async fn evict(self, pod: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", self.0);
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": self.0 },
        });
        let arguments = ["create", "--raw", &path, "-f", "-"];
        self.said(&arguments, Some(&body.to_string())).await?;
        Ok(())
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// When there is no such object, or it would not be valid.
    pub(crate) async fn patch(self, what: &str, patch: &Json) -> anyhow::Result<()> {
        let patch = format!("--patch={patch}");
        self.run(&["patch", what, "--type=merge", &patch]).await?;
        Ok(())
    }

    /// The log so far of a pod or workload.
    ///
    /// # Errors
    /// When it has none.
    pub(crate) async fn logs(self, of: &str) -> anyhow::Result<String> {
        self.run(&["logs", of]).await
    }

    /// Its lines as they come, until it ends; it must have started. The child is killed when dropped.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub(crate) fn follow(self, of: &str) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>)> {
        use tokio::io::AsyncBufReadExt as _;
        let mut child = self
            .command(&["logs", "--follow", of])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting kubectl")?;
        let stdout = child.stdout.take().context("it is piped")?;
        Ok((child, BufReader::new(stdout).lines()))
    }

    fn command(self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        if !self.0.is_empty() {
            command.args(["--namespace", self.0]);
        }
        command.args(arguments);
        command
    }
}

/// What kubectl said.
pub(crate) struct Said {
    /// Its answer.
    pub(crate) out: String,
    /// The API server's warnings among them.
    pub(crate) err: String,
}

fn timeout(limit: Duration) -> String {
    format!("--timeout={}s", limit.as_secs())
}
