//! What is gathered off the path of whoever makes it, and handed on in batches: putting something in never waits.

use crate::Tasks;
use std::{mem, time::Duration};
use tokio::{
    sync::mpsc::{self, Receiver, Sender, error::TrySendError},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

telemetry::metrics! {
    /// Records of the audit log that were lost, by reason: there was no more room for them while they could not be kept
    /// (buffer_full), the database or rest-api would not have them (refused), the service stopped before they could be
    /// kept (stopped).
    pub static AUDIT_RECORDS_LOST: Counter["reason"] = "mcp_audit_records_lost_total",
        known: &[&["buffer_full", "refused", "stopped"]];
}

/// How many go together.
const BATCH: usize = 500;
/// For how long the first waits for others to go with it.
const LINGER: Duration = Duration::from_millis(300);
/// The first and the longest pause before a batch is handed on again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// For how long a service that stops tries to get rid of the rest.
const LAST_TRY: Duration = Duration::from_secs(5);
/// How often losses are logged at most.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Why a batch was not taken.
#[derive(Debug)]
pub enum Unsent {
    /// Whoever takes it cannot be reached: it is handed on again, so taking it twice must be as good as once.
    Away(String),
    /// It never will be.
    Refused(String),
}

/// What is done with what is gathered.
pub trait Courier: Send + Sync + 'static {
    /// What is gathered.
    type Item: Send + Sync + 'static;

    /// What goes along every so often, and at the end.
    fn gather(&self) -> Vec<Self::Item>;

    /// Hands a batch on.
    fn send(&self, batch: &[Self::Item]) -> impl Future<Output = Result<(), Unsent>> + Send;
}

/// Where things are put. Clones share it.
#[derive(Debug)]
pub struct Outbox<T>(Sender<T>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Outbox<T> {
    /// An outbox with room for so many, whose content `courier` hands on; `every` so often that of
    /// [`Courier::gather`], too. When the service stops, the rest is handed on before it ends.
    pub fn start<C>(tasks: &Tasks, name: &'static str, room: usize, every: Duration, courier: C) -> Self
    where
        C: Courier<Item = T>,
        T: Send + Sync + 'static,
    {
        let (sender, receiver) = mpsc::channel(room);
        let round = Round {
            receiver,
            courier,
            batch: Vec::new(),
            lost: Lost::default(),
        };
        tasks.spawn_graceful(name, |stop| round.run(every, stop));
        Self(sender)
    }

    /// Puts something in, if there is room.
    pub fn put(&self, item: T) {
        match self.0.try_send(item) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => AUDIT_RECORDS_LOST.inc(["buffer_full"]),
            Err(TrySendError::Closed(_)) => AUDIT_RECORDS_LOST.inc(["stopped"]),
        }
    }
}

/// Tells of losses and outages, but not of each.
#[derive(Default)]
struct Lost {
    away: bool,
    told: Option<Instant>,
}

struct Round<C: Courier> {
    receiver: Receiver<C::Item>,
    courier: C,
    batch: Vec<C::Item>,
    lost: Lost,
}

impl<C: Courier> Round<C> {
    async fn run(mut self, every: Duration, stop: CancellationToken) {
        let mut gather_at = Instant::now() + every;
        let rounds = async {
            loop {
                self.next(&mut gather_at, every).await;
                self.fill();
                self.deliver().await;
            }
        };
        // Wherever it stands then: what was not handed on is still in the batch.
        stop.run_until_cancelled(rounds).await;
        self.end().await;
    }

    /// Waits for something to hand on, and for others to go with it.
    async fn next(&mut self, gather_at: &mut Instant, every: Duration) {
        tokio::select! {
            biased;
            () = sleep_until(*gather_at) => {
                *gather_at = Instant::now() + every;
                self.batch.extend(self.courier.gather());
            }
            Some(first) = self.receiver.recv() => {
                self.batch.push(first);
                sleep(LINGER).await;
            }
        }
    }

    fn fill(&mut self) {
        while self.batch.len() < BATCH
            && let Ok(item) = self.receiver.try_recv()
        {
            self.batch.push(item);
        }
    }

    /// Hands the batch on, however long it takes.
    async fn deliver(&mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.batch.is_empty() {
            match self.courier.send(&self.batch).await {
                Ok(()) => {
                    if mem::take(&mut self.lost.away) {
                        tracing::info!("the audit log is written again");
                    }
                    self.batch.clear();
                }
                Err(Unsent::Away(reason)) => {
                    if !mem::replace(&mut self.lost.away, true) {
                        tracing::warn!(reason, "the audit log cannot be written now; its records wait");
                    }
                    self.tell_when_full();
                    sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
                Err(Unsent::Refused(reason)) => {
                    let records = self.batch.len();
                    AUDIT_RECORDS_LOST.add(records as u64, ["refused"]);
                    tracing::error!(
                        records,
                        reason,
                        "records of the audit log were refused and are lost"
                    );
                    self.batch.clear();
                }
            }
        }
    }

    fn tell_when_full(&mut self) {
        let told = self.lost.told.is_some_and(|told| told.elapsed() < TOLD_EVERY);
        if self.receiver.capacity() == 0 && !told {
            self.lost.told = Some(Instant::now());
            tracing::error!(
                waiting = self.receiver.len(),
                "there is no room for more records of the audit log: they are lost until it can be written"
            );
        }
    }

    /// Hands the rest on, as far as it can be done in time.
    async fn end(mut self) {
        self.receiver.close();
        self.batch.extend(self.courier.gather());
        let _ = timeout(LAST_TRY, async {
            loop {
                self.fill();
                if self.batch.is_empty() {
                    break;
                }
                self.deliver().await;
            }
        })
        .await;
        let records = self.batch.len() + self.receiver.len();
        if records > 0 {
            AUDIT_RECORDS_LOST.add(records as u64, ["stopped"]);
            tracing::error!(
                records,
                "records of the audit log could not be written before the service ended"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    };

    const POISON: u32 = u32::MAX;

    #[derive(Clone, Default)]
    struct Kept {
        away: Arc<AtomicBool>,
        refused: Arc<AtomicBool>,
        items: Arc<Mutex<Vec<u32>>>,
    }

    impl Kept {
        fn items(&self) -> Vec<u32> {
            self.items.lock().expect("not poisoned").clone()
        }
    }

    impl Courier for Kept {
        type Item = u32;

        fn gather(&self) -> Vec<u32> {
            Vec::new()
        }

        async fn send(&self, batch: &[u32]) -> Result<(), Unsent> {
            if self.away.load(Ordering::SeqCst) {
                return Err(Unsent::Away("away".to_owned()));
            }
            if batch.contains(&POISON) {
                self.refused.store(true, Ordering::SeqCst);
                return Err(Unsent::Refused("no".to_owned()));
            }
            self.items.lock().expect("not poisoned").extend(batch);
            Ok(())
        }
    }

    async fn until(kept: &Kept, so_many: usize) -> Vec<u32> {
        for _ in 0..3000 {
            if kept.items().len() >= so_many {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        kept.items()
    }

    #[tokio::test]
    async fn what_waits_while_nobody_takes_it_is_handed_on_in_order() {
        let (tasks, kept) = (Tasks::default(), Kept::default());
        kept.away.store(true, Ordering::SeqCst);
        let outbox = Outbox::start(&tasks, "test", 1000, Duration::from_secs(60), kept.clone());
        (0..900).for_each(|n| outbox.put(n));
        sleep(2 * LINGER).await;
        assert!(kept.items().is_empty());
        kept.away.store(false, Ordering::SeqCst);
        assert_eq!(until(&kept, 900).await, (0..900).collect::<Vec<_>>());
        outbox.put(POISON);
        while !kept.refused.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(10)).await;
        }
        outbox.put(1000);
        tasks.stop().await;
        let kept = kept.items();
        assert_eq!(kept.last(), Some(&1000), "the end hands on what is left");
        assert_eq!(kept.len(), 901);
    }

    #[tokio::test]
    async fn putting_never_waits_and_the_end_does_not_take_for_ever() {
        let (tasks, kept) = (Tasks::default(), Kept::default());
        kept.away.store(true, Ordering::SeqCst);
        let outbox = Outbox::start(&tasks, "test", 10, Duration::from_secs(60), kept.clone());
        (0..10_000).for_each(|n| outbox.put(n));
        timeout(4 * LAST_TRY, tasks.stop()).await.expect("it ends");
        outbox.put(1);
        assert!(kept.items().is_empty());
    }
}
