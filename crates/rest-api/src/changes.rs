//! Tells those who watch a context, or a tenant's incidents, that they changed: at once on this replica, and on the others
//! through what replicas share. A hint only: who watches also looks by itself now and then.

use chassis::Tasks;
use coordination::Notices;
use domain::{ContextId, TenantId};
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};

/// How many changes may wait to be told. Beyond that they are left to those who look by themselves.
const BACKLOG: usize = 1024;

/// Changed contexts and incidents. Cheap to clone.
#[derive(Clone)]
pub struct Changes {
    notices: Arc<dyn Notices>,
    queue: mpsc::Sender<String>,
}

impl Changes {
    /// Tells over `notices`, in a task of its own: no request waits for what replicas share.
    pub fn new(notices: Arc<dyn Notices>, tasks: &Tasks) -> Self {
        let (queue, mut changed) = mpsc::channel::<String>(BACKLOG);
        let telling = Arc::clone(&notices);
        tasks.spawn("context-changes", async move {
            while let Some(topic) = changed.recv().await {
                telling.publish(&topic, "").await;
            }
        });
        Self { notices, queue }
    }

    /// A context changed here, or is gone.
    pub(crate) fn tell(&self, id: ContextId) {
        // Full: nobody waits for it, and nothing is lost.
        let _ = self.queue.try_send(topic(id));
    }

    /// An incident of the tenant's changed here.
    pub(crate) fn tell_incidents(&self, tenant: TenantId) {
        let _ = self.queue.try_send(incidents(tenant));
    }

    /// Hears of changes to one context. Only for contexts that exist: the listeners are kept by their names.
    pub(crate) fn of(&self, id: ContextId) -> broadcast::Receiver<String> {
        self.notices.subscribe(&topic(id))
    }

    /// Hears of changes to a tenant's incidents. Only for tenants that exist.
    pub(crate) fn of_incidents(&self, tenant: TenantId) -> broadcast::Receiver<String> {
        self.notices.subscribe(&incidents(tenant))
    }
}

fn topic(id: ContextId) -> String {
    format!("context:{id}")
}

fn incidents(tenant: TenantId) -> String {
    format!("incidents:{tenant}")
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
