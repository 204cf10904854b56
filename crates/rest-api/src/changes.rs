//! Tells those who watch a context that it changed: at once on this replica, and on the others through what replicas
//! share. A hint only: who watches also looks by itself now and then.

use chassis::Tasks;
use coordination::Notices;
use domain::ContextId;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};

/// How many changes may wait to be told. Beyond that they are left to those who look by themselves.
const BACKLOG: usize = 1024;

/// Changed contexts. Cheap to clone.
#[derive(Clone)]
pub struct Changes {
    notices: Arc<dyn Notices>,
    queue: mpsc::Sender<ContextId>,
}

impl Changes {
    /// Tells over `notices`, in a task of its own: no request waits for what replicas share.
    pub fn new(notices: Arc<dyn Notices>, tasks: &Tasks) -> Self {
        let (queue, mut changed) = mpsc::channel(BACKLOG);
        let telling = Arc::clone(&notices);
        tasks.spawn("context-changes", async move {
            while let Some(id) = changed.recv().await {
                telling.publish(&topic(id), "").await;
            }
        });
        Self { notices, queue }
    }

    /// A context changed here, or is gone.
    pub(crate) fn tell(&self, id: ContextId) {
        // Full: nobody waits for it, and nothing is lost.
        let _ = self.queue.try_send(id);
    }

    /// Hears of changes to one context. Only for contexts that exist: the listeners are kept by their names.
    pub(crate) fn of(&self, id: ContextId) -> broadcast::Receiver<String> {
        self.notices.subscribe(&topic(id))
    }
}

fn topic(id: ContextId) -> String {
    format!("context:{id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordination::Coordination;

    #[tokio::test]
    async fn who_listens_to_a_context_hears_of_that_one_only() {
        let changes = Changes::new(Coordination::in_process().notices, &Tasks::default());
        let (ours, theirs) = (ContextId::new(), ContextId::new());
        let (mut heard, mut silent) = (changes.of(ours), changes.of(theirs));
        changes.tell(ours);
        heard.recv().await.expect("told");
        assert!(silent.try_recv().is_err());
    }
}
