//! `cargo xtask cluster-test`: the Kubernetes manifests on a real cluster, from nothing to the page at night.
//!
//! What is proven stands in `tests/src/bin/cluster`, a file a step; this makes the images, brings them into the cluster,
//! and leaves nothing behind. It knows nothing of the cluster but what kubectl tells.

mod load;
mod tests_image;

use crate::{
    dev::EnvFile,
    images,
    integration::END_TO_END,
    process::{self, Told},
    stack::{Variables, docker},
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// The steps of the program `cluster`, in their order.
const STEPS: [&str; 7] = [
    "install",
    "end-to-end",
    "targets",
    "request",
    "disruptions",
    "rollouts",
    "alert",
];
/// Images of compose that have no place here: what others are built on, and what collects logs otherwise.
const ELSEWHERE: [&str; 3] = ["BUILDER_IMAGE", "RUNTIME_IMAGE", "PROMTAIL_IMAGE"];
const GRAFANA: &str = "GRAFANA_IMAGE";

/// Installs everything on the Kubernetes cluster that KUBECONFIG names, and proves it there.
///
/// In order: the images; production's manifests, made small, with a throw-away PostgreSQL and Redis, and the monitoring,
/// from nothing; the end-to-end tests through the Services; Prometheus's targets; one request in metrics, logs and traces;
/// load while pods come and go; rollouts that cannot succeed; and an alert. The namespaces devops-mcp,
/// devops-mcp-monitoring and devops-mcp-logs must not be there before, and are removed at the end.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// More variables over deploy/.env: image names from a mirror, for example
    #[arg(long, value_name = "FILE")]
    images_env: Option<PathBuf>,
    /// What brings images of the local Docker engine into the cluster, their names as further arguments: `kind load
    /// docker-image`, `k3d image import`. Without it the cluster must be able to pull them
    #[arg(long, value_name = "COMMAND")]
    load: Option<String>,
    /// How the services are compiled
    #[arg(long, value_enum, default_value_t = images::Profile::Release)]
    profile: images::Profile,
    /// Take the services' images, and that of the tests, as they are
    #[arg(long)]
    no_build: bool,
    /// Leave everything there, to look at it
    #[arg(long)]
    keep: bool,
    /// Only these steps
    #[arg(long, value_delimiter = ',', value_parser = STEPS)]
    only: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    ensure_cluster()?;
    let started = Instant::now();
    let work = workspace.target.join("cluster-test");
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let variables = Variables::load(&workspace, args.images_env.as_deref())?;
    workspace.build(false)?;
    let run = Run {
        args,
        images: Images::of(&workspace, variables)?,
        workspace,
        work,
    };
    let result = run.all();
    if args.keep {
        println!("Everything stays, until the next run: kubectl get all --namespace devops-mcp");
    } else {
        run.program(&["remove"])?;
    }
    let passed = result?;
    println!("cluster-test took {:.0} s", started.elapsed().as_secs_f32());
    if passed { Ok(()) } else { Err(Told(1).into()) }
}

/// Makes sure that there is a cluster to talk to.
fn ensure_cluster() -> anyhow::Result<()> {
    ensure!(
        process::on_path("kubectl").is_some(),
        "kubectl is not installed: https://kubernetes.io/docs/tasks/tools"
    );
    let mut command = Command::new("kubectl");
    command.args(["--request-timeout=10s", "get", "--raw", "/readyz"]);
    let answer = command.stdin(Stdio::null()).output()?;
    ensure!(
        answer.status.success(),
        "no cluster answers; KUBECONFIG names one: {}",
        String::from_utf8_lossy(&answer.stderr).trim()
    );
    Ok(())
}

struct Run<'a> {
    args: &'a Args,
    workspace: Workspace,
    images: Images,
    /// Generated files.
    work: PathBuf,
}

impl Run<'_> {
    /// Whether every step passed.
    fn all(&self) -> anyhow::Result<bool> {
        if !self.args.no_build {
            println!("\n== images");
            docker::ensure_engine()?;
            images::from_host(&self.workspace, self.args.profile, &self.images.variables)?;
            tests_image::build(&self.workspace, &self.work, &self.images.variables)?;
        }
        if let Some(command) = &self.args.load {
            println!("\n== images into the cluster");
            load::changed(command, &self.images.used(), &self.work.join("loaded"))?;
        }
        let root = shown(&self.workspace.root);
        let work = shown(&self.work);
        let tests = END_TO_END.join(",");
        let mut arguments = vec!["run", "--root", &root, "--work", &work, "--tests", &tests];
        arguments.extend(["--tests-image", tests_image::NAME]);
        for replacement in &self.images.replaced {
            arguments.extend(["--image", replacement]);
        }
        if !self.images.has_grafana() {
            arguments.push("--without-grafana");
        }
        let only = self.args.only.join(",");
        if !only.is_empty() {
            arguments.extend(["--only", &only]);
        }
        self.program(&arguments)
    }

    /// Runs the steps' program; whether it ended well.
    fn program(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        let mut command = Command::new(self.workspace.bin(false, "cluster")?);
        command.current_dir(&self.workspace.root).args(arguments);
        Ok(process::run_to_end(&mut command)?.success())
    }
}

/// The images that the manifests name, and what is taken instead.
struct Images {
    variables: Variables,
    /// `NAME=IMAGE`, where another is taken than the manifests name.
    replaced: Vec<String>,
}

impl Images {
    /// The manifests name those of deploy/.env.
    fn of(workspace: &Workspace, variables: Variables) -> anyhow::Result<Self> {
        let file = workspace.root.join("deploy/.env");
        let named: BTreeMap<_, _> = EnvFile::of(&file).read()?.into_iter().collect();
        let is_here = |name: &&String| name.ends_with("_IMAGE") && !ELSEWHERE.contains(&name.as_str());
        let replaced = named.keys().filter(is_here).filter_map(|name| {
            let (before, now) = (&named[name], variables.get(name));
            (before != now).then(|| format!("{}={now}", repository(before)))
        });
        let replaced = replaced.collect();
        Ok(Self { variables, replaced })
    }

    fn has_grafana(&self) -> bool {
        self.variables.profile("grafana")
    }

    /// All that run in the cluster.
    fn used(&self) -> Vec<String> {
        let wanted = |name: &str| {
            name.ends_with("_IMAGE") && !ELSEWHERE.contains(&name) && (name != GRAFANA || self.has_grafana())
        };
        let all = self.variables.all().filter(|(name, _)| wanted(name));
        let mut images: Vec<String> = all.map(|(_, image)| image.clone()).collect();
        images.push(tests_image::NAME.to_owned());
        images
    }
}

/// An image's name without its tag: a registry's port is none.
fn repository(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_cut_off_and_a_port_is_not() {
        assert_eq!(repository("prom/prometheus:v3"), "prom/prometheus");
        assert_eq!(repository("mirror:5000/prometheus"), "mirror:5000/prometheus");
    }
}
