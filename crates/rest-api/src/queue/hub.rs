//! Who waits for what: lease streams for something to run, callers and followers for one execution.
//!
//! Signals come from the store, whichever replica caused them. They are a hint and nothing more: whoever is woken reads
//! the database, and whoever is not looks by himself after [`SWEEP`].

use crate::store::{SharedStore, Signal};
use domain::ExecutionId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

/// How long a signal may be missed until it does not matter any more.
pub(super) const SWEEP: Duration = Duration::from_secs(1);
/// Up to when it is worth waking for what comes due.
const SOON: Duration = Duration::from_secs(10);
/// How many executions are waited for by signal; who comes beyond it looks every [`SWEEP`].
const MAX_WAITED: usize = 20_000;
/// How many cancels a lease stream may fall behind by. What it misses, its worker's next heartbeat tells.
const CANCELS: usize = 1_024;

/// Passes the store's signals on. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    /// Grows whenever something may have been queued.
    queued: watch::Sender<u64>,
    cancels: broadcast::Sender<ExecutionId>,
    waited: Mutex<HashMap<ExecutionId, Waited>>,
}

/// An execution that somebody waits for, and how many do.
struct Waited {
    news: watch::Sender<News>,
    waiters: usize,
}

#[derive(Clone, Copy, Default)]
struct News {
    changes: u64,
    cancelled: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Self(Arc::new(Inner {
            queued: watch::Sender::new(0),
            cancels: broadcast::Sender::new(CANCELS),
            waited: Mutex::default(),
        }))
    }
}

impl Hub {
    /// Follows `store` until the service stops.
    pub fn follow(store: &SharedStore, tasks: &chassis::Tasks) -> Self {
        let hub = Self::default();
        let (here, mut signals) = (hub.clone(), store.signals());
        tasks.spawn("queue-signals", async move {
            loop {
                match signals.recv().await {
                    Ok(signal) => here.pass(signal),
                    Err(RecvError::Lagged(_)) => here.anything(),
                    Err(RecvError::Closed) => break,
                }
            }
        });
        hub
    }

    fn pass(&self, signal: Signal) {
        match signal {
            Signal::Queued => self.wake(),
            Signal::Changed(id) => self.tell(id, false),
            Signal::Cancel(id) => {
                // An error says that no lease stream is open.
                let _ = self.0.cancels.send(id);
                self.tell(id, true);
            }
        }
    }

    /// Something may be there to lease.
    fn wake(&self) {
        self.0.queued.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Something will be there to lease after `wait`. What is far ahead is left to whoever looks then.
    pub(crate) fn wake_after(&self, wait: Duration, tasks: &chassis::Tasks) {
        if wait <= SOON {
            let hub = self.clone();
            tasks.spawn("retry-due", async move {
                tokio::time::sleep(wait).await;
                hub.wake();
            });
        }
    }

    /// Everything may have changed.
    fn anything(&self) {
        self.wake();
        for waited in self.waited().values() {
            waited.news.send_modify(|news| news.changes += 1);
        }
    }

    fn tell(&self, id: ExecutionId, cancel: bool) {
        if let Some(waited) = self.waited().get(&id) {
            waited.news.send_modify(|news| {
                news.changes += 1;
                news.cancelled |= cancel;
            });
        }
    }

    /// Changes whenever something may have been queued.
    pub fn queued(&self) -> watch::Receiver<u64> {
        self.0.queued.subscribe()
    }

    /// The executions that are to end while they run.
    pub fn cancels(&self) -> broadcast::Receiver<ExecutionId> {
        self.0.cancels.subscribe()
    }

    /// Waits for news of one execution, from now on.
    pub fn waiter(&self, id: ExecutionId) -> Waiter {
        let mut all = self.waited();
        let full = all.len() >= MAX_WAITED && !all.contains_key(&id);
        let news = (!full).then(|| {
            let waited = all.entry(id).or_insert_with(|| Waited {
                news: watch::Sender::default(),
                waiters: 0,
            });
            waited.waiters += 1;
            waited.news.subscribe()
        });
        drop(all);
        Waiter {
            hub: self.clone(),
            id,
            news,
        }
    }

    fn waited(&self) -> MutexGuard<'_, HashMap<ExecutionId, Waited>> {
        self.0.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for news of one execution.
pub struct Waiter {
    hub: Hub,
    id: ExecutionId,
    /// `None` when too many were waited for already.
    news: Option<watch::Receiver<News>>,
}

impl Waiter {
    /// Returns when the execution may have changed since the last call, and after [`SWEEP`] in any case.
    pub async fn changed(&mut self) {
        self.changed_within(SWEEP).await;
    }

    /// Returns when the execution may have changed since the last call, and after `patience` in any case.
    pub async fn changed_within(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, async {
            let told = match &mut self.news {
                Some(news) => news.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        })
        .await;
    }

    /// Returns when somebody wants the execution to end; a run that is not told so hears it when its lease is renewed.
    pub async fn cancelled(&self) {
        let told = match self.news.clone() {
            Some(mut news) => news.wait_for(|news| news.cancelled).await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.news.is_none() {
            return;
        }
        let mut all = self.hub.waited();
        if let Some(waited) = all.get_mut(&self.id) {
            waited.waiters -= 1;
            if waited.waiters == 0 {
                all.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn who_waits_is_told_and_leaves_nothing_behind() {
        let hub = Hub::default();
        let (one, other) = (ExecutionId::new(), ExecutionId::new());
        let (mut first, mut second, bystander) = (hub.waiter(one), hub.waiter(one), hub.waiter(other));
        assert!(first.changed().now_or_never().is_none(), "there is no news yet");
        hub.pass(Signal::Cancel(one));
        for waiter in [&mut first, &mut second] {
            assert!(waiter.changed().now_or_never().is_some(), "told at once");
            assert!(waiter.cancelled().now_or_never().is_some());
        }
        assert!(bystander.cancelled().now_or_never().is_none());
        // No more news: it looks by itself.
        first.changed().await;
        drop((first, bystander));
        assert_eq!(hub.waited().len(), 1);
        drop(second);
        assert!(hub.waited().is_empty());
    }

    #[tokio::test]
    async fn lost_signals_wake_everyone() {
        let hub = Hub::default();
        let (mut queued, mut waiter) = (hub.queued(), hub.waiter(ExecutionId::new()));
        hub.anything();
        assert!(queued.changed().now_or_never().is_some());
        assert!(waiter.changed().now_or_never().is_some());
    }
}
