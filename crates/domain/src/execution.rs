//! Executions: one run of a tool, from the request to its stored outcome.

use crate::{ApiKeyId, ExecutionId, JsonObject, TenantId, Time, ToolId};
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
    /// The trace that asked for it, 32 hex digits.
    pub trace_id: Option<String>,
    /// When it was asked for.
    pub created_at: Time,
    /// When a worker first took it up.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
}
