//! What goes wrong.

use crate::Plan;
use anyhow::Context;
use e2e::{
    Backend, Redis, Stack,
    process::Process,
    stack::{REST_API, WORKER},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use std::{env, fs, process::Command, time::Duration};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, interval_at},
};

/// How often a service is killed.
const KILL_EVERY: Duration = Duration::from_secs(2);
/// After how many kills Redis goes, comes back, and PostgreSQL crashes.
const REDIS_GOES: usize = 3;
const REDIS_COMES: usize = 6;
const POSTGRES_CRASHES: usize = 8;

/// The storm, going on in a task of its own.
pub(crate) struct Chaos {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<Calm>>,
}

/// After the storm: everything runs again.
pub(crate) struct Calm {
    /// What happened, in order.
    pub(crate) told: Vec<String>,
    // They go on running.
    _world: World,
}

struct World {
    stack: Stack,
    workers: [Process; 2],
    redis: Option<Redis>,
    redis_port: Option<u16>,
    backend: Backend,
}

impl Chaos {
    /// Begins.
    pub(crate) fn start(
        plan: Plan,
        backend: Backend,
        stack: Stack,
        workers: [Process; 2],
        redis: Option<Redis>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let redis_port = redis.as_ref().map(Redis::port);
        let world = World {
            stack,
            workers,
            redis,
            redis_port,
            backend,
        };
        let task = tokio::spawn(rage(plan, world, stopped));
        Self { stop, task }
    }

    /// Ends it, and waits until everything runs again.
    pub(crate) async fn end(self) -> anyhow::Result<Calm> {
        // A storm that failed has stopped listening; it says so itself.
        let _ = self.stop.send(());
        self.task.await?
    }
}

async fn rage(plan: Plan, mut world: World, mut stopped: oneshot::Receiver<()>) -> anyhow::Result<Calm> {
    let mut random = StdRng::seed_from_u64(!plan.seed);
    let mut told = Vec::new();
    let mut ticks = interval_at(Instant::now() + KILL_EVERY, KILL_EVERY);
    for kills in 1.. {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {}
        }
        let victim = random.random_range(0..4);
        told.push(world.kill(victim).await?);
        match kills {
            REDIS_GOES => told.extend(world.redis.take().map(|_| "Redis gone".to_owned())),
            REDIS_COMES => told.extend(world.bring_redis_back()),
            POSTGRES_CRASHES if world.backend == Backend::Postgres => {
                told.push(world.crash_postgres().await?)
            }
            _ => {}
        }
    }
    told.extend(world.bring_redis_back());
    Ok(Calm { told, _world: world })
}

impl World {
    /// Kills a service and starts it again.
    async fn kill(&mut self, victim: usize) -> anyhow::Result<String> {
        let (name, process) = match victim {
            0 => ("rest-api".to_owned(), self.stack.process_mut(REST_API)),
            1 => ("worker 1".to_owned(), self.stack.process_mut(WORKER)),
            n => (format!("worker {n}"), &mut self.workers[n - 2]),
        };
        process.kill();
        process.start().await?;
        Ok(name)
    }

    fn bring_redis_back(&mut self) -> Option<String> {
        if self.redis.is_some() {
            return None;
        }
        self.redis = Redis::start(self.redis_port?);
        self.redis.as_ref().map(|_| "Redis back".to_owned())
    }

    /// Kills one of PostgreSQL's processes: the server ends all others, recovers from its log and starts again. A server
    /// that is not this run's own only loses its connections.
    async fn crash_postgres(&self) -> anyhow::Result<String> {
        let url = self
            .stack
            .process(REST_API)
            .variable("DEVOPS_MCP__DATABASE__URL")
            .context("a database")?;
        let mut connection = PgConnection::connect(url).await?;
        let pid: i32 = connection
            .fetch_one("SELECT pg_backend_pid()")
            .await?
            .try_get(0)?;
        let is_ours = env::var_os("TEST_POSTGRES_PRIVATE").is_some()
            && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres");
        if is_ours
            && Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status()?
                .success()
        {
            return Ok("PostgreSQL crashed".to_owned());
        }
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        connection.execute(others).await?;
        Ok("PostgreSQL cut all connections".to_owned())
    }
}

/// What PostgreSQL has committed survives a crash: test servers are often told that it need not.
pub(crate) async fn make_durable(stack: &mut Stack) -> anyhow::Result<()> {
    let rest_api = stack.process_mut(REST_API);
    let url = rest_api
        .variable("DEVOPS_MCP__DATABASE__URL")
        .context("a database")?;
    let mut connection = PgConnection::connect(url).await?;
    let name: String = connection
        .fetch_one("SELECT current_database()")
        .await?
        .try_get(0)?;
    let alter = format!("ALTER DATABASE {name} SET synchronous_commit = on");
    connection.execute(sqlx::AssertSqlSafe(alter)).await?;
    // It counts for sessions that begin now.
    rest_api.kill();
    rest_api.start().await?;
    Ok(())
}
