//! Requests/s, latency and CPU per request of `GET /api/v1/contexts/{id}` and of MCP `tools/call`, beside bare servers
//! that give the same answers from memory, and with telemetry off, on and unsampled, on and fully sampled; idle memory
//! and time to ready. `cargo xtask load` builds everything for release and runs it.
//!
//! The servers take turns, round after round, so that whatever else the machine does hits all of them. CPU per request
//! at the same rate is the figure to look at: the load itself runs on the same cores.

mod driver;
mod footprint;
mod procfs;
mod report;
mod subjects;
mod swallow;

use anyhow::ensure;
use clap::Parser;
use std::time::Duration;
use subjects::{Subjects, Variant, Workload};

/// Measures the services beside bare servers.
#[derive(Parser)]
#[command(name = "load")]
struct Args {
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
}

// One thread: what the loader takes, the services don't get.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        args.rounds > 0 && args.concurrency > 0 && args.starts > 0,
        "rounds, concurrency and starts are at least 1"
    );
    ensure!(args.rate > 0.0, "the rate is above 0");
    ensure!(args.seconds >= 0.1, "a turn lasts at least 0.1 seconds");
    if cfg!(debug_assertions) {
        println!("This is a debug build: `cargo xtask load` measures a release build.\n");
    }
    let mut subjects = Subjects::start(args.concurrency).await?;
    let footprints = footprint::measure(subjects.stack_mut(Variant::Sampled), args.starts).await?;
    subjects.prepare().await?;

    let turn = Duration::from_secs_f64(args.seconds);
    let mut results = report::Results::default();
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
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
    println!(
        "{} rounds of {} s a server, {} connections; medians of the rounds.\n",
        args.rounds, args.seconds, args.concurrency
    );
    print!("{}", report::table(&results, &subjects, args.rate));
    print!("{}", report::footprints(&footprints, &after));
    println!(
        "Spans sent to the collector: {:.0} MB; dropped for want of room: {lost}\n",
        subjects.exported_mb()
    );
    print!("{}", report::aims(&results, &footprints));
    Ok(())
}
