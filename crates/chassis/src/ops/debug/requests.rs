//! The last slow, failed and debugged requests: `/debug/traces`, and `/debug/traces/{id}`, which leads to the trace.

mod page;
#[cfg(test)]
mod tests;

use crate::{
    Host, Problem,
    extract::{Path, Query},
    ops::Pretty,
};
use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, VARY},
};
use page::Page;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use telemetry::{
    context::RequestId,
    recent::{self, Reason, Record},
};

/// What may follow the question mark, for who wrote something else.
const ALLOWED: &str = "reason=slow, failed or debug; limit=1 to 1000; min_ms=0 or more; format=json or html";

/// How many requests are shown when nothing is said.
const LIMIT: usize = 100;
const MOST: usize = 1000;

/// How far back a search in Jaeger looks.
const LOOKBACK: Duration = Duration::from_secs(2 * 24 * 3600);

pub(super) fn routes(host: &Host) -> Router {
    let ui = host.common.monitoring.tracing.ui_url.as_deref();
    let traces = Traces {
        service: host.telemetry.service(),
        ui: ui.map(|url| url.trim_end_matches('/').into()),
    };
    Router::new()
        .route("/debug/traces", get(list))
        .route("/debug/traces/{id}", get(find))
        .with_state(traces)
}

/// Where this service's traces are looked at.
#[derive(Clone, Debug)]
struct Traces {
    service: &'static str,
    /// Without a slash at its end.
    ui: Option<Arc<str>>,
}

/// Which requests are wanted, and how they are to be shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    reason: Option<Reason>,
    limit: Option<usize>,
    min_ms: u64,
    format: Option<Shape>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Json,
    Html,
}

impl Wanted {
    fn choose(&self, mut records: Vec<Arc<Record>>) -> Vec<Arc<Record>> {
        let least = Duration::from_millis(self.min_ms);
        records.retain(|record| {
            record.duration >= least && self.reason.is_none_or(|reason| record.reasons.contains(&reason))
        });
        records.truncate(self.limit.unwrap_or(LIMIT));
        records
    }

    /// A browser gets a page; a program, or who asks for it, JSON.
    fn shape(&self, headers: &HeaderMap) -> Shape {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let browser = accept.is_some_and(|accept| accept.contains("text/html"));
        self.format
            .unwrap_or(if browser { Shape::Html } else { Shape::Json })
    }
}

/// The query, or what is allowed in it.
fn wanted(query: Result<Query<Wanted>, Problem>) -> Result<Wanted, Problem> {
    let refuse = |detail: String| Problem::bad_request("invalid_query", detail).with("allowed", ALLOWED);
    let Query(wanted) = query.map_err(|problem| refuse(problem.detail().to_owned()))?;
    match wanted.limit {
        Some(limit) if !(1..=MOST).contains(&limit) => Err(refuse(format!("limit: expected 1 to {MOST}"))),
        _ => Ok(wanted),
    }
}

/// `GET /debug/traces`
async fn list(
    State(traces): State<Traces>,
    query: Result<Query<Wanted>, Problem>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = wanted(query)?;
    let records = wanted.choose(recent::list());
    Ok(traces.show(&records, wanted.shape(&headers), None))
}

/// `GET /debug/traces/{id}`, a request's id or a trace's: to the trace in Jaeger, or else what this process knows.
async fn find(
    State(traces): State<Traces>,
    Path(id): Path<String>,
    query: Result<Query<Wanted>, Problem>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = wanted(query)?;
    if RequestId::parse(&id).is_none() {
        let detail = format!(
            "no such id: expected a trace id, or a request id of at most {} of A-Z a-z 0-9 . _ -",
            RequestId::MAX_LEN
        );
        return Err(Problem::bad_request("invalid_id", detail));
    }
    let found = wanted.choose(recent::find(&id));
    if wanted.format.is_none()
        && let Some(elsewhere) = traces.elsewhere(&id, &found)
    {
        return Ok((
            StatusCode::FOUND,
            [(LOCATION, elsewhere), (CACHE_CONTROL, "no-store".to_owned())],
        )
            .into_response());
    }
    if found.is_empty() {
        return Err(traces.unknown(&id));
    }
    Ok(traces.show(&found, wanted.shape(&headers), Some(&id)))
}

impl Traces {
    /// Where Jaeger shows it: the trace, where it has been made, or the search for a request that is not known here.
    /// `None` when there is none to be seen: no Jaeger, or a request that is known not to have been sampled.
    fn elsewhere(&self, id: &str, found: &[Arc<Record>]) -> Option<String> {
        let ui = self.ui.as_deref()?;
        if let Some(sampled) = found.iter().find(|record| record.sampled) {
            return Some(format!("{ui}/trace/{}", sampled.trace_id));
        }
        if !found.is_empty() {
            return None;
        }
        if is_trace_id(id) {
            return Some(format!("{ui}/trace/{}", id.to_ascii_lowercase()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(search(ui, self.service, id, now))
    }

    fn unknown(&self, id: &str) -> Problem {
        let detail = format!(
            "nothing is kept of {id} in this process of {}: only requests that were slow, failed or were debugged are, \
             and only the last ones, and by the replica that served them. Send the request again with \
             `X-Debug-Trace: true` and a key with the scope debug, or look for request.id={id} where the traces go{}",
            self.service,
            if self.ui.is_some() {
                ""
            } else {
                " (monitoring.tracing.ui_url, where it is set, has this page lead there)"
            }
        );
        Problem::not_found("not_found", detail)
    }

    /// Who may see them once need not be the one who opens the browser later: nothing is stored.
    fn show(&self, records: &[Arc<Record>], shape: Shape, id: Option<&str>) -> Response {
        let common = [(CACHE_CONTROL, "no-store"), (VARY, "Accept")];
        match shape {
            Shape::Json => {
                let requests: Vec<_> = records.iter().map(|record| self.json(record)).collect();
                (common, Pretty(json!({ "requests": requests }))).into_response()
            }
            Shape::Html => {
                let page = Page::new(self.service, self.ui.as_deref(), id);
                let policy = page.policy();
                let mut response = (common, Html(page.render(records))).into_response();
                if let Ok(policy) = HeaderValue::try_from(policy) {
                    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                }
                response
            }
        }
    }

    fn json(&self, record: &Record) -> Value {
        let mut json = record.to_json();
        if let (Some(ui), true) = (&self.ui, record.sampled) {
            json["trace_url"] = format!("{ui}/trace/{}", record.trace_id).into();
        }
        json
    }
}

fn is_trace_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Jaeger's search for what `service` did for the request. An id holds nothing that would have to be escaped.
fn search(ui: &str, service: &str, id: &str, now: Duration) -> String {
    let (start, end) = (now.saturating_sub(LOOKBACK).as_micros(), now.as_micros());
    format!(
        "{ui}/search?service={service}&tags=%7B%22request.id%22%3A%22{id}%22%7D&lookback=2d&start={start}&end={end}&limit=20"
    )
}
