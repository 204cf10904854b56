//! How runs fail: the stable codes, and the status in which each ends.

use domain::execution::{ExecutionError, ExecutionStatus, Outcome};
use serde_json::Value;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        /// Why a run failed. The words are part of the API: they never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $variant,)+
        }

        impl Code {
            /// The stable word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

codes! {
    /// Not over within the tool's time.
    Timeout = "timeout",
    /// The caller left.
    Cancelled = "cancelled",
    /// The worker had to stop before the run was over.
    WorkerStopped = "worker_stopped",
    /// Too many other runs, of this tenant or of all, were waiting.
    Overloaded = "overloaded",
    /// The arguments make no request.
    InvalidArguments = "invalid_arguments",
    /// The tool's registration makes no request.
    InvalidTool = "invalid_tool",
    /// The URL, or a redirect, leads to an address that the guard refuses.
    AddressNotAllowed = "address_not_allowed",
    /// The host's name does not resolve.
    DnsFailed = "dns_failed",
    /// Nobody answers at the address.
    ConnectFailed = "connect_failed",
    /// The TLS handshake failed, for example on an unknown certificate.
    TlsFailed = "tls_failed",
    /// The connection ended, or broke HTTP's rules, before the whole answer was there.
    ConnectionLost = "connection_lost",
    /// The endpoint answered with an error; the result holds its answer.
    HttpStatus = "http_status",
    /// The answer is larger than the limit.
    ResponseTooLarge = "response_too_large",
    /// The endpoint redirects on and on.
    TooManyRedirects = "too_many_redirects",
    /// The endpoint redirects to nowhere.
    InvalidRedirect = "invalid_redirect",
}

impl Code {
    /// Whether nothing can be told from it about what the endpoint did with a request that had left.
    fn leaves_open(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Cancelled | Self::WorkerStopped | Self::ConnectionLost
        )
    }

    /// The status of a run that failed with it. `may_have_acted`: the request left, and must not be repeated.
    pub fn status(self, may_have_acted: bool) -> ExecutionStatus {
        match self {
            _ if may_have_acted && self.leaves_open() => ExecutionStatus::OutcomeUnknown,
            Self::Cancelled => ExecutionStatus::Cancelled,
            _ => ExecutionStatus::Failed,
        }
    }
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Failure {
    /// Why.
    pub code: Code,
    /// For a person; holds no secret and no argument.
    pub message: String,
    /// What the tool answered all the same.
    pub result: Option<Value>,
}

impl Failure {
    /// A failure without a result.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            result: None,
        }
    }

    /// The outcome that is stored. See [`Code::status`].
    pub fn into_outcome(self, may_have_acted: bool) -> Outcome {
        let error = ExecutionError {
            code: self.code.as_str().to_owned(),
            message: self.message,
        };
        Outcome {
            status: self.code.status(may_have_acted),
            result: self.result,
            error: Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_acted_is_unknown_only_where_nothing_was_learnt() {
        assert_eq!(Code::Timeout.status(true), ExecutionStatus::OutcomeUnknown);
        assert_eq!(Code::ConnectionLost.status(true), ExecutionStatus::OutcomeUnknown);
        assert_eq!(Code::Cancelled.status(true), ExecutionStatus::OutcomeUnknown);
        assert_eq!(Code::Timeout.status(false), ExecutionStatus::Failed);
        assert_eq!(Code::Cancelled.status(false), ExecutionStatus::Cancelled);
        assert_eq!(Code::HttpStatus.status(true), ExecutionStatus::Failed);
        assert_eq!(Code::AddressNotAllowed.status(true), ExecutionStatus::Failed);
    }
}
