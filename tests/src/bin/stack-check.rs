//! Holds the queries of dashboards, rules and documents against the metrics that there are.

use clap::{Parser, Subcommand};
use e2e::observability::{self, Choices, Known, Sources, capture, catalogue::Catalogue, live};
use std::{path::PathBuf, process::ExitCode};

/// Checks every query in dashboards, rules, runbooks and documents.
///
/// Without a command: that each parses, and that the metrics and labels in it exist.
#[derive(Parser)]
struct Args {
    /// The clone
    #[arg(long, global = true, default_value_os_t = observability::root())]
    root: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the catalogue of other programs' metrics as a Prometheus that scrapes them knows them
    Capture {
        /// Prometheus; several, with commas, where they scrape different versions of those programs
        #[arg(
            long,
            env = "PROMETHEUS_URL",
            value_delimiter = ',',
            default_value = "http://127.0.0.1:9090"
        )]
        prometheus: Vec<String>,
    },
    /// Asks every query of a running stack, and shows what came
    Live {
        #[command(flatten)]
        backends: live::Backends,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    e2e::ended_with(run(Args::parse()).await)
}

/// What is wrong, a line each.
async fn run(args: Args) -> anyhow::Result<Vec<String>> {
    match args.command {
        None => {
            let sources = Sources::read(&args.root, &Choices::new())?;
            let known = Known::new(&Catalogue::read(&args.root)?, &sources);
            println!("{} queries", sources.expressions.len());
            Ok(observability::check(&sources, &known))
        }
        Some(Command::Capture { prometheus }) => capture::run(&args.root, &prometheus).await,
        Some(Command::Live { backends }) => live::run(&args.root, &backends).await,
    }
}
