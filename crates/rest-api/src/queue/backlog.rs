//! How much of each tenant waits, so that no tenant fills the table.

use crate::{
    error::{Error, Result},
    store::SharedStore,
};
use domain::execution::ExecutionStatus;
use moka::future::Cache;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// For how long a count is relied upon; what this replica adds meanwhile is added to it.
const FRESH: Duration = Duration::from_secs(1);

/// Counts what waits. Not exact where several replicas enqueue for one tenant within a second.
pub struct Backlog {
    store: SharedStore,
    limit: u32,
    counted: Cache<(), Arc<Mutex<HashMap<String, i64>>>>,
}

impl Backlog {
    /// Lets each tenant have `limit` executions waiting.
    pub fn new(store: SharedStore, limit: u32) -> Self {
        let counted = Cache::builder().max_capacity(1).time_to_live(FRESH).build();
        Self {
            store,
            limit,
            counted,
        }
    }

    /// Makes room for one more of `tenant` (its name).
    ///
    /// # Errors
    /// [`Error::QueueFull`].
    pub async fn admit(&self, tenant: &str) -> Result<()> {
        let counted = self.counted.try_get_with((), self.count()).await;
        let counted = counted.map_err(|_| Error::Unavailable { what: "the database" })?;
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = counted.entry(tenant.to_owned()).or_default();
        if *waiting >= i64::from(self.limit) {
            return Err(Error::QueueFull { limit: self.limit });
        }
        *waiting += 1;
        Ok(())
    }

    async fn count(&self) -> crate::store::Result<Arc<Mutex<HashMap<String, i64>>>> {
        let state = self.store.queue_state(crate::clock::now()).await?;
        let mut counted = HashMap::new();
        for (tenant, status, n) in state.by_status {
            if matches!(
                status,
                ExecutionStatus::Queued | ExecutionStatus::AwaitingApproval
            ) {
                *counted.entry(tenant).or_default() += n;
            }
        }
        Ok(Arc::new(Mutex::new(counted)))
    }
}
