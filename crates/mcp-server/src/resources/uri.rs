//! The addresses of resources.

use crate::error::Error;
use domain::{ContextId, ExecutionId, IncidentId};
use std::{fmt, str::FromStr};

const CONTEXT: &str = "context://";
const EXECUTION: &str = "execution://";
const RESULT: &str = "/result";
const OFFSET: &str = "?offset=";
const RUNBOOK: &str = "runbook://";
const DASHBOARD: &str = "dashboard://";
const INCIDENT: &str = "incident://";
const POSTMORTEM: &str = "/postmortem";

/// What a URI names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uri {
    /// A context and its items.
    Context(ContextId),
    /// Where an execution stands.
    Execution(ExecutionId),
    /// An execution's result, from this byte on.
    Result(ExecutionId, u64),
    /// What runbooks and dashboards there are.
    Runbooks,
    /// The runbook of an alert.
    Runbook(&'static str),
    /// What metrics there are.
    Metrics,
    /// What a dashboard's panels ask, by its stable id.
    Dashboard(&'static str),
    /// The incidents that are open.
    OpenIncidents,
    /// An incident.
    Incident(IncidentId),
    /// The draft of an incident's postmortem.
    Postmortem(IncidentId),
}

impl Uri {
    /// The addresses that there can be, as URI templates (RFC 6570).
    pub(crate) const CONTEXTS: &str = "context://{id}";
    /// Those of executions.
    pub(crate) const EXECUTIONS: &str = "execution://{id}";
    /// Those of their results.
    pub(crate) const RESULTS: &str = "execution://{id}/result{?offset}";
    /// The index of runbooks and dashboards.
    pub(crate) const RUNBOOKS: &str = "runbooks://index";
    /// Those of runbooks.
    pub(crate) const RUNBOOK: &str = "runbook://{alert}";
    /// The catalogue of metrics.
    pub(crate) const METRICS: &str = "metrics://catalogue";
    /// Those of dashboards.
    pub(crate) const DASHBOARDS: &str = "dashboard://{uid}";
    /// The incidents that are open.
    pub(crate) const OPEN_INCIDENTS: &str = "incidents://open";
    /// Those of incidents.
    pub(crate) const INCIDENTS: &str = "incident://{id}";
    /// Those of their postmortems.
    pub(crate) const POSTMORTEMS: &str = "incident://{id}/postmortem";
}

impl FromStr for Uri {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self, Error> {
        if let Some(id) = uri.strip_prefix(CONTEXT) {
            return id.parse().map(Self::Context).map_err(|_| missing());
        }
        if !uri.starts_with(EXECUTION) {
            return guidance(uri).ok_or_else(missing);
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

/// What is there to guide whoever looks into an incident.
fn guidance(uri: &str) -> Option<Uri> {
    match uri {
        Uri::RUNBOOKS => return Some(Uri::Runbooks),
        Uri::METRICS => return Some(Uri::Metrics),
        Uri::OPEN_INCIDENTS => return Some(Uri::OpenIncidents),
        _ => {}
    }
    if let Some(alert) = uri.strip_prefix(RUNBOOK) {
        let found = knowledge::runbooks()
            .iter()
            .find(|runbook| runbook.alert == alert);
        return found.map(|runbook| Uri::Runbook(runbook.alert));
    }
    if let Some(uid) = uri.strip_prefix(DASHBOARD) {
        let found = knowledge::dashboards()
            .iter()
            .find(|dashboard| dashboard.uid == uid);
        return found.map(|dashboard| Uri::Dashboard(dashboard.uid));
    }
    let id = uri.strip_prefix(INCIDENT)?;
    match id.strip_suffix(POSTMORTEM) {
        Some(id) => id.parse().ok().map(Uri::Postmortem),
        None => id.parse().ok().map(Uri::Incident),
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context(id) => write!(f, "{CONTEXT}{id}"),
            Self::Execution(id) => write!(f, "{EXECUTION}{id}"),
            Self::Result(id, 0) => write!(f, "{EXECUTION}{id}{RESULT}"),
            Self::Result(id, offset) => write!(f, "{EXECUTION}{id}{RESULT}{OFFSET}{offset}"),
            Self::Runbooks => f.write_str(Self::RUNBOOKS),
            Self::Runbook(alert) => write!(f, "{RUNBOOK}{alert}"),
            Self::Metrics => f.write_str(Self::METRICS),
            Self::Dashboard(uid) => write!(f, "{DASHBOARD}{uid}"),
            Self::OpenIncidents => f.write_str(Self::OPEN_INCIDENTS),
            Self::Incident(id) => write!(f, "{INCIDENT}{id}"),
            Self::Postmortem(id) => write!(f, "{INCIDENT}{id}{POSTMORTEM}"),
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
            Uri::Runbooks,
            Uri::Runbook("HighErrorRate"),
            Uri::Metrics,
            Uri::Dashboard("service"),
            Uri::OpenIncidents,
            Uri::Incident(IncidentId::new()),
            Uri::Postmortem(IncidentId::new()),
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
            "runbook://../README".to_owned(),
            "runbook://".to_owned(),
            "dashboard://nope".to_owned(),
            "incidents://closed".to_owned(),
            format!("incident://{id}/postmortem/2"),
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
