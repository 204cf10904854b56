//! The one connection for commands: multiplexed, with a circuit around it.

use crate::{Settings, metrics};
use parking_lot::RwLock;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinHandle, time};

/// How often the background task looks after the connection, whether it is there or not.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Redis is away, or did not do what it was told; the reason is logged and counted where it was met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Away;

/// A task that ends when this is dropped.
pub(crate) struct Background(JoinHandle<()>);

impl Background {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
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
    settings: Settings,
}

impl Link {
    pub(crate) fn new(client: Client, settings: Settings) -> Self {
        metrics::UP.set(0.0, []);
        let circuit = Arc::new(Circuit {
            connection: RwLock::new(None),
            opened: Notify::new(),
            settings,
        });
        let keeper = Arc::new(Background::spawn(keep(client, circuit.clone())));
        Self {
            circuit,
            _keeper: keeper,
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
        metrics::COMMAND_DURATION.record(started.elapsed().as_secs_f64(), [name]);
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
        metrics::UP.set(1.0, []);
        tracing::info!("Redis is there");
    }

    fn open(&self, command: &str, reason: &str) {
        // Of all requests that meet the loss at once, one logs it.
        if self.connection.write().take().is_some() {
            metrics::UP.set(0.0, []);
            tracing::warn!(
                command,
                reason,
                "Redis is away; keeping limits, cache and notices in process"
            );
            self.opened.notify_one();
        }
    }
}

/// Connects, watches the connection, connects again; for ever.
async fn keep(client: Client, circuit: Arc<Circuit>) {
    let mut told = false;
    loop {
        match connect(&client, &circuit.settings).await {
            Ok(connection) => {
                told = false;
                circuit.close(connection.clone());
                watch(connection, &circuit).await;
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(reason = %error, "cannot connect to Redis; trying again every second");
            }
            Err(_) => {}
        }
        time::sleep(RETRY).await;
    }
}

async fn connect(client: &Client, settings: &Settings) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(Some(settings.timeout));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    redis::cmd("PING").query_async::<()>(&mut connection).await?;
    Ok(connection)
}

/// Returns when the connection is lost, noticed by a request or, when there are none, by a ping.
async fn watch(mut connection: MultiplexedConnection, circuit: &Circuit) {
    loop {
        tokio::select! {
            () = circuit.opened.notified() => return,
            () = time::sleep(RETRY) => {
                if let Err(error) = redis::cmd("PING").query_async::<()>(&mut connection).await {
                    circuit.open("PING", &error.to_string());
                }
            }
        }
    }
}
