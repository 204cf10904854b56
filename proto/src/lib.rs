//! The gRPC contract between the services, compiled from `devops_mcp/v1/*.proto`, and its conversion from and
//! to the domain's types.

/// The generated code.
#[allow(
    missing_docs,
    clippy::all,
    clippy::cognitive_complexity,
    clippy::too_many_lines,
    reason = "generated; the .proto files are the documentation"
)]
pub mod v1 {
    tonic::include_proto!("devops_mcp.v1");
}

mod audit;
pub mod convert;

/// The metadata key under which an error carries its stable code.
pub const CODE_KEY: &str = "devops-mcp-code";

/// The metadata key under which a refused key's `result` for the metrics stands. Callers are not told: it would help
/// them to guess keys.
pub const AUTH_RESULT_KEY: &str = "devops-mcp-auth-result";

/// The metadata key under which stands whose a refused key is, where that is known: its tenant's and its own identifier,
/// with a slash between. For the service that the caller entered, whose audit log tells the tenant.
pub const REFUSED_KEY: &str = "devops-mcp-refused-key";
