//! Proves the Kubernetes manifests on a cluster that is there: `cargo xtask cluster-test`.
//!
//! `run` is at work on the host and drives the cluster by `kubectl` alone. What needs addresses inside of the cluster runs
//! there, in Jobs and Deployments of the tests' image, in which this program is, too. Each step is a file.

mod alert;
mod disruptions;
mod end_to_end;
mod inside;
mod install;
mod kubectl;
mod load;
mod overlay;
mod prove;
mod rollouts;
mod setup;
mod sink;
mod targets;

use clap::{Parser, Subcommand, ValueEnum};
use prove::Proof;
use setup::Setup;
use std::{process::ExitCode, time::Instant};

/// Checks of the Kubernetes deployment.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the steps on the cluster that KUBECONFIG names.
    Run {
        #[command(flatten)]
        setup: Setup,
        /// Only these steps.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Step>,
    },
    /// Removes everything that `run` has made.
    Remove,
    /// Proves something of the services beside it, inside of the cluster.
    Prove {
        /// What.
        proof: Proof,
    },
    /// Takes alerts, inside of the cluster, and tells each as a line of JSON.
    Sink {
        /// Where it listens.
        #[arg(long)]
        port: u16,
    },
    /// Constant load on the services, inside of the cluster.
    Load(Box<load::Args>),
}

/// One step; they run in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// From nothing to everything ready.
    Install,
    /// The end-to-end tests, through the Services.
    EndToEnd,
    /// Prometheus's targets are up, its rules healthy.
    Targets,
    /// One request in metrics, logs and traces.
    Request,
    /// Load while pods come and go.
    Disruptions,
    /// Rollouts that cannot succeed leave the old version serving, and say why.
    Rollouts,
    /// A lost Deployment becomes a notification, and its return another.
    Alert,
}

#[tokio::main]
async fn main() -> ExitCode {
    e2e::ended(run(Cli::parse().command).await)
}

/// Whether all passed.
async fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run { setup, only } => steps(&setup, &only).await,
        Command::Remove => install::remove().await.map(|()| true),
        Command::Prove { proof } => prove::inside(proof).await.map(|()| true),
        Command::Sink { port } => sink::run(port).await.map(|()| true),
        Command::Load(args) => load::run(*args).await.map(|()| true),
    }
}

async fn steps(setup: &Setup, only: &[Step]) -> anyhow::Result<bool> {
    let mut failed = Vec::new();
    let wanted = |step: &&Step| only.is_empty() || only.contains(step);
    if !wanted(&&Step::Install) {
        install::ours().await?;
    }
    for step in Step::value_variants().iter().filter(wanted) {
        if !twice(setup, *step).await {
            failed.push(*step);
            if *step == Step::Install {
                // Everything else builds on it.
                break;
            }
        }
    }
    if !failed.is_empty() {
        println!("\nFailed: {failed:?}");
    }
    Ok(failed.is_empty())
}

/// Runs a step, and once more when it fails: what passes then is told as flaky.
async fn twice(setup: &Setup, step: Step) -> bool {
    for again in [false, true] {
        println!("\n── {step:?}");
        let started = Instant::now();
        let result = match step {
            Step::Install => install::run(setup).await,
            Step::EndToEnd => end_to_end::run(setup).await,
            Step::Targets => prove::run(setup, Proof::Targets).await,
            Step::Request => prove::run(setup, Proof::Request).await,
            Step::Disruptions => disruptions::run(setup).await,
            Step::Rollouts => rollouts::run(setup).await,
            Step::Alert => alert::run(setup).await,
        };
        let took = started.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                println!("── {step:?}: ok, {took:.1} s");
                if again {
                    println!("FLAKY: {step:?} failed, and passed when it ran again");
                }
                return true;
            }
            Err(error) => println!("── {step:?}: FAILED, {took:.1} s: {error:#}"),
        }
    }
    false
}
