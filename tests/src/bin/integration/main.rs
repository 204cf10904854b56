//! Proves that the monitoring stack sees what the services do, on a running installation: `cargo xtask integration`.
//!
//! Each step is a file: what it does, what it prints, and when it fails. They run in the order given here, for the
//! later ones break things and heal them again.

mod alerts;
mod docs;
mod doctor;
mod investigation;
mod outages;
mod panels;
mod request;
mod sampling;
mod stack;

use clap::{Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, process::ExitCode, time::Instant};

/// Checks of a running installation with its monitoring stack.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the steps; the installation is named by the environment (see `target/stack/stack.env`).
    Run {
        #[command(flatten)]
        installation: Box<stack::Addresses>,
        /// Only these steps.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Step>,
    },
    /// Writes copies of the rules and of the configurations of Prometheus and Alertmanager whose times are scaled down,
    /// so that an alert that takes minutes takes seconds.
    Scale {
        /// The directory to write to.
        #[arg(long)]
        out: PathBuf,
        /// Where Alertmanager finds the sinks.
        #[arg(long)]
        sink: String,
    },
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// One request is found in traces, logs and metrics.
    Request,
    /// Every panel and every rule has data.
    Panels,
    /// Every command of the operations manual runs.
    Docs,
    /// `cargo xtask doctor` finds nothing wrong, and what is.
    Doctor,
    /// Faults become notifications, and their healing too.
    Alerts,
    /// An agent that is paged finds the cause by MCP alone.
    Investigation,
    /// The services do not mind the loss of what watches them.
    Outages,
    /// Production's tail sampling keeps what matters.
    Sampling,
}

#[tokio::main]
async fn main() -> ExitCode {
    e2e::ended(run(Cli::parse().command).await)
}

/// Whether all passed.
async fn run(command: Command) -> anyhow::Result<bool> {
    let (addresses, only) = match command {
        Command::Run { installation, only } => (*installation, only),
        Command::Scale { out, sink } => return alerts::scale(&out, &sink).map(|()| true),
    };
    let stack = stack::Stack::new(addresses);
    let mut failed = Vec::new();
    for step in Step::value_variants() {
        if !only.is_empty() && !only.contains(step) {
            continue;
        }
        println!("── {step:?}");
        let started = Instant::now();
        let result = match step {
            Step::Request => request::run(&stack).await,
            Step::Panels => panels::run(&stack).await,
            Step::Docs => docs::run(&stack).await,
            Step::Doctor => doctor::run(&stack).await,
            Step::Alerts => alerts::run(&stack).await,
            Step::Investigation => investigation::run(&stack).await,
            Step::Outages => outages::run(&stack).await,
            Step::Sampling => sampling::run(&stack).await,
        };
        let took = started.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("   ok, {took:.1} s"),
            Err(error) => {
                println!("   FAILED, {took:.1} s: {error:#}");
                failed.push(*step);
            }
        }
    }
    if !failed.is_empty() {
        println!("\nFailed: {failed:?}");
    }
    Ok(failed.is_empty())
}
