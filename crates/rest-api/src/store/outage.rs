//! A database that goes away for a moment: what surely did not take place is made again until it is back, or until
//! patience is over. What may have taken place is not, unless it does no harm twice.
//!
//! A server that is told to stop says so on every connection (57P01), in the place of an answer: then nothing of that
//! statement, or of the transaction that it is part of, will ever have taken place. It puts this off while it commits,
//! so it is as true of a `COMMIT`, unless that is one whose duration it logs (`sql::LOGGED`). A connection that breaks
//! without a word says nothing about what was sent last.

use crate::metrics;
use sqlx::postgres::PgDatabaseError;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::sleep};

/// The first pause before a statement is made again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// How long a trial connection may take, and for how long its result is believed.
const TRIAL: Duration = Duration::from_secs(1);
const BELIEVED: Duration = Duration::from_millis(500);

/// How a statement failed that the database gave no answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The server was told to stop, or has just begun: nothing took place.
    Shutdown,
    /// The connection broke. What was sent last may have taken place.
    Connection,
    /// There is no connection to be had.
    Unreachable,
}

impl Loss {
    /// What kind of loss an error tells of, if it is one.
    pub(crate) fn of(error: &sqlx::Error) -> Option<Self> {
        use sqlx::Error as E;
        match error {
            E::Io(_) | E::Tls(_) | E::Protocol(_) => Some(Self::Connection),
            E::Database(e) => {
                let e = e.try_downcast_ref::<PgDatabaseError>()?;
                match e.code() {
                    // Told to stop; still starting, or stopping already.
                    "57P01" | "57P03" => Some(Self::Shutdown),
                    // Another of its processes crashed.
                    "57P02" => Some(Self::Connection),
                    code => code.starts_with("08").then_some(Self::Connection),
                }
            }
            _ => None,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Connection => "connection_lost",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What is known of the server's absence, for all who use it.
#[derive(Debug)]
pub(crate) struct Outage {
    patience: Duration,
    missed: AtomicBool,
    /// When it was last found to be away.
    lost: parking_lot::Mutex<Option<Instant>>,
    trial: Mutex<Option<(Instant, bool)>>,
}

impl Outage {
    /// None yet. Nobody waits longer than `patience` for its end.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            missed: AtomicBool::new(false),
            lost: parking_lot::Mutex::default(),
            trial: Mutex::default(),
        }
    }

    /// The patience of one caller, from now on.
    pub(crate) fn patience(&self) -> Patience<'_> {
        Patience {
            outage: self,
            until: Instant::now() + self.patience,
            pause: PAUSES.0,
        }
    }

    /// The server answered.
    pub(crate) fn over(&self) {
        // Read first: this is done for every statement, and nearly always there is nothing to change.
        if self.missed.load(Relaxed) && self.missed.swap(false, Relaxed) {
            tracing::info!("the database answers again");
        }
    }

    /// Whether the server was away within this time. Who began to wait for a connection then has all others in front of it
    /// when the server is back.
    pub(crate) fn within(&self, time: Duration) -> bool {
        self.lost.lock().is_some_and(|at| at.elapsed() <= time)
    }

    /// Whether no connection can be made. Tells a server that is away from a pool that is only busy; one finds out for
    /// all who ask at a time.
    pub(crate) async fn try_out<C>(&self, connect: impl Future<Output = sqlx::Result<C>>) -> bool {
        if self.patience.is_zero() {
            return false;
        }
        let mut trial = self.trial.lock().await;
        if let Some((at, away)) = *trial
            && at.elapsed() < BELIEVED
        {
            return away;
        }
        let away = match tokio::time::timeout(TRIAL, connect).await {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => Loss::of(&error).is_some(),
            Err(_) => true,
        };
        *trial = Some((Instant::now(), away));
        if away {
            self.noted();
        }
        away
    }

    fn noted(&self) {
        *self.lost.lock() = Some(Instant::now());
    }
}

/// One caller's.
pub(crate) struct Patience<'a> {
    outage: &'a Outage,
    until: Instant,
    pause: Duration,
}

impl Patience<'_> {
    /// Whether to try again what was lost, after a pause.
    pub(crate) async fn again(&mut self, loss: Loss) -> bool {
        if Instant::now() + self.pause >= self.until {
            return false;
        }
        metrics::DB_RETRIES.inc([loss.reason()]);
        // A pool that is busy since then is no new loss: it would keep itself going.
        if loss != Loss::Unreachable {
            self.outage.noted();
        }
        if !self.outage.missed.swap(true, Relaxed) {
            let patience = humantime::format_duration(self.outage.patience);
            tracing::warn!(reason = loss.reason(), %patience, "the database went away: statements wait for it");
        }
        sleep(self.pause).await;
        self.pause = (2 * self.pause).min(PAUSES.1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_ends_and_none_is_none() {
        let outage = Outage::new(Duration::from_millis(100));
        let (mut patience, started) = (outage.patience(), Instant::now());
        let mut times = 0;
        while patience.again(Loss::Connection).await {
            times += 1;
        }
        assert!(
            (1..=4).contains(&times),
            "10, 20 and 40 ms are less than 100 ms: {times}"
        );
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(!Outage::new(Duration::ZERO).patience().again(Loss::Shutdown).await);
    }

    #[tokio::test]
    async fn a_pool_that_is_busy_after_a_loss_is_no_loss() {
        let outage = Outage::new(Duration::from_secs(1));
        let minute = Duration::from_secs(60);
        assert!(outage.patience().again(Loss::Unreachable).await);
        assert!(!outage.within(minute), "nobody found it away");
        assert!(outage.patience().again(Loss::Shutdown).await);
        assert!(outage.within(minute));
        assert!(!outage.within(Duration::ZERO), "that is a while ago");
    }

    #[tokio::test]
    async fn one_trial_is_believed_by_all() {
        let outage = Outage::new(Duration::from_secs(1));
        let refused =
            || async { Err::<(), _>(sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into())) };
        assert!(outage.try_out(refused()).await);
        assert!(
            outage.try_out(async { Ok(()) }).await,
            "it was tried a moment ago"
        );
        let busy = Outage::new(Duration::from_secs(1));
        assert!(!busy.try_out(async { Ok(()) }).await);
    }
}
