//! What the worker asks for on a schedule.

use super::Api;
use crate::{clock::now, error::Result, metrics};

impl Api {
    /// Deletes at most `limit` expired contexts; says how many.
    pub async fn expire_contexts(&self, limit: u32) -> Result<u64> {
        Ok(self.0.store.expire_contexts(now(), limit).await?)
    }

    /// Deletes at most `limit` each of old executions, of idempotency records, of the audit log's records and of old
    /// incidents; says how many in all.
    pub async fn purge_expired(&self, limit: u32) -> Result<u64> {
        let now = now();
        let executions = self
            .0
            .store
            .purge_executions(now - self.0.retention.executions, limit)
            .await?;
        let idempotency = self.0.store.purge_idempotency(now, limit).await?;
        let audit = self
            .0
            .store
            .purge_audit(now - self.0.retention.audit, limit)
            .await?;
        let incidents = now - self.0.retention.incidents;
        let incidents = self.0.store.purge_incidents(incidents, limit).await?;
        Ok(executions + idempotency + audit + incidents)
    }

    /// Queues again, or ends, at most `limit` executions whose replica or worker was lost, and as many whose deadline
    /// passed before they began; says how many.
    pub async fn reap_executions(&self, limit: u32) -> Result<u64> {
        let now = now();
        let reaped = self.0.store.reap_executions(now, limit).await?;
        for one in &reaped {
            let (tool, status) = (one.tool.as_str(), one.status.as_str());
            if one.error_code.as_deref() == Some("approval_expired") {
                // Nobody wanted it, which is how it is meant: nothing was lost.
                tracing::info!(execution_id = %one.id, tool, "execution was not approved in time");
            } else {
                metrics::EXECUTIONS_REAPED.inc([tool, status]);
                tracing::warn!(execution_id = %one.id, tool, status, "execution was lost or came too late");
            }
            if one.status.is_final() {
                metrics::TOOL_EXECUTIONS.inc([tool, status]);
                metrics::count_failure(tool, one.status, one.error_code.as_deref().unwrap_or_default());
                let took = (now - one.created_at).as_seconds_f64().max(0.0);
                metrics::TOOL_EXECUTION_DURATION.record(took, [tool, status]);
            }
        }
        Ok(reaped.len() as u64)
    }
}
