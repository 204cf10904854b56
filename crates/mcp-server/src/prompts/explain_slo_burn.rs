//! `explain_slo_burn`: what uses up an objective's error budget.

use super::{Given, argument, prompt as listed, result, takes_word};
use crate::{error::Result, resources::knowledge as texts};
use rmcp::model::{GetPromptResult, Prompt};

pub(super) const NAME: &str = "explain_slo_burn";

pub(super) fn prompt() -> Prompt {
    let arguments = vec![takes_word(argument::SLO, "The objective's name", true)];
    let description = "What uses up the error budget of a service level objective, and whether it will last";
    listed(NAME, "Explain an SLO's burn", description, arguments)
}

pub(super) fn get(given: Given<'_>) -> Result<GetPromptResult> {
    let slo = given.required(argument::SLO)?;
    let objective = knowledge::objective(slo);
    let promise = objective.map_or_else(String::new, |objective| {
        format!(
            "\n\nAs shipped it promises {percent}% over {window}: {about}\nWhat burns it, in bad events a second of the last \
            hour: {burning}",
            percent = objective.percent,
            window = objective.window,
            about = objective.description.trim(),
            burning = objective.burning("1h"),
        )
    });
    let steps = format!(
        "The error budget of the objective {slo} is being used up. Say by what, how fast, and what to do.{promise}\n\n\
        1. `slo_status` with slo {slo}: what is left of the budget, and the burn rate over short and long windows. Short high \
        and long low: it has just begun. Both high: it lasts. Long high and short low: it is over, and the alert will end.\n\
        2. `list_alerts`: does {slo}BudgetBurn fire, and what fires beside it?\n\
        3. `query_metrics`: the bad events a second (see above), as a range over the long window, split by service, route, \
        tool and code. Name the few parts that are most of it, each with its share. Bad events and few requests: traffic may \
        be so small that a handful counts as much.\n\
        4. `service_health` of the service that burns most.\n\
        5. `search_traces` for the operation that burns most (errors_only, or min_duration for a latency objective), \
        `get_trace` of one or two, and `query_logs` with their trace ids.\n\
        6. `query_metrics` over the objective's whole window: one incident, or a little all the time? The first is a cause to \
        remove, the second a question of design or of the objective.\n\n\
        Answer with: how much of the budget is left and when it will be gone at this rate, what burns it with shares and \
        example traces, since when, and what would stop it."
    );
    let runbook = texts::runbook(&format!("{slo}BudgetBurn"));
    Ok(result(
        format!("Explain the burn of {slo}"),
        &steps,
        runbook.into_iter().collect(),
    ))
}
