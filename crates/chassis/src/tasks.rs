use futures_util::FutureExt;
use std::{
    any::Any,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use telemetry::tasks::{self, Tracked};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where everything that runs in the background is started, so that nothing outlives the service unseen.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Tasks {
    /// Starts `task`, which is dropped wherever it stands when the service stops. A panic is logged.
    #[track_caller]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.tracked(name, self.until_stopped(task)));
    }

    /// The same for a task that does something again and again, and is polled every so often at least: when it was not for
    /// three times as long, it counts as stuck (`runtime_tasks_stuck`).
    #[track_caller]
    pub fn spawn_every(
        &self,
        name: &'static str,
        every: Duration,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tracked(name, self.until_stopped(task));
        self.tracker.spawn(task.every(every));
    }

    /// Starts a task that is told when the service stops and then awaited, within `shutdown.timeout`. A panic is logged.
    #[track_caller]
    pub fn spawn_graceful<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.stop.clone());
        self.tracker.spawn(self.tracked(name, task));
    }

    /// The same for a task that is polled every so often at least, as in [`Self::spawn_every`].
    #[track_caller]
    pub fn spawn_graceful_every<F>(
        &self,
        name: &'static str,
        every: Duration,
        task: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.stop.clone());
        self.tracker.spawn(self.tracked(name, task).every(every));
    }

    fn until_stopped(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let stop = self.stop.clone();
        async move {
            stop.run_until_cancelled(task).await;
        }
    }

    #[track_caller]
    fn tracked(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Tracked<impl Future<Output = ()> + Send + 'static> {
        let entry = Entry::new(name, self.running.clone());
        tasks::track(name, async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(
                    task = name,
                    panic = panic_message(&*panic),
                    "a background task panicked"
                );
            }
            drop(entry);
        })
    }

    /// Tells all tasks to end and waits until they have.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// The names of what still runs.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }
}

/// One running task in the list, for as long as it lives.
struct Entry {
    name: &'static str,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Entry {
    fn new(name: &'static str, running: Arc<Mutex<BTreeMap<&'static str, usize>>>) -> Self {
        *running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
        Self { name, running }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, time::Duration};

    #[tokio::test]
    async fn stop_drops_plain_tasks_awaits_graceful_ones_and_survives_panics() {
        let tasks = Tasks::default();
        let (said, heard) = tokio::sync::oneshot::channel();
        tasks.spawn("plain", pending());
        tasks.spawn("broken", async { panic!("as told") });
        tasks.spawn_graceful("careful", async move |stop: CancellationToken| {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            said.send(()).expect("the test waits");
        });
        tokio::task::yield_now().await;
        assert_eq!(tasks.names(), ["careful", "plain"]);
        tasks.stop().await;
        heard.await.expect("the graceful task ran to its end");
        assert!(tasks.names().is_empty());
    }
}
