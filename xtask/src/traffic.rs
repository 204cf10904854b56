//! `cargo xtask traffic`: realistic load on the services that `cargo xtask dev` runs.

use crate::{dev, process, workspace::Workspace};
use anyhow::Context;
use std::{path::PathBuf, process::Command};

/// Drives realistic load against the running services (see `cargo xtask dev`).
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
