//! What the services can do, beside bare servers that give the same answers; `cargo xtask load` builds everything for
//! release and runs it. `--only` chooses among:
//!
//! - contexts: requests/s, latency and CPU per request of `GET /api/v1/contexts/{id}` and of MCP `tools/call`, with
//!   telemetry off, on and unsampled, on and fully sampled; idle memory and time to ready.
//! - executions: calls of a registered tool over REST, waited for and queued, and how soon a queued one starts.
//! - tools: MCP `tools/call` of a registered tool, and each hop's share of its CPU.
//! - debugging: CPU per request with each debugging facility on, with all and with none, and while they are used.
//!
//! The servers take turns, round after round, so that whatever else the machine does hits all of them. CPU per request
//! at the same rate is the figure to look at: the load itself runs on the same cores.
//!
//! `--soak 30m` does something else: a modest mix of everything for so long, and whether memory stays flat.

mod calls;
mod debugging;
mod driver;
mod endpoint;
mod footprint;
mod procfs;
mod report;
mod soak;
mod subject;
mod subjects;
mod swallow;

use anyhow::ensure;
use calls::Place;
use clap::{Parser, ValueEnum};
use debugging::Debugging;
use e2e::Backend;
use std::time::Duration;
use subjects::{Subjects, Variant, Workload};
use swallow::Swallow;

/// Measures the services beside bare servers.
#[derive(Parser)]
#[command(name = "load")]
struct Args {
    /// What to measure [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Only>,
    /// How long a server is measured at a time, in seconds
    #[arg(long, default_value_t = 1.2)]
    seconds: f64,
    /// The rate at which the CPU of all is compared, requests a second
    #[arg(long, default_value_t = 1500.0)]
    rate: f64,
    /// How many times each server has its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many connections ask at once, each waiting for its answer
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// How many times each service is started to see how long it takes
    #[arg(long, default_value_t = 5)]
    starts: usize,
    #[command(flatten)]
    soak: soak::Options,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Contexts, over REST and MCP, and the services' footprints.
    Contexts,
    /// Calls of a tool over REST.
    Executions,
    /// Calls of a tool over MCP.
    Tools,
    /// Debugging facilities, at rest and in use.
    Debugging,
}

// One thread: what the loader takes, the services don't get.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if cfg!(debug_assertions) {
        println!("This is a debug build: `cargo xtask load` measures a release build.\n");
    }
    if args.soak.time.is_some() {
        return soak::run(&args.soak).await;
    }
    ensure!(
        args.rounds > 0 && args.concurrency > 0 && args.starts > 0,
        "rounds, concurrency and starts are at least 1"
    );
    ensure!(args.rate > 0.0, "the rate is above 0");
    ensure!(args.seconds >= 0.1, "a turn lasts at least 0.1 seconds");
    if args.only.is_empty() {
        args.only = Only::value_variants().to_vec();
    }
    println!(
        "{} rounds of {} s a server, {} connections; medians of the rounds.\n",
        args.rounds, args.seconds, args.concurrency
    );
    let mut aims = String::new();
    if args.only.contains(&Only::Contexts) {
        aims += &contexts(&args).await?;
    }
    if args.only.contains(&Only::Executions) || args.only.contains(&Only::Tools) {
        aims += &calls(&args).await?;
    }
    if args.only.contains(&Only::Debugging) {
        aims += &debugging(&args).await?;
    }
    print!("Aims\n{aims}");
    Ok(())
}

/// Measures what is done with contexts, prints it, and gives its aims.
async fn contexts(args: &Args) -> anyhow::Result<String> {
    let mut subjects = Subjects::start(args.concurrency).await?;
    let footprints = footprint::measure(subjects.stack_mut(Variant::Sampled), args.starts).await?;
    subjects.prepare().await?;

    let turn = Duration::from_secs_f64(args.seconds);
    let mut results = report::Results::default();
    for round in 1..=args.rounds {
        eprintln!("contexts, round {round} of {}", args.rounds);
        for workload in Workload::ALL {
            for &variant in Variant::of(workload) {
                let subject = subjects.subject(workload, variant);
                results.add(
                    workload,
                    variant,
                    driver::measure(subject, turn, args.rate).await?,
                );
            }
        }
    }
    let lost = subjects.spans_lost().await?;
    let after = footprint::memory(subjects.stack_mut(Variant::Sampled))?;
    print!("{}", report::table(&results, &subjects, args.rate));
    print!("{}", report::footprints(&footprints, &after));
    println!(
        "Spans sent to the collector: {:.0} MB; dropped for want of room: {lost}\n",
        subjects.exported_mb()
    );
    Ok(report::aims(&results, &footprints))
}

/// Measures what the debugging facilities cost, prints it, and gives its aims.
async fn debugging(args: &Args) -> anyhow::Result<String> {
    let mut debugging = Debugging::start(args.concurrency, args.rate).await?;
    for round in 1..=args.rounds {
        eprintln!("debugging, round {round} of {}", args.rounds);
        // Whole seconds: some things are done once in each.
        let turn = Duration::from_secs_f64(args.seconds.ceil());
        debugging.round(turn).await?;
    }
    print!("{}", debugging::table(&debugging));
    Ok(debugging::aims(&debugging))
}

/// Measures calls of a tool on each database, prints them, and gives their aims.
async fn calls(args: &Args) -> anyhow::Result<String> {
    let collector = Swallow::start().await?;
    let mut places = Vec::new();
    for backend in Backend::available() {
        places.push(Place::start(backend, &collector, &args.only, args.concurrency).await?);
    }
    for round in 1..=args.rounds {
        eprintln!("calls, round {round} of {}", args.rounds);
        for place in &mut places {
            place.round(Duration::from_secs_f64(args.seconds)).await?;
        }
    }
    for place in &places {
        print!("{}", calls::table(place));
    }
    if places.len() == 1 {
        println!("Left out: PostgreSQL, which is not at hand (TEST_POSTGRES_URL and TEST_REDIS_URL)\n");
    }
    Ok(places.iter().map(calls::aims).collect())
}
