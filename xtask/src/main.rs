//! The project's own commands (`cargo xtask --help`): synchronous and light, there seconds after a clone.

mod check;
mod cli;
mod cluster;
mod dev;
mod doctor;
mod generate;
mod http;
mod images;
mod integration;
mod load;
mod process;
mod servers;
mod stack;
mod test;
mod traffic;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    process::exit_code(cli::run())
}
