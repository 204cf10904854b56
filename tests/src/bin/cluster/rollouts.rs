//! Rollouts that cannot succeed: the old version goes on serving, and `kubectl` alone says why.

use crate::{
    disruptions::{
        cluster::{every_second, name, one_settled, ready},
        scale,
    },
    kubectl::SERVICES,
    load::watch::{Load, Sum, now},
    setup::Setup,
};
use anyhow::{Context as _, bail, ensure};
use e2e::Json;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// An image that no registry has, for there is none of that name.
const NO_IMAGE: &str = "registry.invalid/devops-mcp/worker:0.2.0";
/// A Secret that nobody has made.
const NO_SECRET: &str = "service-token-of-next-year";
/// As few as the autoscaler would have, and one more: what there is goes on serving.
const REPLICAS: usize = 2;
/// For so long a rollout is seen to get nowhere.
const STUCK: Duration = Duration::from_secs(3);

/// What is wrong with a rollout.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Image,
    Setting,
    Migration,
    Secret,
}

impl Bad {
    const ALL: [Self; 4] = [Self::Image, Self::Setting, Self::Migration, Self::Secret];

    fn name(self) -> &'static str {
        match self {
            Self::Image => "wrong image",
            Self::Setting => "unknown setting",
            Self::Migration => "failing migration",
            Self::Secret => "missing secret",
        }
    }

    fn component(self) -> &'static str {
        match self {
            Self::Image | Self::Secret => "worker",
            Self::Setting => "mcp-server",
            Self::Migration => "rest-api",
        }
    }

    /// Begins it.
    async fn begin(self) -> anyhow::Result<()> {
        let workload = format!("deployment/{}", self.component());
        match self {
            Self::Image => {
                let image = format!("worker={NO_IMAGE}");
                SERVICES.run(&["set", "image", &workload, &image]).await?;
            }
            Self::Setting => {
                SERVICES
                    .run(&["set", "env", &workload, "DEVOPS_MCP__SESSIONS__MAXIMUM=10"])
                    .await?;
            }
            Self::Migration => {
                let fault = "DEVOPS_MCP__TEST_FAULTS=failing_migration";
                SERVICES.run(&["set", "env", &workload, fault]).await?;
            }
            Self::Secret => {
                let patch = format!("--patch={}", other_secret(&SERVICES.json(&[&workload]).await?)?);
                SERVICES.run(&["patch", &workload, "--type=json", &patch]).await?;
            }
        }
        Ok(())
    }

    /// What `kubectl get pods` says of the new pods: any of these.
    fn status(self) -> &'static [&'static str] {
        match self {
            Self::Image => &["ErrImagePull", "ImagePullBackOff"],
            Self::Setting | Self::Migration => &["Error", "CrashLoopBackOff"],
            Self::Secret => &["ContainerCreating"],
        }
    }

    /// What `kubectl describe pod` says of them: all of these.
    fn described(self) -> &'static [&'static str] {
        match self {
            Self::Image => &[NO_IMAGE],
            Self::Setting => &["sessions.maximum"],
            Self::Migration => &["there_is_no_such_table", "failing_migration"],
            Self::Secret => &[NO_SECRET, "not found"],
        }
    }

    /// Whether `kubectl logs` says the same.
    fn has_log(self) -> bool {
        matches!(self, Self::Setting | Self::Migration)
    }
}

/// The change that names another Secret, where the first projected one is.
fn other_secret(deployment: &Json) -> anyhow::Result<Json> {
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array();
    let is_secret = |volume: &Json| volume["projected"]["sources"][0]["secret"]["name"].is_string();
    let at = volumes.and_then(|volumes| volumes.iter().position(is_secret));
    let at = at.context("the pod mounts no Secret")?;
    let path = format!("/spec/template/spec/volumes/{at}/projected/sources/0/secret/name");
    Ok(json!([{ "op": "replace", "path": path, "value": NO_SECRET }]))
}

/// Tries each of them under load.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<()> {
    scale::with(REPLICAS, under_load(setup)).await
}

async fn under_load(setup: &Setup) -> anyhow::Result<()> {
    let load = Load::start(setup).await?;
    let mut harmful = Vec::new();
    println!(
        "   {:<19}{:>4}{:>10}{:>8}{:>12}  why, as kubectl tells",
        "rollout", "s", "requests", "failed", "slowest ms"
    );
    for bad in Bad::ALL {
        let (started, from) = (Instant::now(), now());
        let told = one(bad).await;
        let sum = load.since(from).await?;
        print(bad, started.elapsed(), &told, &sum, from);
        if told.is_err() || sum.failed > 0 || sum.lost > 0 {
            harmful.push(bad.name());
        }
    }
    load.stop().await?;
    if !harmful.is_empty() {
        bail!("not as it should be: {}", harmful.join(", "));
    }
    Ok(())
}

fn print(bad: Bad, took: Duration, told: &anyhow::Result<String>, sum: &Sum, from: f64) {
    let told = match told {
        Ok(told) => told.clone(),
        Err(error) => format!("FAILED: {error:#}"),
    };
    let (took, slowest) = (took.as_secs_f64(), sum.slowest.1);
    let name = bad.name();
    println!(
        "   {name:<19}{took:>4.0}{:>10}{:>8}{slowest:>12.0}  {told}",
        sum.requests, sum.failed
    );
    print!("{}", sum.failures(from));
}

async fn one(bad: Bad) -> anyhow::Result<String> {
    let component = bad.component();
    let workload = format!("deployment/{component}");
    let before = ready(component).await?;
    bad.begin().await?;
    let told = stuck(bad, &before).await;
    // Healed in any case, or the next one would begin with this one's fault.
    SERVICES.run(&["rollout", "undo", &workload]).await?;
    one_settled(component)
        .await
        .context("after kubectl rollout undo")?;
    let after = ready(component).await?;
    let told = told?;
    ensure!(
        before.iter().all(|pod| after.contains(pod)),
        "an old pod did not outlive it: {before:?}, {after:?}"
    );
    Ok(told)
}

/// Waits until the reason can be read, and sees that the rollout gets nowhere.
async fn stuck(bad: Bad, before: &[String]) -> anyhow::Result<String> {
    let component = bad.component();
    let mut seen = String::new();
    let told = every_second("the reason to be told", async || {
        match reason(bad, before).await {
            Ok(told) => Some(told),
            Err(error) => {
                seen = format!("{error:#}");
                None
            }
        }
    });
    let told = told.await.with_context(|| seen.clone())?;
    let workload = format!("deployment/{component}");
    let status = SERVICES.rollout_status(&workload, STUCK).await;
    ensure!(
        status.is_err(),
        "kubectl rollout status says that it has succeeded"
    );
    let now = ready(component).await?;
    ensure!(
        now.iter().all(|pod| before.contains(pod)),
        "a pod of it became ready: {now:?}"
    );
    ensure!(
        now.len() == before.len(),
        "an old pod serves no more: {before:?}, {now:?}"
    );
    sleep(Duration::from_secs(1)).await;
    Ok(told)
}

/// The line that says it, once all that a person would look at does.
async fn reason(bad: Bad, before: &[String]) -> anyhow::Result<String> {
    let pods = SERVICES.pods(bad.component()).await?;
    let new = pods
        .iter()
        .map(name)
        .find(|pod| !before.iter().any(|old| old == pod));
    let new = new.context("there is no new pod yet")?;
    let listed = SERVICES.run(&["get", "pods", new]).await?;
    let status = bad.status().iter().find(|status| listed.contains(**status));
    let status = status.with_context(|| format!("kubectl get pods: {listed}"))?;
    let described = SERVICES.run(&["describe", "pod", new]).await?;
    for word in bad.described() {
        ensure!(
            described.contains(word),
            "kubectl describe pod does not say {word}:\n{described}"
        );
    }
    if bad.has_log() {
        let log = SERVICES.logs(new).await?;
        for word in bad.described() {
            ensure!(log.contains(word), "kubectl logs does not say {word}:\n{log}");
        }
    }
    let first = bad.described()[0];
    let line = described
        .lines()
        .rev()
        .find(|line| line.contains(first))
        .unwrap_or_default();
    // Its end: log lines begin with what all of them have.
    let from = line.find(first).unwrap_or_default().saturating_sub(120);
    let around = line
        .get(from..)
        .unwrap_or(line)
        .chars()
        .take(220)
        .collect::<String>();
    Ok(format!("{status}; …{}", around.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_secret_takes_the_place_of_one_that_is_there() -> anyhow::Result<()> {
        let secret = json!({"projected": {"sources": [{"secret": {"name": "service-token"}}]}});
        let pod = json!({"volumes": [{"emptyDir": {}}, secret]});
        let patch = other_secret(&json!({"spec": {"template": {"spec": pod}}}))?;
        let path = "/spec/template/spec/volumes/1/projected/sources/0/secret/name";
        assert_eq!(patch[0]["path"], path);
        Ok(())
    }
}
