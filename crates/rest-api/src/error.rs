//! What can go wrong once the service runs, and how it is told over HTTP and gRPC.

use crate::store::StoreError;
use axum::response::{IntoResponse, Response};
use chassis::problem::Problem;
use domain::{Invalid, execution::ExecutionStatus, principal::MissingScope};
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use serde_json::json;
use std::time::Duration;
use tonic::{Code, Status, metadata::MetadataValue};

/// When a tenant whose queue is full may try again.
const QUEUE_FULL: Duration = Duration::from_secs(5);

/// A use case's answer.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key, or one that does not work.
    #[error(transparent)]
    Unauthenticated(#[from] AuthError),
    /// The key may not do this.
    #[error(transparent)]
    MissingScope(#[from] MissingScope),
    /// A field breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The arguments do not fit the tool's schema.
    #[error("the arguments do not fit the tool's schema: {0}")]
    Arguments(String),
    /// The key's rules let it call the tool, but not with these arguments.
    #[error("this key may not call the tool with these arguments: {0}")]
    ArgumentsNotAllowed(String),
    /// The key is limited to some tools, and this concerns more of them.
    #[error("this key is limited to some tools, and this goes beyond them")]
    ToolRulesExceeded,
    /// There are as many as there may be.
    #[error("there are {limit} {what} already, which is the limit")]
    TooMany {
        /// What there are.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// No such thing for this tenant.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The name is taken.
    #[error("there already is a {0} of that name")]
    Conflict(&'static str),
    /// The thing is not at the version that the caller expected.
    #[error("it is at version {current}, not at the one given")]
    VersionMismatch {
        /// The version it is at.
        current: i64,
    },
    /// The idempotency key was used with another body.
    #[error("this Idempotency-Key was used for another request")]
    IdempotencyMismatch,
    /// Beyond a size limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// The limit, bytes.
        limit: u64,
    },
    /// Too many requests with this key.
    #[error("too many requests with this key")]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// Something that this request needs cannot be reached.
    #[error("{what} is not available now")]
    Unavailable {
        /// What it is: `the database`, `a worker`.
        what: &'static str,
    },
    /// The database went away in the middle of a change.
    #[error("the database went away in the middle of this change: look whether it took place")]
    InDoubt,
    /// The execution does not stand so that this could be done.
    #[error("the execution is {}", .0.as_str())]
    WrongStatus(ExecutionStatus),
    /// The key asked for it itself.
    #[error("a key cannot approve what it asked for itself")]
    OwnRequest,
    /// The approval is for something else.
    #[error("the digest is not this execution's")]
    DigestMismatch,
    /// The tool is another MCP server's.
    #[error("the tool is the upstream '{0}' 's: it changes with that only, at /api/v1/upstreams/{0}")]
    UpstreamTool(String),
    /// The tool is not the one any more that was asked for.
    #[error("the tool changed since its run was asked for")]
    ToolChanged,
    /// It may have had its effect, and must not have it twice.
    #[error(
        "the call may have had its effect, and may have it twice if it is replayed; say that you know it"
    )]
    OutcomeUnknown,
    /// Too much of the tenant waits.
    #[error("{limit} executions of this tenant are waiting already, which is the limit")]
    QueueFull {
        /// How many may wait.
        limit: u32,
    },
    /// Another has taken the execution over.
    #[error("the lease was lost: another has taken the execution over, or it has ended")]
    LeaseLost,
    /// An OpenAPI document makes no tools, or too many.
    #[error(transparent)]
    Document(openapi::Error),
    /// A document could not be fetched.
    #[error("the document could not be fetched: {message}")]
    NotFetched {
        /// The worker's stable code.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// An import of this tenant has not ended.
    #[error("another import of this tenant is running")]
    ImportRunning,
    /// Tools' names are taken, and nothing was registered.
    #[error("there are tools of these names already: {}", some(.0))]
    ToolsExist(Vec<String>),
    /// An import ended half-way.
    #[error("the import ended after {} tools: {cause}", written.len())]
    ImportBroken {
        /// The tools that were registered or changed.
        written: Vec<String>,
        /// Why it went no further.
        cause: Box<Error>,
    },
    /// No credentials key is configured.
    #[error("credentials cannot be kept: no credentials key is configured")]
    NoCredentialsKey,
    /// A defect. Its cause is logged, not told.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

/// Why a key was refused. The answer tells the first three apart; the others are one to the caller, lest it learn
/// which keys exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// None was sent.
    #[error("send an API key as 'Authorization: Bearer …' or 'X-API-Key'")]
    Missing,
    /// Not a key of ours.
    #[error("the API key is not well-formed")]
    Malformed,
    /// No such key.
    #[error("the API key is not valid")]
    Unknown,
    /// Revoked.
    #[error("the API key is not valid")]
    Revoked,
    /// Expired.
    #[error("the API key is not valid")]
    Expired,
    /// Its tenant is suspended.
    #[error("the API key is not valid")]
    Suspended,
}

impl AuthError {
    /// The metrics' `result`.
    pub fn result(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "invalid",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Suspended => "suspended",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing_credentials",
            Self::Malformed => "malformed_key",
            _ => "invalid_key",
        }
    }
}

impl Error {
    /// Tells of a field by the name that it has at this door.
    pub(crate) fn rename(self, field: &str, here: &str) -> Self {
        match self {
            Self::Invalid(invalid) if invalid.field == field => {
                Self::Invalid(Invalid::new(here, invalid.expected))
            }
            other => other,
        }
    }

    /// What rules forbid to see is said not to be there.
    pub(crate) fn hidden(self, what: &'static str) -> Self {
        match self {
            Self::NotFound(_) | Self::ArgumentsNotAllowed(_) => Self::NotFound(what),
            other => other,
        }
    }

    /// The stable code that clients can rely upon.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(e) => e.code(),
            Self::MissingScope(_) => "missing_scope",
            Self::Invalid(_) => "invalid_argument",
            Self::Arguments(_) => "invalid_arguments",
            Self::ArgumentsNotAllowed(_) => "arguments_not_allowed",
            Self::ToolRulesExceeded => "tool_rules_exceeded",
            Self::TooMany { .. } => "limit_reached",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "already_exists",
            Self::VersionMismatch { .. } => "version_mismatch",
            Self::IdempotencyMismatch => "idempotency_key_reused",
            Self::TooLarge { .. } => "too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::InDoubt => "change_in_doubt",
            Self::WrongStatus(_) => "wrong_status",
            Self::OwnRequest => "own_request",
            Self::DigestMismatch => "digest_mismatch",
            Self::UpstreamTool(_) => "upstream_tool",
            Self::ToolChanged => "tool_changed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::QueueFull { .. } => "queue_full",
            Self::LeaseLost => "lease_lost",
            Self::Document(error) => error.code(),
            Self::NotFetched { code, .. } => code,
            Self::ImportRunning => "import_running",
            Self::ToolsExist(_) => "already_exists",
            Self::ImportBroken { cause, .. } => cause.code(),
            Self::NoCredentialsKey => "no_credentials_key",
            Self::Internal(_) => "internal",
        }
    }

    /// HTTP and gRPC statuses.
    fn statuses(&self) -> (StatusCode, Code) {
        match self {
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            Self::MissingScope(_)
            | Self::ArgumentsNotAllowed(_)
            | Self::ToolRulesExceeded
            | Self::OwnRequest => (StatusCode::FORBIDDEN, Code::PermissionDenied),
            Self::TooMany { .. } => (StatusCode::CONFLICT, Code::ResourceExhausted),
            Self::Invalid(_) | Self::Arguments(_) => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, Code::NotFound),
            Self::Conflict(_) => (StatusCode::CONFLICT, Code::AlreadyExists),
            Self::VersionMismatch { .. } => (StatusCode::PRECONDITION_FAILED, Code::FailedPrecondition),
            Self::IdempotencyMismatch => (StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::OutOfRange),
            Self::RateLimited { .. } | Self::QueueFull { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted)
            }
            Self::WrongStatus(_) | Self::DigestMismatch | Self::ToolChanged | Self::OutcomeUnknown => {
                (StatusCode::CONFLICT, Code::FailedPrecondition)
            }
            Self::Document(error) if error.code() == "document_too_large" => {
                (StatusCode::PAYLOAD_TOO_LARGE, Code::OutOfRange)
            }
            Self::Document(_) | Self::NotFetched { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidArgument)
            }
            Self::ImportRunning => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Self::ToolsExist(_) => (StatusCode::CONFLICT, Code::AlreadyExists),
            Self::ImportBroken { cause, .. } => cause.statuses(),
            Self::LeaseLost => (StatusCode::CONFLICT, Code::Aborted),
            Self::UpstreamTool(_) => (StatusCode::CONFLICT, Code::FailedPrecondition),
            Self::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            // Not what clients take for leave to try again.
            Self::InDoubt => (StatusCode::GATEWAY_TIMEOUT, Code::Unknown),
            Self::NoCredentialsKey => (StatusCode::CONFLICT, Code::FailedPrecondition),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }

    /// Logs what only the operator may know. Called once, where the error leaves the service.
    fn log(&self) {
        match self {
            Self::ImportBroken { cause, .. } => cause.log(),
            Self::Internal(cause) => tracing::error!(error = format!("{cause:#}"), "request failed"),
            Self::Unavailable { what } => tracing::warn!(what, "request failed: not available"),
            _ => tracing::debug!(code = self.code(), reason = %self, "request refused"),
        }
    }
}

/// The first few of them.
fn some(names: &[String]) -> String {
    let told = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 {
        format!("{told}, …")
    } else {
        told
    }
}

impl From<openapi::Error> for Error {
    fn from(error: openapi::Error) -> Self {
        match error {
            openapi::Error::Option(invalid) => Self::Invalid(invalid),
            openapi::Error::NoThread => Self::Unavailable { what: "a thread" },
            error => Self::Document(error),
        }
    }
}

impl From<StoreError> for Error {
    /// For a context, tool or other thing that is named, use [`Found::or_missing`] first.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound("thing"),
            StoreError::Conflict => Self::Conflict("thing"),
            StoreError::VersionMismatch { current } => Self::VersionMismatch { current },
            StoreError::IdempotencyMismatch => Self::IdempotencyMismatch,
            StoreError::TooLarge { limit } => Self::TooLarge {
                what: "the context",
                limit,
            },
            StoreError::BadCursor => Self::Invalid(Invalid::new("cursor", "a cursor of this listing")),
            StoreError::Unavailable(cause) => {
                tracing::warn!(error = %cause, "database unavailable");
                Self::Unavailable { what: "the database" }
            }
            StoreError::InDoubt(cause) => {
                tracing::warn!(error = %cause, "the database went away in the middle of a change");
                Self::InDoubt
            }
            StoreError::LeaseLost => Self::LeaseLost,
            StoreError::Migration { .. } | StoreError::Internal(_) => Self::Internal(error.into()),
        }
    }
}

/// Names the thing that the store did not find, or found taken.
pub trait Found<T> {
    /// `what` is the thing's kind: `context`, `tool`, `API key`.
    ///
    /// # Errors
    /// The store's, told in the caller's terms.
    fn or_missing(self, what: &'static str) -> Result<T>;
}

impl<T> Found<T> for std::result::Result<T, StoreError> {
    fn or_missing(self, what: &'static str) -> Result<T> {
        self.map_err(|error| match error {
            StoreError::NotFound => Error::NotFound(what),
            StoreError::Conflict => Error::Conflict(what),
            other => other.into(),
        })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.log();
        let problem = Self::new(error.statuses().0, error.code(), error.to_string());
        match &error {
            Error::Unauthenticated(_) => problem.header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Error::MissingScope(MissingScope(scope)) => problem.with("required_scope", json!(scope)),
            Error::Invalid(Invalid { field, expected }) => problem
                .with("field", json!(field))
                .with("expected", json!(expected)),
            Error::VersionMismatch { current } => problem.with("current_version", json!(current)),
            Error::TooLarge { limit, .. } => problem.with("limit_bytes", json!(limit)),
            Error::RateLimited { retry_after } => problem.retry_after(*retry_after),
            Error::WrongStatus(status) => problem.with("execution_status", json!(status.as_str())),
            Error::QueueFull { .. } => problem.retry_after(QUEUE_FULL),
            Error::ImportRunning => problem.retry_after(Duration::from_secs(1)),
            Error::ToolsExist(names) => problem.with("tools", json!(names)),
            Error::ImportBroken { written, .. } => problem.with("tools", json!(written)),
            Error::Unavailable { .. } => problem.retry_after(Duration::from_secs(1)),
            _ => problem,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.log();
        let mut status = Self::new(error.statuses().1, error.to_string());
        status
            .metadata_mut()
            .insert(proto::CODE_KEY, MetadataValue::from_static(error.code()));
        if let Error::Unauthenticated(why) = &error {
            // For the service that the caller entered, which counts it.
            let result = MetadataValue::from_static(why.result());
            status.metadata_mut().insert(proto::AUTH_RESULT_KEY, result);
        }
        status
    }
}
