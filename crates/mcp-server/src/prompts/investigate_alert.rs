//! `investigate_alert`: from an alert to its cause.

use super::{Given, argument, prompt as listed, result, takes_word};
use crate::{
    error::{Error, Result},
    resources::{incidents, knowledge},
    tools::Call,
};
use domain::Scope;
use proto::v1::Incident;
use rmcp::model::{GetPromptResult, Prompt};

pub(super) const NAME: &str = "investigate_alert";

pub(super) fn prompt() -> Prompt {
    let arguments = vec![
        takes_word(argument::ALERT, "The alert's name", true),
        takes_word(argument::INCIDENT, "The id of the incident that it opened", false),
    ];
    let description =
        "From an alert to its cause: what to ask, in which order, and where to keep what is found";
    listed(NAME, "Investigate an alert", description, arguments)
}

pub(super) async fn get(call: Call<'_>, given: Given<'_>) -> Result<GetPromptResult> {
    let alert = given.required(argument::ALERT)?;
    let incident = match given.optional(argument::INCIDENT)? {
        None => None,
        Some(id) => {
            call.caller.require(Scope::ContextsRead)?;
            let wrong = |_| Error::Arguments("incident: expected an incident's id".to_owned());
            let id = id.parse().map_err(wrong)?;
            Some(incidents::get(call.caller, call.upstream, id).await?)
        }
    };
    told(alert, incident.as_ref())
}

/// The prompt, for an incident that is known or not.
pub(super) fn told(alert: &str, incident: Option<&Incident>) -> Result<GetPromptResult> {
    let begin = match incident {
        Some(incident) => format!(
            "It opened the incident {id}. Read its context first: `context_get` with the id {context}. What others have \
             found stands there, and so must what you find.",
            id = incident.id,
            context = incident.context_id
        ),
        None => {
            "Read the resource incidents://open: where an incident is about it, read that one's context with \
                 `context_get` first, for others may have begun."
                .to_owned()
        }
    };
    let steps = format!(
        "The alert {alert} fires. Find its cause, with evidence, and say what to do about it.\n\n\
        0. {begin}\n\
        1. `explain_alert` with alert {alert}: its rule, who fires since when and with which values, its runbook, log lines \
        and traces of its beginning. Note the service, and when it began: ask everything below about that time.\n\
        2. `service_health` of that service: is it rate, errors, duration or saturation, and how does it compare with the \
        hour and the week before? `list_alerts` tells what else fires: one cause often has several alerts, and the one \
        furthest down (database, Redis, a worker) is nearest to it.\n\
        3. `query_metrics`, a range from half an hour before the beginning: split what the rule measures by route, tool, \
        code or instance until one part explains the whole. If all parts rose alike, the cause is what they share. \
        `list_metrics` finds metrics by word and label; the resource metrics://catalogue tells what each means.\n\
        4. `search_traces` for that service and operation at that time: the slow ones with min_duration, or those with \
        errors_only. `get_trace` of one: follow the critical path to the span with the greatest self time, or to the \
        first error. `compare_traces` of a slow one with a fast one of the same operation tells where the time went.\n\
        5. `query_logs` with that trace's id, then of the service at level warn around the beginning: the first line of its \
        kind says more than the hundredth. Was something started, deployed or changed just before?\n\
        6. Where the trace ends in the database, `slow_queries`; where it ends in Redis, `redis_status`; where it ends in a \
        tool's endpoint, the cause is outside: say which tool, which host, and since when.\n\
        7. Try to prove yourself wrong: what else would you see if this is the cause? Ask for that.\n\n\
        Answer with: what is broken and for whom, since when, the cause with an example trace and its log lines, how sure \
        you are, what stops it now, and what keeps it from happening again."
    );
    let mut known: Vec<_> = knowledge::runbook(alert).into_iter().collect();
    if let Some(incident) = incident {
        known.push(incidents::contents(incident)?);
    }
    Ok(result(format!("Investigate {alert}"), &steps, known))
}
