//! The command line: which command runs which module.

use crate::{check, cluster, dev, doctor, generate, images, integration, load, stack, test, traffic};
use clap::Parser;

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
    Generate(generate::Args),
    Traffic(traffic::Args),
    Doctor(Box<doctor::Args>),
    Load(load::Args),
    Images(images::Args),
    Stack(stack::Args),
    Integration(integration::Args),
    ClusterTest(cluster::Args),
}

/// Runs what the command line asks for.
pub(crate) fn run() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Dev(args) => dev::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Traffic(args) => traffic::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Stack(args) => stack::run(&args),
        Command::Integration(args) => integration::run(&args),
        Command::ClusterTest(args) => cluster::run(&args),
    }
}
