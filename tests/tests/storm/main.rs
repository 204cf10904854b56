//! A storm: services are killed, Redis goes away, PostgreSQL crashes, and every tool call keeps its promise.
//!
//! Three workers run 2,000 executions against an endpoint that counts, while every two seconds a service chosen at
//! random is killed with `kill -9` and started again. In the end every execution has ended, none is lost, none that
//! succeeded ran again after its success was recorded, none that may run once only reached the endpoint twice, and the
//! attempts that are recorded add up with what the endpoint counted.
//!
//! `STORM_SEED`, `STORM_EXECUTIONS` and `STORM_SECONDS` change it; the figures are printed.

mod account;
mod chaos;
mod driver;
mod endpoint;

use account::Account;
use chaos::Chaos;
use driver::{Driver, Kind};
use e2e::{
    Backend, Redis, Stack,
    process::free_port,
    stack::{REST_API, WORKER},
};
use endpoint::Endpoint;
use serde_json::json;
use std::{env, time::Instant};

type Outcome = anyhow::Result<()>;

/// What a storm is made of.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Decides what is killed, and what is asked for in which way.
    seed: u64,
    /// How many executions are asked for.
    executions: usize,
    /// For how long they are asked for, seconds: the storm lasts at least so long.
    seconds: u64,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name, default| {
            env::var(name)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(default)
        };
        Self {
            seed: number("STORM_SEED", 20_260_101),
            executions: usize::try_from(number("STORM_EXECUTIONS", 2_000)).unwrap_or(2_000),
            seconds: number("STORM_SECONDS", 24),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() -> Outcome {
    storm(Backend::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql() -> Outcome {
    if Backend::available().contains(&Backend::Postgres) {
        storm(Backend::Postgres).await
    } else {
        Ok(())
    }
}

async fn storm(backend: Backend) -> Outcome {
    let plan = Plan::from_environment();
    let endpoint = Endpoint::start(plan.seed).await?;
    let redis = Redis::start(free_port());
    let mut builder = Stack::builder(backend)
        .allow_private()
        // One key asks for everything, and reads it all back.
        .set(REST_API, "RATE_LIMIT__PER_SECOND", "100000")
        .set(REST_API, "RATE_LIMIT__BURST", "100000");
    if let Some(redis) = &redis {
        builder = builder.redis(&redis.url());
    }
    let mut stack = builder.start().await?;
    if backend == Backend::Postgres {
        chaos::make_durable(&mut stack).await?;
    }
    let workers = [stack.replica(WORKER).await?.0, stack.replica(WORKER).await?.0];
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    for kind in Kind::ALL {
        rest.post("/api/v1/tools", &kind.tool(&endpoint))
            .await?
            .expect(201)?;
    }
    let started = Instant::now();
    let chaos = Chaos::start(plan, backend, stack, workers, redis);
    let asked = Driver::new(plan, rest.clone()).run().await?;
    let calm = chaos.end().await?;
    let account = Account::settle(&rest, &asked, &endpoint).await?;
    println!(
        "{}",
        json!({
            "storm": format!("{backend:?}"), "plan": format!("{plan:?}"), "seconds": started.elapsed().as_secs(),
            "chaos": calm.told, "figures": account.figures(),
        })
    );
    account.check()
}
