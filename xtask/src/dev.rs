//! `cargo xtask dev`: the three services on this host, ready to use.
//!
//! One supervisor starts them, keeps them running and stops them. It is this process, or with `--detach`
//! a copy of it in the background, which the one in the terminal waits for until all is ready.

mod background;
mod console;
mod forward;
mod monitoring;
mod plan;
mod secrets;
mod service;
mod summary;
mod supervisor;
mod tenant;

pub(crate) use summary::{EnvFile, first_steps};
pub(crate) use tenant::{has_every_scope, make_key};

use crate::{process::Interrupt, workspace::Workspace};
use background::State;
use plan::Ports;
use std::{
    env,
    path::{Path, PathBuf},
};

/// Builds and starts the services on this host, with a tenant and an API key to try them with.
///
/// Everything is kept in one directory (target/dev): the SQLite database, the generated tokens, the API
/// key, logs of detached runs, and dev.env with the addresses and the key for scripts. Ctrl-C stops all.
/// Settings of the services can be given as DEVOPS_MCP__SECTION__KEY in the environment.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimised build
    #[arg(long)]
    release: bool,
    /// Run in the background; logs go to DIR/logs
    #[arg(long, conflicts_with = "stop")]
    detach: bool,
    /// Stop what runs in the background
    #[arg(long)]
    stop: bool,
    /// Where data is kept; give each of several runs its own [default: target/dev]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Forget what former runs stored: the SQLite database, and the private PostgreSQL's
    #[arg(long)]
    fresh: bool,
    /// Add N to every port (8080, 50051, 8090, 8091, 50053)
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
    /// Let tools call private addresses in this range, e.g. 127.0.0.0/8; repeatable
    #[arg(long, value_name = "CIDR")]
    allow_private: Vec<String>,
    /// Use PostgreSQL instead of SQLite: the one at DATABASE_URL, else a private one
    #[arg(long)]
    postgres: bool,
    /// Use Redis: the one at REDIS_URL, else a private one
    #[arg(long)]
    redis: bool,
    /// Send traces to this OTLP/gRPC endpoint, e.g. http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Watch the services with the whole stack in containers: Grafana, Prometheus, Loki, Jaeger …; logs go to DIR/logs
    #[arg(long)]
    stack: bool,
    /// With --stack: more variables over deploy/.env, such as image names from a mirror
    #[arg(long, value_name = "FILE", requires = "stack")]
    images_env: Option<PathBuf>,
    /// Start no Prometheus and Alertmanager, installed or not
    #[arg(long, conflicts_with = "stack")]
    no_monitoring: bool,
    /// Drive realistic load as long as the services run
    #[arg(long)]
    traffic: bool,
    /// This process is the background's supervisor
    #[arg(long, hide = true)]
    supervise: bool,
}

impl Args {
    /// Whether the services log to files: nobody sits before them, or an agent is to read them.
    const fn logs_to_files(&self) -> bool {
        self.supervise || self.stack
    }
}

/// The directory that a run keeps everything in.
pub(crate) fn data_dir(workspace: &Workspace, given: Option<&Path>) -> PathBuf {
    let here = env::current_dir().unwrap_or_else(|_| workspace.root.clone());
    given.map_or_else(|| workspace.target.join("dev"), |dir| here.join(dir))
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let state = State::in_dir(data_dir(&workspace, args.data.as_deref()));
    if args.stop {
        return background::stop(&state, &workspace);
    }
    if args.supervise {
        background::leave_terminal()?;
        return supervisor::run(args, &workspace, &state, &Interrupt::listen()?);
    }
    // First what costs nothing to find out, then the build.
    state.clear(&workspace)?;
    Ports::with_offset(args.port_offset)?.ensure_free()?;
    // The path, before the build puts a new file in this one's place.
    let program = env::current_exe()?;
    workspace.build(args.release)?;
    let interrupt = Interrupt::listen()?;
    if args.detach {
        return background::start(&state, &program, &workspace, &interrupt);
    }
    supervisor::run(args, &workspace, &state, &interrupt)
}
