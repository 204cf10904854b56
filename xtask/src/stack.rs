//! `cargo xtask stack`: the services and everything that watches them, in containers.

mod compose;
mod configuration;
pub(crate) mod docker;
mod health;
mod key;
mod summary;
mod variables;

pub(crate) use variables::Variables;

use crate::{
    images::{self, Profile},
    process::{self, Told},
    workspace::Workspace,
};
use anyhow::ensure;
use compose::Compose;
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use summary::Ready;

/// The compose files' own name for the project.
const USUAL: &str = "devops-mcp";

/// The services and what watches them, in containers (`docker compose` with the files in deploy/).
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Makes what is missing (secrets, images), starts everything, waits until all is healthy, and makes an API key
    Up(Options),
    /// Stops and removes the containers
    Down {
        #[command(flatten)]
        project: Project,
        /// Remove what they stored, too
        #[arg(long)]
        volumes: bool,
    },
    /// Shows the containers, and what is wrong with those that are not healthy
    Status {
        #[command(flatten)]
        project: Project,
    },
    /// Shows the containers' logs
    Logs {
        #[command(flatten)]
        project: Project,
        /// Go on as lines come
        #[arg(long, short)]
        follow: bool,
        /// How many lines of each
        #[arg(long, default_value = "100")]
        tail: String,
        /// Of these services only
        services: Vec<String>,
    },
}

/// Which of several stacks on this host.
#[derive(Clone, clap::Args)]
pub(crate) struct Project {
    /// The compose project's name
    #[arg(long = "project", value_name = "NAME", default_value = USUAL)]
    pub(crate) name: String,
    /// Add N to every published port
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// More variables over deploy/.env: image names from a mirror, for example
    #[arg(long, value_name = "FILE")]
    pub(crate) images_env: Option<PathBuf>,
    /// What watches without the services, for those that run elsewhere (`cargo xtask dev`)
    #[arg(long)]
    pub(crate) monitoring_only: bool,
    /// One more compose file, over those in deploy/; repeatable
    #[arg(long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Variables of the compose files that win over all others.
    #[arg(skip)]
    pub(crate) variables: Vec<(String, String)>,
}

/// How to start.
#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) project: Project,
    /// How the services are compiled
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    pub(crate) profile: Profile,
    /// Take the services' images as they are
    #[arg(long)]
    pub(crate) no_build: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match &args.command {
        Action::Up(options) => {
            let stack = Stack::up(&workspace, options)?;
            print!("{}", stack.summary());
            Ok(())
        }
        Action::Down { project, volumes } => Stack::find(&workspace, project)?.down(*volumes),
        Action::Status { project } => Stack::find(&workspace, project)?.status(),
        Action::Logs {
            project,
            follow,
            tail,
            services,
        } => {
            let mut command = Stack::find(&workspace, project)?.compose.command();
            command.args(["logs", "--tail", tail]);
            command.args(follow.then_some("--follow")).args(services);
            finish(&mut command)
        }
    }
}

/// A compose project with the stack in it.
pub(crate) struct Stack {
    compose: Compose,
    ready: Option<Ready>,
    env_file: PathBuf,
}

impl Stack {
    /// Builds, starts, and waits until all is healthy. What runs already and has not changed goes on running.
    ///
    /// # Errors
    /// What is missing on this host, what failed to start and the end of its log; the containers are left as they
    /// are then, to be looked at.
    pub(crate) fn up(workspace: &Workspace, options: &Options) -> anyhow::Result<Self> {
        let mut stack = Self::find(workspace, &options.project)?;
        let monitoring_only = options.project.monitoring_only;
        make_secrets(&stack.compose)?;
        configuration::fit(&mut stack.compose, &stack.env_file.with_extension(""))?;
        if !(options.no_build || monitoring_only) {
            images::from_host(workspace, options.profile, &stack.compose.variables)?;
        }
        let services = stack.compose.services()?;
        let mut up = stack.compose.command();
        up.args(["up", "--detach", "--no-build", "--quiet-pull"])
            .args(&services);
        let started = process::run_to_end(&mut up)?.success();
        if !started {
            health::explain(&stack.compose, &services);
            anyhow::bail!(
                "`docker compose up` failed (see above). Ports that are taken: --port-offset 100 takes others; images \
                 that cannot be had: --images-env names others, COMPOSE_PROFILES= leaves Grafana out"
            );
        }
        health::wait(&stack.compose, &services)?;
        let api_key = if monitoring_only {
            None
        } else {
            key::incidents(&stack.compose)?;
            Some(key::api_key(&stack.compose, &stack.env_file)?)
        };
        let ready = Ready::of(&stack.compose, api_key)?;
        ready.write_env(&stack.env_file, &stack.compose)?;
        stack.ready = Some(ready);
        Ok(stack)
    }

    /// The stack of a project, whether it runs or not.
    ///
    /// # Errors
    /// When there is no Docker, or the variables cannot be read.
    pub(crate) fn find(workspace: &Workspace, project: &Project) -> anyhow::Result<Self> {
        docker::ensure_compose()?;
        let mut variables = Variables::load(workspace, project.images_env.as_deref())?;
        variables.move_ports(project.port_offset)?;
        for (name, value) in &project.variables {
            variables.set(name, value);
        }
        Ok(Self {
            compose: Compose::new(workspace, project, variables)?,
            ready: None,
            env_file: env_file(workspace, &project.name),
        })
    }

    /// Addresses, the API key and the admin token, as in `target/stack/stack.env`.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let ready = self.ready.as_ref();
        ready.map_or_else(Vec::new, |ready| ready.variables(&self.compose))
    }

    /// Where each part of what watches is, a line each, and who is not told of alerts.
    pub(crate) fn watchers(&self) -> Vec<String> {
        let ready = self.ready.as_ref();
        ready.map_or_else(Vec::new, |ready| ready.watchers(&self.compose))
    }

    /// Where a published port is reached, by its variable.
    pub(crate) fn url(&self, port: &str) -> String {
        self.compose.variables.url(port)
    }

    /// Removes the containers and the network; with `volumes`, what they stored, too.
    ///
    /// # Errors
    /// When docker could not.
    pub(crate) fn down(&self, volumes: bool) -> anyhow::Result<()> {
        let mut command = self.compose.command();
        command.args(["--profile", "*", "down", "--remove-orphans"]);
        command.args(volumes.then_some("--volumes"));
        finish(&mut command)?;
        summary::forget(&self.env_file, &self.compose)
    }

    fn status(&self) -> anyhow::Result<()> {
        finish(self.compose.command().args(["ps", "--all"]))?;
        let services = self.compose.services()?;
        if health::explain(&self.compose, &services) {
            println!("All is healthy.");
            return Ok(());
        }
        Err(Told(1).into())
    }

    fn summary(&self) -> String {
        let ready = self.ready.as_ref();
        ready.map_or_else(String::new, |ready| ready.text(&self.compose, &self.env_file))
    }
}

/// Runs a command with our streams; it says itself what went wrong.
fn finish(command: &mut Command) -> anyhow::Result<()> {
    if process::run_to_end(command)?.success() {
        Ok(())
    } else {
        Err(Told(1).into())
    }
}

/// What [`Stack::up`] leaves for scripts: of the usual project `stack.env`, of another one under its name.
fn env_file(workspace: &Workspace, project: &str) -> PathBuf {
    let name = if project == USUAL { "stack" } else { project };
    workspace.root.join(format!("target/stack/{name}.env"))
}

/// Runs `deploy/secrets.sh`, which makes what is missing.
fn make_secrets(compose: &Compose) -> anyhow::Result<()> {
    let script = compose.deploy.join("secrets.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg(compose.secrets());
    let status = process::run_to_end(&mut command)?;
    ensure!(status.success(), "making the secrets failed (see above)");
    Ok(())
}

/// A folder that a variable names, as compose reads it: relative to `deploy`.
fn folder(deploy: &Path, value: &str) -> PathBuf {
    deploy.join(value.strip_prefix("./").unwrap_or(value))
}
