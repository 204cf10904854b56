//! `capacity_review`: what runs out first.

use super::{Given, SERVICES, argument, prompt as listed, result, takes_word};
use crate::error::Result;
use rmcp::model::{GetPromptResult, Prompt};

pub(super) const NAME: &str = "capacity_review";

pub(super) fn prompt() -> Prompt {
    let arguments = vec![takes_word(
        argument::SERVICE,
        "One service; all without it",
        false,
    )];
    let description = "How near to their limits the services are, what runs out first, and when";
    listed(NAME, "Review capacity", description, arguments)
}

pub(super) fn get(given: Given<'_>) -> Result<GetPromptResult> {
    let service = given.optional(argument::SERVICE)?;
    let of = service.map_or_else(
        || format!("of {}", SERVICES.join(", ")),
        |service| format!("of {service}"),
    );
    let steps = format!(
        "Review the capacity {of}: how near to its limits is it, what runs out first, and when?\n\n\
        1. `list_targets`: is all of it there and scraped? What is not seen cannot be reviewed.\n\
        2. `service_health` of each: rate, errors, duration and saturation against the hour and the week before.\n\
        3. `query_metrics` over the last week, the busiest hour of each day: requests and tool calls a second, CPU and memory \
        against what the process may have, the database pool's connections in use against its most, executions that wait and \
        for how long the oldest has, open sessions and subscriptions against their limits. `list_metrics` with a word (pool, \
        queue, sessions, memory, disk) finds their names, metrics://catalogue what they mean, and the resources \
        dashboard://service, dashboard://queue-worker, dashboard://postgresql and dashboard://redis hold the very queries that \
        the dashboards ask.\n\
        4. `slow_queries` by total time, and `redis_status`: memory against its limit, evictions, clients.\n\
        5. `slo_status`: objectives that burn at ordinary load say that capacity is short already.\n\
        6. For what grows, the trend over the week (`query_metrics` with deriv or predict_linear): when is it at 80% of its \
        limit? Traffic of one tenant or one tool that dominates is no trend: name it.\n\n\
        Answer with a table: resource, limit, peak of the week, headroom, when it runs out at this trend; then what to change \
        first, and what could not be seen."
    );
    let about = service.map_or_else(
        || "Review capacity".to_owned(),
        |service| format!("Review the capacity of {service}"),
    );
    Ok(result(about, &steps, Vec::new()))
}
