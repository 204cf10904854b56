//! What is gathered off the path of whoever makes it, and handed on in batches: putting something in never waits.

use crate::Tasks;
use std::{mem, time::Duration};
use tokio::{
    sync::mpsc::{self, Receiver, Sender, error::TrySendError},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

telemetry::metrics! {
    /// Records of the audit log that were lost, by reason: there was no more room for them while they could not be kept
    /// (buffer_full), the database or rest-api would not have them (refused), the service stopped before they could be
    /// kept (stopped).
    pub static AUDIT_RECORDS_LOST: Counter["reason"] = "mcp_audit_records_lost_total",
        known: &[&["buffer_full", "refused", "stopped"]];
}

/// How many go together: with arguments, which are 4 KiB at most, they stay below the largest message.
const BATCH: usize = 500;
/// For how long the first waits for others to go with it, where there are not as many already.
const LINGER: Duration = Duration::from_millis(300);
/// The first and the longest pause before a batch is handed on again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a batch fails before what is wrong is taken to be in the batch: half a minute.
const TRIES: u32 = 9;
/// How many sends may fail while it is looked for what is wrong in a batch, which takes about ten for each item.
const SEARCH: u32 = 64;
/// For how long a service that stops tries to get rid of the rest.
const LAST_TRY: Duration = Duration::from_secs(5);
/// How often losses are logged at most.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Why a batch was not taken.
#[derive(Debug)]
pub enum Unsent {
    /// Whoever takes it cannot be reached: it is handed on again, so taking it twice must be as good as once.
    Away(String),
    /// Something is wrong with it, or with whoever takes it: it is handed on again a few times.
    Failed(String),
    /// It never will be, because of one of its items at least: the others are handed on without it.
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
                self.linger().await;
            }
        }
    }

    /// Waits for others, but not when there are enough.
    async fn linger(&mut self) {
        let end = Instant::now() + LINGER;
        while self.batch.len() < BATCH
            && let Ok(Some(item)) = timeout_at(end, self.receiver.recv()).await
        {
            self.batch.push(item);
        }
    }

    fn fill(&mut self) {
        while self.batch.len() < BATCH
            && let Ok(item) = self.receiver.try_recv()
        {
            self.batch.push(item);
        }
    }

    /// Hands the batch on, however long it takes. Where it is not taken, parts of it are, down to the items at fault.
    async fn deliver(&mut self) {
        let (mut pause, mut failures, mut search) = (FIRST_PAUSE, 0, SEARCH);
        let mut together = BATCH;
        while !self.batch.is_empty() {
            let part = together.min(self.batch.len());
            let reason = match self.courier.send(&self.batch[..part]).await {
                Ok(()) => {
                    self.batch.drain(..part);
                    together = BATCH.min(2 * part);
                    self.written_again();
                    continue;
                }
                Err(Unsent::Away(reason)) => {
                    self.wait(&reason, &mut pause).await;
                    continue;
                }
                Err(Unsent::Failed(reason)) if failures < TRIES => {
                    failures += 1;
                    self.wait(&reason, &mut pause).await;
                    continue;
                }
                Err(Unsent::Failed(reason) | Unsent::Refused(reason)) => reason,
            };
            if part > 1 && search > 0 {
                search -= 1;
                together = part / 2;
            } else {
                self.lose(part, &reason);
                together = BATCH;
            }
        }
    }

    async fn wait(&mut self, reason: &str, pause: &mut Duration) {
        if !mem::replace(&mut self.lost.away, true) {
            tracing::warn!(reason, "the audit log cannot be written now; its records wait");
        }
        self.tell_when_full();
        sleep(*pause).await;
        *pause = (2 * *pause).min(LONGEST_PAUSE);
    }

    fn written_again(&mut self) {
        if mem::take(&mut self.lost.away) {
            tracing::info!("the audit log is written again");
        }
    }

    /// Gives the first of the batch up.
    fn lose(&mut self, records: usize, reason: &str) {
        self.batch.drain(..records);
        AUDIT_RECORDS_LOST.add(records as u64, ["refused"]);
        tracing::error!(
            records,
            reason,
            "records of the audit log were refused and are lost"
        );
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
    /// What a defect of whoever takes it is seen with.
    const FAILS: u32 = u32::MAX - 1;

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
            if batch.contains(&FAILS) {
                return Err(Unsent::Failed("a defect".to_owned()));
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
        until_within(kept, so_many, Duration::from_secs(30)).await
    }

    async fn until_within(kept: &Kept, so_many: usize, limit: Duration) -> Vec<u32> {
        let end = Instant::now() + limit;
        while kept.items().len() < so_many && Instant::now() < end {
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
    async fn what_is_refused_or_fails_for_good_takes_nothing_else_with_it() {
        let (tasks, kept) = (Tasks::default(), Kept::default());
        let outbox = Outbox::start(&tasks, "test", 2000, Duration::from_secs(60), kept.clone());
        let good = || 0..1200;
        for n in good() {
            outbox.put(n);
            match n {
                100 => outbox.put(FAILS),
                0 | 130 | 131 | 700 | 1199 => outbox.put(POISON),
                _ => {}
            }
        }
        let items = until_within(&kept, good().len(), Duration::from_secs(120)).await;
        assert_eq!(items, good().collect::<Vec<_>>());
        tasks.stop().await;
        assert_eq!(kept.items().len(), good().len(), "nothing comes twice");
    }

    #[tokio::test]
    async fn what_waits_is_handed_on_without_a_pause_for_each_batch() {
        let (tasks, kept) = (Tasks::default(), Kept::default());
        let count = 100 * BATCH;
        let outbox = Outbox::start(&tasks, "test", count, Duration::from_secs(60), kept.clone());
        let begun = Instant::now();
        (0..count as u32).for_each(|n| outbox.put(n));
        assert_eq!(until(&kept, count).await.len(), count);
        let pauses = begun.elapsed().as_millis() / LINGER.as_millis();
        assert!(pauses < 50, "{pauses} pauses for 100 batches");
        tasks.stop().await;
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
