//! `cargo xtask load`: throughput, latency and CPU per request, beside bare servers.

use crate::{process, workspace::Workspace};
use std::process::Command;

/// Builds for release and measures requests/s, latency and CPU per request beside bare servers.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the driver; `--help` after `--` shows what it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    workspace.build(true)?;
    let mut command = Command::new(workspace.bin(true, "load")?);
    command.args(&args.args).current_dir(&workspace.root);
    let status = process::run_to_end(&mut command)?;
    if status.success() {
        Ok(())
    } else {
        Err(process::Told(1).into())
    }
}
