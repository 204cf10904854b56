//! `cargo xtask traffic`: realistic load on the services that `cargo xtask dev` runs.

use crate::{dev, http, process, workspace::Workspace};
use anyhow::{Context, bail};
use std::{path::PathBuf, process::Command};

/// Drives realistic load against the running services (see `cargo xtask dev`).
///
/// The tools that it registers are served by the driver on 127.0.0.1: start the services with
/// `--allow-private 127.0.0.1/32`, or the guard refuses them and they count as failed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The data directory of the `cargo xtask dev` to drive [default: target/dev]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Use the release build
    #[arg(long)]
    release: bool,
    /// Passed on to the driver, e.g. `--seconds 60`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let env = dev::EnvFile::at(&dev::data_dir(&workspace, args.data.as_deref()));
    let variables = env.read().with_context(|| {
        format!(
            "reading {}: are the services running? (cargo xtask dev)",
            workspace.shown(env.path())
        )
    })?;
    let rest = variables.iter().find(|(name, _)| name == "REST_URL");
    if let Some((_, url)) = rest
        && http::status(&format!("{url}/healthz"), None).is_none()
    {
        bail!("nobody answers at {url}: start the services with cargo xtask dev");
    }
    workspace.build(args.release)?;
    let mut command = Command::new(workspace.bin(args.release, "traffic")?);
    command.args(&args.args).envs(variables);
    let status = process::run_to_end(&mut command)?;
    if status.success() {
        Ok(())
    } else {
        Err(process::Told(1).into())
    }
}
