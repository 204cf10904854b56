//! The way to Redis: a pool that connects and tests, one multiplexed connection of it that all commands share (a test
//! before each command would double the round trips), and a circuit around both.

use crate::{
    Settings,
    inspect::{CircuitReport, Failure, rfc3339},
    metrics,
};
use deadpool_redis::{
    Manager, Pool, PoolError, Runtime, Timeouts,
    redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection},
};
use parking_lot::{Mutex, RwLock};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use telemetry::recent::{Kind, child};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time,
};

/// How often the background task looks after the connection, whether it is there or not.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Redis is away, or did not do what it was told; the reason is logged and counted where it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis is away")]
pub struct Away;

/// A task that ends when this is dropped.
pub(crate) struct Background(JoinHandle<()>);

impl Background {
    /// Starts a task that looks after something, every so often at least.
    #[track_caller]
    pub(crate) fn spawn_every(
        name: &'static str,
        every: Duration,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self(telemetry::tasks::spawn_every(name, every, task))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A handle on the connection; clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    circuit: Arc<Circuit>,
    _keeper: Arc<Background>,
}

struct Circuit {
    /// `None` while the circuit is open.
    connection: RwLock<Option<MultiplexedConnection>>,
    opened: Notify,
    up: watch::Sender<bool>,
    history: Mutex<History>,
    settings: Settings,
}

/// For who asks how it is.
struct History {
    /// When the circuit was last opened or closed.
    changed: SystemTime,
    last_failure: Option<Failure>,
}

impl Link {
    pub(crate) fn new(client: &Client, settings: Settings) -> RedisResult<Self> {
        metrics::UP.set(0.0, []);
        let pool = pool(client, &settings)?;
        let every = RETRY.max(settings.connect_timeout);
        let circuit = Arc::new(Circuit {
            connection: RwLock::new(None),
            opened: Notify::new(),
            up: watch::Sender::new(false),
            history: Mutex::new(History {
                changed: SystemTime::now(),
                last_failure: None,
            }),
            settings,
        });
        let keeper = Background::spawn_every("redis keeper", every, keep(pool, circuit.clone()));
        Ok(Self {
            circuit,
            _keeper: Arc::new(keeper),
        })
    }

    /// Whether Redis is there, as it changes.
    pub(crate) fn up(&self) -> watch::Receiver<bool> {
        self.circuit.up.subscribe()
    }

    /// Whether Redis is used, and why not.
    pub(crate) fn circuit(&self) -> CircuitReport {
        let closed = self.circuit.connection.read().is_some();
        let history = self.circuit.history.lock();
        CircuitReport {
            state: if closed { "closed" } else { "open" },
            since: rfc3339(history.changed),
            last_failure: history.last_failure.clone(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.circuit.settings
    }

    /// Runs one command within the time limit. Any failure opens the circuit: whatever made it fail
    /// (a lost connection, a replica turned read-only, no memory), the next request must not wait for it.
    pub(crate) async fn run<T: FromRedisValue>(&self, name: &'static str, command: &Cmd) -> Result<T, Away> {
        let Some(mut connection) = self.circuit.connection.read().clone() else {
            metrics::COMMANDS.inc([name, "away"]);
            return Err(Away);
        };
        let started = Instant::now();
        let answer = time::timeout(
            self.circuit.settings.timeout,
            command.query_async(&mut connection),
        )
        .await;
        let took = started.elapsed();
        metrics::COMMAND_DURATION.record(took.as_secs_f64(), [name]);
        child(Kind::Redis, name, started, took, !matches!(answer, Ok(Ok(_))));
        let reason = match answer {
            Ok(Ok(value)) => {
                metrics::COMMANDS.inc([name, "ok"]);
                return Ok(value);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out".to_owned(),
        };
        metrics::COMMANDS.inc([name, "error"]);
        self.circuit.open(name, &reason);
        Err(Away)
    }
}

impl Circuit {
    fn close(&self, connection: MultiplexedConnection) {
        *self.connection.write() = Some(connection);
        self.history.lock().changed = SystemTime::now();
        metrics::UP.set(1.0, []);
        self.up.send_replace(true);
        tracing::info!("Redis is there");
    }

    /// Takes another connection while the circuit is closed.
    fn renew(&self, connection: MultiplexedConnection) {
        if let Some(current) = self.connection.write().as_mut() {
            *current = connection;
        }
    }

    /// Notes what went wrong, for who asks.
    fn failed(&self, command: &str, reason: &str) {
        self.history.lock().last_failure = Some(Failure {
            at: rfc3339(SystemTime::now()),
            command: command.to_owned(),
            reason: reason.to_owned(),
        });
    }

    fn open(&self, command: &str, reason: &str) {
        // Of all requests that meet the loss at once, one logs it.
        if self.connection.write().take().is_some() {
            self.failed(command, reason);
            self.history.lock().changed = SystemTime::now();
            metrics::UP.set(0.0, []);
            self.up.send_replace(false);
            tracing::warn!(
                command,
                reason,
                "Redis is away; keeping limits, cache and notices in process"
            );
            self.opened.notify_one();
        }
    }
}

/// Two connections at most: the one that is used, and the next one.
fn pool(client: &Client, settings: &Settings) -> RedisResult<Pool> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(Some(settings.timeout));
    let manager = Manager::new_with_config(client.get_connection_info().clone(), config)?;
    let limit = Some(settings.connect_timeout);
    let timeouts = Timeouts {
        wait: limit,
        create: limit,
        recycle: limit,
    };
    let pool = Pool::builder(manager)
        .max_size(2)
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1)
        .build();
    Ok(pool.expect("a runtime is given, which is all that can be missing"))
}

/// Connects, watches the connection, connects again; for ever.
async fn keep(pool: Pool, circuit: Arc<Circuit>) {
    let mut told = false;
    loop {
        match connect(&pool).await {
            Ok(connection) => {
                told = false;
                circuit.close(connection);
                watch(&pool, &circuit).await;
            }
            Err(error) => {
                circuit.failed("CONNECT", &error.to_string());
                if !told {
                    tracing::warn!(reason = %error, "cannot connect to Redis; trying again every second");
                }
                told = true;
            }
        }
        time::sleep(RETRY).await;
    }
}

/// A connection that answers: the pool tests those it has, and makes one when none is good.
async fn connect(pool: &Pool) -> Result<MultiplexedConnection, PoolError> {
    Ok(pool.get().await?.clone())
}

/// Returns when the connection is lost, noticed by a request or, when there are none, by the pool's test.
async fn watch(pool: &Pool, circuit: &Circuit) {
    loop {
        tokio::select! {
            () = circuit.opened.notified() => return,
            () = time::sleep(RETRY) => match connect(pool).await {
                // Another one than before where the pool had to make one.
                Ok(connection) => circuit.renew(connection),
                Err(error) => circuit.open("PING", &error.to_string()),
            }
        }
    }
}
