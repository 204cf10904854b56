//! What the worker asks for on a schedule.

use super::Api;
use crate::{clock::now, error::Result, metrics};

impl Api {
    /// Deletes at most `limit` expired contexts; says how many.
    pub async fn expire_contexts(&self, limit: u32) -> Result<u64> {
        Ok(self.0.store.expire_contexts(now(), limit).await?)
    }

    /// Deletes at most `limit` each of old executions and of idempotency records; says how many in all.
    pub async fn purge_expired(&self, limit: u32) -> Result<u64> {
        let now = now();
        let executions = self
            .0
            .store
            .purge_executions(now - self.0.retention.executions, limit)
            .await?;
        Ok(executions + self.0.store.purge_idempotency(now, limit).await?)
    }

    /// Ends at most `limit` executions whose replica or worker was lost; says how many.
    pub async fn reap_executions(&self, limit: u32) -> Result<u64> {
        let reaped = self.0.store.reap_executions(now(), limit).await?;
        for (tool, status) in &reaped {
            metrics::TOOL_EXECUTIONS.inc([tool, status.as_str()]);
        }
        Ok(reaped.len() as u64)
    }
}
