//! Signals between replicas: `LISTEN` on a connection of its own, `NOTIFY` in transactions of its own.
//!
//! Not within the statement that they tell of: a transaction with a `NOTIFY` holds a lock of the whole server while it
//! waits for its commit, which would make every write wait for every other one. Gathered, many cost one.

use super::sql::{Door, Statement};
use crate::store::{
    Signal,
    signals::{Signals, parse, word},
};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::{collections::BTreeSet, time::Duration};
use telemetry::tasks::track;
use tokio::{
    sync::{broadcast, mpsc},
    time::{sleep, timeout},
};
use uuid::Uuid;

const CHANNEL: &str = "devops_mcp";
/// How many signals one notification carries; it may have 8000 bytes.
const TOGETHER: usize = 100;
/// How long nothing may be heard before the connection is tried.
const SILENCE: Duration = Duration::from_secs(15);
/// How long an attempt to connect or a sign of life may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first and the longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

const NOTIFY: Statement = Statement::new("signals.notify", "SELECT pg_notify($1, $2)");

/// Starts to carry signals over the database that `pool` is connected to.
pub(crate) fn carry(pool: &Door) -> Signals {
    // Tells this replica's notifications from the others': it has passed its own on already.
    let own = Uuid::now_v7().simple().to_string();
    let (pool, options) = (pool.clone(), PgConnectOptions::clone(&pool.connect_options()));
    Signals::travelling(move |outgoing, here, carriers| {
        carriers.spawn(track("postgres notify", notify(pool, own.clone(), outgoing)));
        carriers.spawn(track("postgres listen", listen(options, own, here)).every(SILENCE));
    })
}

async fn notify(pool: Door, own: String, mut outgoing: mpsc::Receiver<Signal>) {
    let mut signals = Vec::with_capacity(TOGETHER);
    while outgoing.recv_many(&mut signals, TOGETHER).await > 0 {
        let words: BTreeSet<_> = signals.drain(..).map(word).collect();
        let payload = words
            .into_iter()
            .fold(own.clone(), |text, word| text + " " + &word);
        let call = NOTIFY.bind(CHANNEL).bind(payload);
        if let Err(error) = call.execute(&pool).await {
            // The others look by themselves.
            tracing::debug!(%error, "other replicas could not be told");
        }
    }
}

async fn listen(options: PgConnectOptions, own: String, here: broadcast::Sender<Signal>) {
    let mut wait = BACKOFF.0;
    loop {
        match connect(&options).await {
            Ok(listener) => {
                wait = BACKOFF.0;
                // Whatever was queued while nobody listened.
                let _ = here.send(Signal::Queued);
                let error = follow(listener, &own, &here).await;
                tracing::warn!(%error, "other replicas are not heard: the connection broke");
            }
            Err(error) => {
                wait = (wait * 2).min(BACKOFF.1);
                tracing::debug!(%error, "other replicas are not heard: no connection");
            }
        }
        sleep(wait).await;
    }
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgListener> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(PATIENCE)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Passes on what others tell, until the connection breaks.
async fn follow(mut listener: PgListener, own: &str, here: &broadcast::Sender<Signal>) -> sqlx::Error {
    loop {
        let heard = match timeout(SILENCE, listener.try_recv()).await {
            Ok(heard) => heard,
            // A connection that was cut without a word would be silent for ever.
            Err(_) => match timeout(PATIENCE, sqlx::query("SELECT 1").execute(&mut listener)).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => return error,
                Err(_) => return sqlx::Error::PoolTimedOut,
            },
        };
        let notification = match heard {
            Ok(Some(notification)) => notification,
            Ok(None) => return sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()),
            Err(error) => return error,
        };
        let mut words = notification.payload().split(' ');
        if words.next() != Some(own) {
            for signal in words.filter_map(parse) {
                let _ = here.send(signal);
            }
        }
    }
}
