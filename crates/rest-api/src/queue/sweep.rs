//! Ends, or queues again, what was lost: by the replica that leads, beside the worker's job that asks for the same.

use crate::{api::Api, leader::Leadership};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(2);
/// How many executions one statement takes.
const BATCH: u32 = 500;

/// Sweeps until the service stops.
pub(crate) fn sweep(api: Api, leadership: Leadership) {
    let tasks = api.tasks().clone();
    tasks.spawn_every("queue-sweep", EVERY, async move {
        loop {
            tokio::time::sleep(EVERY).await;
            while leadership.holds() {
                match api.reap_executions(BATCH).await {
                    Ok(n) if n >= u64::from(BATCH) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(%error, "lost executions were not looked for");
                        break;
                    }
                }
            }
        }
    });
}
