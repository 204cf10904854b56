//! `cargo xtask load`: what the services can do, beside bare servers; `cargo xtask load --soak 30m`: whether they go on.

use crate::{
    process::{Interrupt, Told, wait_or_forward},
    servers::{self, ForTests, REMEDY},
    workspace::Workspace,
};
use anyhow::Context;
use std::{env, process::Command};

const POSTGRES: &str = "TEST_POSTGRES_URL";
const REDIS: &str = "TEST_REDIS_URL";

/// Builds for release and measures requests/s, latency and CPU per request beside bare servers, on SQLite and PostgreSQL.
///
/// `--only contexts,executions,tools,debugging` measures less; `--soak 30m` does a bit of everything for so long instead and fails
/// when something failed or memory grew. The databases are those of TEST_POSTGRES_URL and TEST_REDIS_URL, else private
/// ones, started from the installed programs; without them PostgreSQL is left out.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the driver; `--help` after `--` shows what it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    // Noted from here on, so that the servers are stopped whatever happens.
    let interrupt = Interrupt::listen()?;
    workspace.build(true)?;
    let mut servers = ForTests::new()?;
    let mut command = Command::new(workspace.bin(true, "load")?);
    command.args(&args.args).current_dir(&workspace.root);
    command.envs(databases(&mut servers)?);
    let mut child = command.spawn().context("starting the driver")?;
    let status = wait_or_forward(&mut child, &interrupt)?;
    if status.success() {
        Ok(())
    } else {
        Err(Told(1).into())
    }
}

/// The variables that name the servers, which are started where none are given.
fn databases(servers: &mut ForTests) -> anyhow::Result<Vec<(&'static str, String)>> {
    let given = |name| env::var_os(name).is_some_and(|url| !url.is_empty());
    if given(POSTGRES) && given(REDIS) {
        return Ok(Vec::new());
    }
    if servers::postgres_programs().is_none() || servers::redis_program().is_none() {
        println!(
            "Left out: PostgreSQL and Redis are not installed ({REMEDY}; or set {POSTGRES} and {REDIS})"
        );
        return Ok(Vec::new());
    }
    let mut variables = Vec::new();
    if !given(POSTGRES) {
        variables.push((POSTGRES, servers.durable_postgres()?));
    }
    if !given(REDIS) {
        variables.push((REDIS, servers.redis()?));
    }
    Ok(variables)
}
