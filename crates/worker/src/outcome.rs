//! How runs fail: the stable codes, and the status in which each ends.

use domain::{
    execution::{ExecutionError, ExecutionStatus, Outcome},
    tool::options::MAX_BACKOFF_MS,
};
use serde_json::Value;
use std::time::{Duration, SystemTime};

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
    /// The answer says that it is JSON and is not; the result holds it as text.
    InvalidResponse = "invalid_response",
    /// The answer is larger than the limit, or its headers are.
    ResponseTooLarge = "response_too_large",
    /// The endpoint redirects on and on.
    TooManyRedirects = "too_many_redirects",
    /// The endpoint redirects to nowhere.
    InvalidRedirect = "invalid_redirect",
    /// Another MCP server's tool says that it failed; the result holds what it says.
    ToolError = "tool_error",
    /// Another MCP server refuses the request, or asks back; the result holds its error.
    UpstreamError = "upstream_error",
    /// Another MCP server failed again and again, and is left alone for a while.
    CircuitOpen = "circuit_open",
    /// The caller has no source of telemetry of this kind or name.
    UnknownSource = "unknown_source",
    /// A source of telemetry is down or cannot be reached.
    SourceUnavailable = "source_unavailable",
    /// A source of telemetry refused what it was asked, or answered what cannot be understood.
    SourceError = "source_error",
}

impl Code {
    /// Whether another attempt may fare better; `http_status`: the endpoint's, where that was the failure.
    fn is_transient(self, http_status: Option<u64>) -> bool {
        match self {
            Self::Timeout
            | Self::WorkerStopped
            | Self::Overloaded
            | Self::DnsFailed
            | Self::ConnectFailed
            | Self::CircuitOpen
            | Self::ConnectionLost
            | Self::SourceUnavailable => true,
            Self::HttpStatus => matches!(http_status, Some(408 | 425 | 429 | 500 | 502 | 503 | 504)),
            _ => false,
        }
    }

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

/// How an attempt ended, and what is to be known for another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// What is stored if there is no other.
    pub outcome: Outcome,
    /// Another attempt may fare better.
    pub transient: bool,
    /// The request may have left the worker.
    pub departed: bool,
    /// How long the endpoint wants to be left alone; at most a day.
    pub retry_after: Option<Duration>,
}

impl Ended {
    /// An attempt that ended with `result`. `runs_twice`: repeating it does no harm. `now`: for an endpoint that names
    /// a time.
    pub fn new(result: Result<Value, Failure>, departed: bool, runs_twice: bool, now: SystemTime) -> Self {
        match result {
            Ok(result) => Self {
                outcome: Outcome {
                    status: ExecutionStatus::Succeeded,
                    result: Some(result),
                    error: None,
                },
                transient: false,
                departed,
                retry_after: None,
            },
            Err(failure) => {
                let answer = failure.result.as_ref();
                let http_status = answer.and_then(|answer| answer["status"].as_u64());
                let told = answer.and_then(|answer| answer["headers"]["retry-after"].as_str());
                Self {
                    transient: failure.code.is_transient(http_status),
                    retry_after: told.and_then(|told| retry_after(told, now)),
                    outcome: failure.into_outcome(departed && !runs_twice),
                    departed,
                }
            }
        }
    }

    /// [`Ended::retry_after`] in milliseconds, as messages have it.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.retry_after
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(MAX_BACKOFF_MS))
    }
}

/// What `Retry-After` says: seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let seconds = text.trim().parse().ok().map(Duration::from_secs);
    let wait = seconds.or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?;
        Some(at.duration_since(now).unwrap_or_default())
    });
    wait.map(|wait| wait.min(Duration::from_millis(MAX_BACKOFF_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answered(status: u16, retry_after: &str) -> Ended {
        let failure = Failure {
            result: Some(json!({ "status": status, "headers": { "retry-after": retry_after } })),
            ..Failure::new(Code::HttpStatus, "")
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        Ended::new(Err(failure), true, true, now)
    }

    #[test]
    fn only_what_may_pass_is_worth_another_attempt() {
        for (status, transient) in [(429, true), (503, true), (400, false), (404, false), (501, false)] {
            assert_eq!(answered(status, "").transient, transient, "{status}");
        }
        for (code, transient) in [
            (Code::Timeout, true),
            (Code::ConnectionLost, true),
            (Code::TlsFailed, false),
            (Code::AddressNotAllowed, false),
            (Code::Cancelled, false),
        ] {
            let ended = Ended::new(Err(Failure::new(code, "")), true, true, SystemTime::now());
            assert_eq!(ended.transient, transient, "{code:?}");
        }
    }

    #[test]
    fn an_endpoint_may_ask_for_a_wait_in_seconds_or_by_date() {
        let wait = |text| answered(503, text).retry_after;
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:49:47 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("18446744073709551615"), Some(Duration::from_secs(24 * 3600)));
        for nonsense in ["", "-1", "soon", "1e3", "99999999999999999999999"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

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
