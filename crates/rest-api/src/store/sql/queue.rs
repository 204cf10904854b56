//! The queue. Whoever ends an attempt shows its fencing token: one that was taken over has another.

use super::SqlStore;
use crate::store::{
    End, HeldLease, LeaseAsk, Leased, Made, NewExecution, QueueState, QueueStore, Reaped, Renewed, Result, Signal,
};
use domain::{
    ApiKeyId, ExecutionId, TenantId, Time,
    execution::{Attempt, Execution},
};
use tokio::sync::broadcast;

#[async_trait::async_trait]
impl QueueStore for SqlStore {
    async fn create_execution(&self, _tenant: TenantId, _new: &NewExecution) -> Result<Made<Execution>> {
        unimplemented!()
    }
    async fn lease_executions(&self, _ask: &LeaseAsk<'_>) -> Result<Vec<Leased>> {
        unimplemented!()
    }
    async fn leased_execution(&self, _id: ExecutionId, _token: i64) -> Result<Leased> {
        unimplemented!()
    }
    async fn renew_leases(&self, _held: &[HeldLease], _expires_at: Time) -> Result<Vec<Renewed>> {
        unimplemented!()
    }
    async fn end_attempt(&self, _id: ExecutionId, _token: i64, _end: End<'_>) -> Result<Execution> {
        unimplemented!()
    }
    async fn cancel_execution(&self, _tenant: TenantId, _id: ExecutionId) -> Result<Execution> {
        unimplemented!()
    }
    async fn replay_execution(&self, _tenant: TenantId, _id: ExecutionId, _more_attempts: i32, _idempotent: bool, _digest: &str) -> Result<Execution> {
        unimplemented!()
    }
    async fn approve_execution(&self, _tenant: TenantId, _id: ExecutionId, _by: ApiKeyId, _digest: &str) -> Result<Execution> {
        unimplemented!()
    }
    async fn list_attempts(&self, _tenant: TenantId, _id: ExecutionId) -> Result<Vec<Attempt>> {
        unimplemented!()
    }
    async fn reap_executions(&self, _now: Time, _limit: u32) -> Result<Vec<Reaped>> {
        unimplemented!()
    }
    async fn queue_state(&self, _now: Time) -> Result<QueueState> {
        unimplemented!()
    }
    fn signals(&self) -> broadcast::Receiver<Signal> {
        unimplemented!()
    }
}
