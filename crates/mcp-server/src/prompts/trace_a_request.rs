//! `trace_a_request`: what happened to one request.

use super::{Given, argument, prompt as listed, result, takes_word};
use crate::error::{Error, Result};
use rmcp::model::{GetPromptResult, Prompt};

pub(super) const NAME: &str = "trace_a_request";

pub(super) fn prompt() -> Prompt {
    let arguments = vec![
        takes_word(
            argument::REQUEST_ID,
            "Its id, as X-Request-Id and errors tell",
            false,
        ),
        takes_word(
            argument::TRACE_ID,
            "Or its trace's id, as X-Trace-Id and errors tell",
            false,
        ),
    ];
    let description = "What happened to one request, through all services, by its id or its trace's";
    listed(NAME, "Trace a request", description, arguments)
}

pub(super) fn get(given: Given<'_>) -> Result<GetPromptResult> {
    let request = given.optional(argument::REQUEST_ID)?;
    let trace = given.optional(argument::TRACE_ID)?;
    let (what, find) = match (request, trace) {
        (_, Some(trace)) => (
            format!("the trace {trace}"),
            format!(
                "1. `query_logs` with trace_id {trace}, from a day ago if nothing is newer: what each service said of it."
            ),
        ),
        (Some(request), None) => (
            format!("the request {request}"),
            format!(
                "1. `query_logs` with request_id {request}, from a day ago if nothing is newer: what each service said of it. \
                Its lines hold the trace_id that the next steps want."
            ),
        ),
        (None, None) => {
            let message = "request_id or trace_id: one of them is needed";
            return Err(Error::Arguments(message.to_owned()));
        }
    };
    let steps = format!(
        "Say what happened to {what}: where it went, how long each part took, and where it went wrong.\n\n\
        {find}\n\
        2. `get_trace` with the trace id: the tree, errors first. Follow the critical path; the span with the greatest self \
        time is where it was slow, the deepest span with an error is where it went wrong. Is it not there, it was not \
        sampled or is too old: the log lines are all there is; say so.\n\
        3. Was it slow, `search_traces` for the same service and operation around that time, and `compare_traces` with a fast \
        one: what took longer, and what happened that otherwise does not?\n\
        4. Did it end in an error, `query_logs` for the same message around that time: was it alone, or one of many? Then \
        `list_alerts` and `service_health` of the service that failed.\n\
        5. Did it run a tool, the resource execution://{{id}} with the execution's id from the log tells its attempts and \
        how it ended.\n\n\
        Answer with: the path through the services with times, the outcome, the cause as far as it shows, and whether others \
        are affected."
    );
    Ok(result(format!("Trace {what}"), &steps, Vec::new()))
}
