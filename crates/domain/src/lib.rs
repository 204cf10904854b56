//! What the product is about, and nothing of how it is stored or carried: contexts, tools, executions,
//! API keys, principals and scopes.
//!
//! No tokio, tonic, axum or sqlx may enter here; `cargo xtask check` holds that.

pub mod api_key;
pub mod audit;
pub mod context;
pub mod execution;
pub mod ids;
pub mod incident;
pub mod page;
pub mod principal;
pub mod schedule;
pub mod schema;
pub mod tenant;
pub mod tool;
pub mod tool_rule;
pub mod upstream;
pub mod validate;

pub use ids::{ApiKeyId, ContextId, ExecutionId, IncidentId, ScheduleId, TenantId, ToolId, UpstreamId};
pub use principal::{Principal, Scope, Scopes};
pub use tool_rule::{ToolRule, ToolRules};
pub use validate::Invalid;

/// A JSON object, as it stands in metadata, arguments and schemas.
pub type JsonObject = serde_json::Map<String, serde_json::Value>;

/// A point in time, UTC. Stored and compared with microsecond precision.
pub type Time = chrono::DateTime<chrono::Utc>;
