//! A modest, seeded mix of everything for a bounded time, and whether the services' memory stays flat meanwhile.

mod deeds;
mod samples;
mod world;

use crate::endpoint::Endpoint;
use anyhow::ensure;
use deeds::Deed;
use e2e::{
    Backend, Stack,
    stack::{MCP_SERVER, REST_API},
};
use rand::{SeedableRng, rngs::StdRng};
use samples::Samples;
use std::{rc::Rc, time::Duration};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{Instant, sleep_until},
};
use world::World;

/// How often memory, files and threads are looked at.
const EVERY: Duration = Duration::from_secs(15);
/// How many deeds go on at once; the next waits for the first of them to end.
const AT_ONCE: usize = 128;

/// How to soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Instead of measuring, do a bit of everything for this long and watch memory, e.g. 30m
    #[arg(long = "soak", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) time: Option<Duration>,
    /// Decides what is done when, in a soak
    #[arg(long, default_value_t = 1, requires = "time")]
    seed: u64,
    /// How many things are done a second, in a soak; some of them are several requests
    #[arg(long, default_value_t = 50.0, requires = "time")]
    pace: f64,
    /// Soak on TEST_POSTGRES_URL and TEST_REDIS_URL rather than on SQLite
    #[arg(long, requires = "time")]
    postgres: bool,
}

/// Runs it and prints what came of it; an error where anything failed or memory grew.
pub(crate) async fn run(args: &Options) -> anyhow::Result<()> {
    ensure!(args.pace > 0.0, "the pace is above 0");
    let backend = if args.postgres {
        ensure!(
            Backend::available().contains(&Backend::Postgres),
            "PostgreSQL and Redis are not at hand"
        );
        Backend::Postgres
    } else {
        Backend::Sqlite
    };
    let mut builder = Stack::builder(backend)
        .allow_private()
        .set(MCP_SERVER, "TASKS__AFTER", "200ms");
    for service in [REST_API, MCP_SERVER] {
        builder = builder.set(service, "RATE_LIMIT__PER_SECOND", "100000");
        builder = builder.set(service, "RATE_LIMIT__BURST", "100000");
    }
    let stack = builder.start().await?;
    let endpoint = Endpoint::start(stack.directory(), None).await?;
    let world = Rc::new(World::new(&stack, &endpoint).await?);
    let time = args.time.unwrap_or_default();
    println!(
        "Soak: {} on {backend:?}, seed {}, {} deeds/s; logs in {}",
        humantime::format_duration(time),
        args.seed,
        args.pace,
        stack.directory().display()
    );
    let deeds = soak(&stack, &world, args, time);
    let samples = LocalSet::new().run_until(deeds).await?;
    print!("{}", world.tally.table());
    print!("{}", samples.table());
    let grown = samples.grown();
    world.close().await;
    let failed = world.tally.failed();
    ensure!(failed == 0, "{failed} deeds failed");
    ensure!(grown.is_empty(), "memory grew: {}", grown.join(", "));
    Ok(())
}

/// Does one thing after the other at the pace, and looks at the services now and then.
async fn soak(stack: &Stack, world: &Rc<World>, args: &Options, time: Duration) -> anyhow::Result<Samples> {
    let mut random = StdRng::seed_from_u64(args.seed);
    let mut samples = Samples::default();
    let (begin, apart) = (Instant::now(), Duration::from_secs_f64(1.0 / args.pace));
    let (mut due, mut look, mut deeds) = (begin, begin, JoinSet::new());
    while begin.elapsed() < time {
        sleep_until(due).await;
        due += apart;
        if Instant::now() >= look {
            samples.take(stack, begin.elapsed())?;
            look += EVERY;
        }
        while deeds.len() >= AT_ONCE || deeds.try_join_next().is_some() {
            if deeds.len() >= AT_ONCE {
                deeds.join_next().await;
                // It does not catch up: the pace is an upper bound.
                due = due.max(Instant::now());
            }
        }
        let deed = Deed::choose(&mut random);
        deeds.spawn_local(deed.done_in(Rc::clone(world)));
    }
    while deeds.join_next().await.is_some() {}
    samples.take(stack, begin.elapsed())?;
    Ok(samples)
}
