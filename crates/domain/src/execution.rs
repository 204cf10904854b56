//! Executions: one run of a tool, from the request to its stored outcome.

use crate::{ApiKeyId, ExecutionId, JsonObject, ScheduleId, TenantId, Time, ToolId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! statuses {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        /// Where an execution stands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ExecutionStatus {
            $($(#[$doc])* $variant,)+
        }

        impl ExecutionStatus {
            /// Every status there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that stands in databases, on the wire and in metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

statuses! {
    /// Waits for a worker.
    Queued = "queued",
    /// Waits for a person's approval.
    AwaitingApproval = "awaiting_approval",
    /// A worker holds it.
    Running = "running",
    /// Ended well.
    Succeeded = "succeeded",
    /// Ended badly; what happened is known.
    Failed = "failed",
    /// Ended by its caller.
    Cancelled = "cancelled",
    /// Gave up after its last retry.
    Dead = "dead",
    /// May or may not have had its effect; nothing runs it again by itself.
    OutcomeUnknown = "outcome_unknown",
}

impl ExecutionStatus {
    /// Whether nothing more will happen to it by itself.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::AwaitingApproval | Self::Running)
    }
}

impl std::str::FromStr for ExecutionStatus {
    type Err = crate::Invalid;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().copied().find(|status| status.as_str() == s);
        known.ok_or_else(|| crate::Invalid::new("status", "an execution's status, e.g. 'succeeded'"))
    }
}

/// Why an execution did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionError {
    /// Stable, e.g. `timeout`, `address_not_allowed`, `http_status`; see the worker's `outcome.rs`.
    pub code: String,
    /// For a person. Holds no secret and no argument.
    pub message: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// A final status.
    pub status: ExecutionStatus,
    /// What the tool answered, where it did.
    pub result: Option<Value>,
    /// What went wrong, where something did.
    pub error: Option<ExecutionError>,
}

/// One run of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// Identifier.
    pub id: ExecutionId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The tool that ran, while it exists.
    pub tool_id: Option<ToolId>,
    /// The tool's name when it ran.
    pub tool: String,
    /// The key that asked for it.
    pub key_id: ApiKeyId,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// What it was called with.
    pub arguments: JsonObject,
    /// What it answered.
    pub result: Option<Value>,
    /// Why it did not succeed.
    pub error: Option<ExecutionError>,
    /// How often a worker took it up.
    pub attempts: i32,
    /// Those with a higher one run first, within their tenant; 0 unless asked for.
    pub priority: i32,
    /// When it may be taken up, while it is queued: a retry waits for its turn.
    pub run_at: Option<Time>,
    /// When it ends if it has not begun by then.
    pub deadline: Option<Time>,
    /// Its caller wants it to end; it does as soon as its worker hears of it.
    pub cancel_requested: bool,
    /// How far its run has come, in the tool's words; only while it runs.
    pub progress: Option<String>,
    /// The schedule that asked for it.
    pub schedule_id: Option<ScheduleId>,
    /// SHA-256 over tool, tool's version and arguments, in hex: what an approval is given for.
    pub digest: String,
    /// The key that approved it.
    pub approved_by: Option<ApiKeyId>,
    /// The trace that asked for it, 32 hex digits.
    pub trace_id: Option<String>,
    /// When it was asked for.
    pub created_at: Time,
    /// When a worker first took it up.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
}

/// One time that a worker took an execution up, once it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// 1, 2, …; what was handed back unstarted has a number, too.
    pub number: i32,
    /// The worker, or the rest-api replica that waited with its caller.
    pub owner: String,
    /// How it ended: a status of an execution, or `retried`, `lost`, `handed_back`.
    pub outcome: String,
    /// What went wrong.
    pub error: Option<ExecutionError>,
    /// When it was taken up.
    pub started_at: Time,
    /// When it was over, or found to be.
    pub finished_at: Time,
}

/// What an approval is given for: this tool as it is now, with exactly these arguments. In hex.
pub fn digest(tool: ToolId, version: i64, arguments: &JsonObject) -> String {
    // Maps are sorted by key, so the same arguments are the same text.
    let text = serde_json::to_string(arguments).unwrap_or_default();
    let hash = ring::digest::digest(
        &ring::digest::SHA256,
        format!("{tool}\n{version}\n{text}").as_bytes(),
    );
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
