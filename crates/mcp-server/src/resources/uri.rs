//! The addresses of resources.

use crate::error::Error;
use domain::{ContextId, ExecutionId};
use std::{fmt, str::FromStr};

const CONTEXT: &str = "context://";
const EXECUTION: &str = "execution://";
const RESULT: &str = "/result";
const OFFSET: &str = "?offset=";

/// What a URI names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uri {
    /// A context and its items.
    Context(ContextId),
    /// Where an execution stands.
    Execution(ExecutionId),
    /// An execution's result, from this byte on.
    Result(ExecutionId, u64),
}

impl Uri {
    /// The addresses that there can be, as URI templates (RFC 6570).
    pub(crate) const CONTEXTS: &str = "context://{id}";
    /// Those of executions.
    pub(crate) const EXECUTIONS: &str = "execution://{id}";
    /// Those of their results.
    pub(crate) const RESULTS: &str = "execution://{id}/result{?offset}";
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self, Error> {
        if let Some(id) = uri.strip_prefix(CONTEXT) {
            return id.parse().map(Self::Context).map_err(|_| missing());
        }
        let rest = uri.strip_prefix(EXECUTION).ok_or_else(missing)?;
        let (id, place) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let id = id.parse().map_err(|_| missing())?;
        if place.is_empty() {
            return Ok(Self::Execution(id));
        }
        let query = place.strip_prefix(RESULT).ok_or_else(missing)?;
        if query.is_empty() {
            return Ok(Self::Result(id, 0));
        }
        let offset = query.strip_prefix(OFFSET).ok_or_else(missing)?;
        let offset = offset.parse().map_err(|_| {
            Error::Arguments("offset: expected a number of bytes, such as ?offset=65536".to_owned())
        })?;
        Ok(Self::Result(id, offset))
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context(id) => write!(f, "{CONTEXT}{id}"),
            Self::Execution(id) => write!(f, "{EXECUTION}{id}"),
            Self::Result(id, 0) => write!(f, "{EXECUTION}{id}{RESULT}"),
            Self::Result(id, offset) => write!(f, "{EXECUTION}{id}{RESULT}{OFFSET}{offset}"),
        }
    }
}

/// What is said of a resource that is not there, or not this tenant's.
pub(super) fn missing() -> Error {
    Error::Refused {
        code: "not_found".into(),
        message: "no such resource".to_owned(),
        not_found: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let (context, execution) = (ContextId::new(), ExecutionId::new());
        for uri in [
            Uri::Context(context),
            Uri::Execution(execution),
            Uri::Result(execution, 0),
            Uri::Result(execution, 65_536),
        ] {
            assert_eq!(uri.to_string().parse(), Ok(uri), "{uri}");
        }
        let offset = format!("execution://{execution}/result?offset=0");
        assert_eq!(offset.parse(), Ok(Uri::Result(execution, 0)));
    }

    #[test]
    fn what_is_no_address_is_not_found_and_a_bad_offset_is_told() {
        let id = ExecutionId::new();
        for uri in [
            "file:///etc/passwd".to_owned(),
            "context://1".to_owned(),
            format!("execution://{id}/results"),
            format!("execution://{id}/result?limit=1"),
            format!("execution://{id}?offset=1"),
        ] {
            assert_eq!(uri.parse::<Uri>().expect_err("none").code(), "not_found", "{uri}");
        }
        for offset in ["", "-1", "x", "99999999999999999999"] {
            let error = format!("execution://{id}/result?offset={offset}")
                .parse::<Uri>()
                .expect_err("no offset");
            assert_eq!(error.code(), "invalid_arguments");
        }
    }
}
