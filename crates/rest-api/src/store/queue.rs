//! The executions table as a queue: who holds what, until when, and what becomes of it.
//!
//! Whoever runs an execution holds a lease with a fencing token that grows with every lease: what an earlier holder
//! says is refused. Each time a row stops being `running` the database itself writes an attempt.

use super::{Made, Result, SealedCredentials};
use domain::{
    ApiKeyId, ExecutionId, JsonObject, ScheduleId, Scopes, TenantId, Time, ToolId,
    execution::{Attempt, Execution, ExecutionError, ExecutionStatus, Outcome},
    tool::Tool,
};
use tokio::sync::broadcast;

/// The token of an execution's first holder.
pub const FIRST_TOKEN: i64 = 1;
/// How many leases of an execution may be lost before it is given up.
pub const MAX_LOST: i32 = 10;
/// The most that one call of [`QueueStore::lease_executions`] takes.
pub const MAX_LEASED: u32 = 100;

/// How an execution begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Already leased to the replica whose caller waits, with [`FIRST_TOKEN`].
    Leased {
        /// The replica's name.
        owner: String,
        /// Until when the lease holds unless it is renewed.
        expires_at: Time,
    },
    /// Waits for a worker.
    Queued {
        /// When it may be taken up.
        run_at: Time,
    },
    /// Waits for a person; when its deadline passes first, it has failed.
    AwaitingApproval,
}

/// An execution as it begins.
#[derive(Clone, Debug)]
pub struct NewExecution {
    /// Chosen by the caller, since it is also the idempotency key sent to the tool's endpoint.
    pub id: ExecutionId,
    /// The tool.
    pub tool_id: ToolId,
    /// The tool's name now.
    pub tool: String,
    /// The key that asks for it.
    pub key_id: ApiKeyId,
    /// What it is called with.
    pub arguments: JsonObject,
    /// Whether it may be run again when its outcome is not known.
    pub idempotent: bool,
    /// What an approval is given for; see [`domain::execution::digest`].
    pub digest: String,
    /// The trace that asks for it.
    pub trace_id: Option<String>,
    /// The same as a W3C `traceparent`, for the run to link to.
    pub traceparent: Option<String>,
    /// Those with a higher one run first, within their tenant.
    pub priority: i32,
    /// Attempts in all, by the tool's policy.
    pub max_attempts: i32,
    /// When it ends if it has not begun by then.
    pub deadline: Option<Time>,
    /// The schedule that asks for it.
    pub schedule_id: Option<ScheduleId>,
    /// The caller's `Idempotency-Key`, and SHA-256 of what was asked for.
    pub idempotency: Option<(String, [u8; 32])>,
    /// How it begins.
    pub start: Start,
}

/// Who asks for work, and for how much.
#[derive(Clone, Copy, Debug)]
pub struct LeaseAsk<'a> {
    /// The worker's name.
    pub owner: &'a str,
    /// The most executions to lease; never more than [`MAX_LEASED`].
    pub limit: u32,
    /// The most running executions of one tenant, those included that a caller waits for. Replicas that lease in the
    /// same moment may pass it, by what each of them takes.
    pub per_tenant: u32,
    /// The time now.
    pub now: Time,
    /// Until when the leases hold unless they are renewed.
    pub expires_at: Time,
}

/// An execution that was leased, with all that running it needs.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The execution.
    pub execution: Execution,
    /// Since when it could have been handed out: since it was asked for or approved, or a wait before a retry was over.
    pub due: Time,
    /// Shown with every renewal and report.
    pub token: i64,
    /// The tenant's name.
    pub tenant: String,
    /// The tool as it is now; `None` when it was removed.
    pub tool: Option<Tool>,
    /// The tool's credentials.
    pub credentials: Option<SealedCredentials>,
    /// The name of the key that asked for it.
    pub key_name: String,
    /// What that key may do.
    pub key_scopes: Scopes,
    /// Whether the key that asked for it, and its tenant, are still accepted.
    pub key_active: bool,
    /// The trace that asked for it.
    pub traceparent: Option<String>,
    /// Attempts in all, by the tool's policy when it was asked for, and by replays since.
    pub max_attempts: i32,
    /// Whether it may be run again when its outcome is not known.
    pub idempotent: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// The execution is over.
    Final(&'a Outcome),
    /// It is queued again; or cancelled, if that was asked for.
    Retry {
        /// When it may be taken up.
        run_at: Time,
        /// What went wrong.
        error: &'a ExecutionError,
    },
    /// As [`End::Retry`], but nothing was done: the attempt does not count.
    HandBack {
        /// When it may be taken up.
        run_at: Time,
    },
}

/// A lease that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLease {
    /// The execution.
    pub id: ExecutionId,
    /// The lease's token.
    pub token: i64,
    /// How far the run has come, where that is news.
    pub progress: Option<String>,
}

/// What became of a lease that was to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The execution.
    pub id: ExecutionId,
    /// It is not the holder's any more.
    pub lost: bool,
    /// The execution is to end.
    pub cancel: bool,
}

/// What may interest those who wait. A signal may be missed, never the row: look there from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Some execution may be taken up.
    Queued,
    /// A running execution is to end.
    Cancel(ExecutionId),
    /// An execution's status or progress changed.
    Changed(ExecutionId),
}

/// What [`QueueStore::reap_executions`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// The execution.
    pub id: ExecutionId,
    /// The tool's name.
    pub tool: String,
    /// Its status now: `queued` when it will run again, else a final one.
    pub status: ExecutionStatus,
    /// When it was asked for.
    pub created_at: Time,
    /// Why it did not go on.
    pub error_code: Option<String>,
}

/// How much there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Executions by tenant's name and status: those queued, awaiting approval, running and dead; none where there are
    /// none.
    pub by_status: Vec<(String, ExecutionStatus, i64)>,
    /// Since when the one that waits longest of those that are due could have been taken up.
    pub oldest_queued: Option<Time>,
}

/// The part of the database that is the queue.
#[async_trait::async_trait]
pub trait QueueStore: Send + Sync + 'static {
    /// Inserts an execution, of a registered tool or of one of the product's own; the earlier one where its idempotency key was used before.
    /// [`super::StoreError::NotFound`] when the tool is gone, [`super::StoreError::IdempotencyMismatch`] when the key
    /// was used for something else, [`super::StoreError::Conflict`] when the identifier is taken.
    async fn create_execution(&self, tenant: TenantId, new: &NewExecution) -> Result<Made<Execution>>;
    /// Leases queued executions that are due. Fair between tenants: each tenant's best (by priority, then `run_at`, then
    /// `id`) in turn, beginning after the tenant that was served last.
    async fn lease_executions(&self, ask: &LeaseAsk<'_>) -> Result<Vec<Leased>>;
    /// What is held under this token, to decide on its next attempt; without credentials.
    /// [`super::StoreError::LeaseLost`] when it is not the row's any more.
    async fn leased_execution(&self, id: ExecutionId, token: i64) -> Result<Leased>;
    /// Has changes of what runs told to every replica: somebody else than who began it wants to know.
    async fn watch_execution(&self, tenant: TenantId, id: ExecutionId) -> Result<()>;
    /// Renews leases and notes progress; answers for each, in the same order.
    async fn renew_leases(&self, held: &[HeldLease], expires_at: Time) -> Result<Vec<Renewed>>;
    /// Ends an attempt; [`super::StoreError::LeaseLost`] when the token is not the row's any more. Answers the execution
    /// as stored.
    async fn end_attempt(&self, id: ExecutionId, token: i64, end: End<'_>) -> Result<Execution>;
    /// Cancels what has not begun; asks for the end of what runs; leaves what is over.
    async fn cancel_execution(&self, tenant: TenantId, id: ExecutionId) -> Result<Execution>;
    /// Queues what has ended without success once more, for `more_attempts`, without a deadline. It runs as the key `by`,
    /// which asks for it now; an earlier approval counts no more.
    /// [`super::StoreError::Conflict`] for anything else.
    async fn replay_execution(
        &self,
        tenant: TenantId,
        id: ExecutionId,
        by: ApiKeyId,
        more_attempts: i32,
        idempotent: bool,
        digest: &str,
    ) -> Result<Execution>;
    /// Queues what awaits approval. [`super::StoreError::Conflict`] when it does not, or has another digest.
    async fn approve_execution(
        &self,
        tenant: TenantId,
        id: ExecutionId,
        by: ApiKeyId,
        digest: &str,
    ) -> Result<Execution>;
    /// An execution's attempts that are over, in their order.
    async fn list_attempts(&self, tenant: TenantId, id: ExecutionId) -> Result<Vec<Attempt>>;
    /// Decides on at most `limit` executions each whose lease ran out before `now`, and on whose deadline passed before
    /// they began. Lost: `queued` again where running twice is safe (`cancelled` if that was asked for, `dead` after
    /// [`MAX_LOST`] times), else `outcome_unknown`. Too late: `failed` with `deadline_exceeded` or `approval_expired`.
    async fn reap_executions(&self, now: Time, limit: u32) -> Result<Vec<Reaped>>;
    /// How much there is to do.
    async fn queue_state(&self, now: Time) -> Result<QueueState>;
    /// What happens from now on, here and in other replicas.
    fn signals(&self) -> broadcast::Receiver<Signal>;
}
