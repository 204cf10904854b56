//! What can go wrong with an MCP request, and how it is told: to the agent as a tool's error, or in JSON-RPC.
//!
//! Every error carries a stable code. Messages come from here or from rest-api's own errors; what only an operator
//! may know is logged where the error arises.

use domain::principal::MissingScope;
use rmcp::{
    ErrorData,
    model::{CallToolResult, ContentBlock, ErrorCode},
};
use serde_json::{Value, json};
use std::{borrow::Cow, error::Error as _};
use tonic::{Code, Status};

/// A request's answer.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody registered it.
    #[error("unknown tool: {0}")]
    UnknownTool(String),
    /// The key may not do this.
    #[error(transparent)]
    MissingScope(#[from] MissingScope),
    /// The arguments do not fit. Says where and what was expected.
    #[error("{0}")]
    Arguments(String),
    /// rest-api refused it.
    #[error("{message}")]
    Refused {
        /// rest-api's stable code.
        code: Cow<'static, str>,
        /// In rest-api's words.
        message: String,
        /// Whether the thing asked for does not exist.
        not_found: bool,
    },
    /// Something needed cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// rest-api was lost while a tool ran.
    #[error(
        "the connection was lost while the tool ran: whether it had its effect is not known; \
         GET /api/v1/executions tells once rest-api is back"
    )]
    Lost,
    /// The key's rules name the tool, but not with these arguments. Says where they do not fit.
    #[error("this key may not call the tool with these arguments: {0}")]
    ArgumentsNotAllowed(String),
    /// A person was asked and did not agree. Nothing ran.
    #[error("{0}; nothing has run")]
    Declined(&'static str),
    /// The client did not want it any more.
    #[error("cancelled by the client")]
    Cancelled,
    /// A defect. Its cause is logged, not told.
    #[error("internal error")]
    Internal,
}

impl Error {
    /// The code that clients can rely upon.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::UnknownTool(_) => "unknown_tool",
            Self::MissingScope(_) => "missing_scope",
            Self::Arguments(_) => "invalid_arguments",
            Self::Refused { code, .. } => code,
            Self::Unavailable(_) => "unavailable",
            Self::Lost => "outcome_unknown",
            Self::ArgumentsNotAllowed(_) => "arguments_not_allowed",
            Self::Declined(_) => "declined",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// A defect, with what the operator should know.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "request failed");
        Self::Internal
    }

    /// Code and message, and what belongs to some errors only.
    fn data(&self) -> Value {
        let mut data = json!({"code": self.code(), "message": self.to_string()});
        match self {
            Self::MissingScope(MissingScope(scope)) => data["required_scope"] = json!(scope),
            Self::Unavailable(_) => data["retry_after_ms"] = json!(1000),
            _ => {}
        }
        data
    }

    /// For the agent that called a tool: it can read this and do better. Only an unknown tool is the client's error.
    pub(crate) fn into_tool_result(self) -> std::result::Result<CallToolResult, ErrorData> {
        match self {
            Self::UnknownTool(_) | Self::Cancelled => Err(self.into()),
            error => Ok(tool_error(
                format!("{}: {error}", error.code()),
                json!({"error": error.data()}),
            )),
        }
    }
}

/// A tool's error in text and in structure.
pub(crate) fn tool_error(text: String, structure: Value) -> CallToolResult {
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structure);
    result
}

impl From<Error> for ErrorData {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::UnknownTool(_) | Error::Arguments(_) => ErrorCode::INVALID_PARAMS,
            Error::Refused { not_found: true, .. } => ErrorCode::RESOURCE_NOT_FOUND,
            Error::Refused { .. } => ErrorCode::INVALID_PARAMS,
            Error::MissingScope(_)
            | Error::ArgumentsNotAllowed(_)
            | Error::Declined(_)
            | Error::Cancelled => ErrorCode::INVALID_REQUEST,
            Error::Unavailable(_) | Error::Lost | Error::Internal => ErrorCode::INTERNAL_ERROR,
        };
        Self::new(code, error.to_string(), Some(error.data()))
    }
}

/// Only what bears a stable code was written for callers to see.
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let code = status
            .metadata()
            .get(proto::CODE_KEY)
            .and_then(|code| code.to_str().ok());
        match (code, status.code()) {
            (Some(_), Code::Unavailable) => Self::Unavailable(status.message().to_owned()),
            (Some(_), Code::Internal | Code::Unknown) => {
                Self::internal("rest-api failed; its log has the cause")
            }
            (Some(code), kind) => Self::Refused {
                code: code.to_owned().into(),
                message: status.message().to_owned(),
                not_found: kind == Code::NotFound,
            },
            (None, Code::Unavailable | Code::DeadlineExceeded) => unreachable(&status),
            (None, _) if status.source().is_some() => unreachable(&status),
            (None, kind) => Self::internal(format_args!("rest-api answered {kind:?}: {}", status.message())),
        }
    }
}

fn unreachable(status: &Status) -> Error {
    tracing::warn!(status = ?status.code(), reason = status.message(), "rest-api cannot be reached");
    Error::Unavailable("rest-api is not available now; try again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataValue;

    #[test]
    fn only_messages_written_for_callers_are_passed_on() {
        let mut known = Status::not_found("no such context");
        known
            .metadata_mut()
            .insert(proto::CODE_KEY, MetadataValue::from_static("not_found"));
        let error = Error::from(known);
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("not_found", "no such context")
        );
        assert_eq!(ErrorData::from(error).code, ErrorCode::RESOURCE_NOT_FOUND);

        for status in [
            Status::internal("table contexts is gone"),
            Status::invalid_argument("x at 10.0.0.1"),
        ] {
            assert_eq!(Error::from(status), Error::Internal);
        }
        let away = Error::from(Status::unavailable("tcp connect error: 10.0.0.1:50051"));
        assert!(!away.to_string().contains("10.0.0.1") && away.code() == "unavailable");
    }

    #[test]
    fn a_tool_tells_the_agent_and_an_unknown_tool_tells_the_client() {
        let scope = domain::Scope::ContextsWrite;
        let result = Error::from(MissingScope(scope))
            .into_tool_result()
            .expect("for the agent");
        assert_eq!(result.is_error, Some(true));
        let error = &result.structured_content.expect("structure")["error"];
        assert_eq!(
            (&error["code"], &error["required_scope"]),
            (&json!("missing_scope"), &json!("contexts:write"))
        );
        let unknown = Error::UnknownTool("nope".into())
            .into_tool_result()
            .expect_err("for the client");
        assert_eq!(unknown.code, ErrorCode::INVALID_PARAMS);
    }
}
