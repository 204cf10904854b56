//! The project's own commands (`cargo xtask --help`): synchronous and light, there seconds after a clone.

mod check;
mod dev;
mod http;
mod load;
mod process;
mod servers;
mod test;
mod traffic;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

/// Starts, tests, checks and loads DevOps MCP from a clone.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
enum Command {
    Dev(dev::Args),
    Test(test::Args),
    Check(check::Args),
    Traffic(traffic::Args),
    Load(load::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Dev(args) => dev::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Traffic(args) => traffic::run(&args),
        Command::Load(args) => load::run(&args),
    };
    process::exit_code(result)
}
