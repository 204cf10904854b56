//! `/debug/heap`: the heap in numbers, and the switch of its profiles.

use crate::{Problem, ops::Pretty};
use axum::{Router, body::Bytes, routing::get};
use serde::Deserialize;
use serde_json::json;
use telemetry::profiles::heap::{self, Statistics, Unavailable};

pub(super) fn routes() -> Router {
    Router::new().route("/debug/heap", get(show).put(switch))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    profiling: bool,
}

async fn show() -> Pretty<Statistics> {
    Pretty(heap::statistics())
}

/// `PUT /debug/heap` with `{"profiling": true}`. The body is read as JSON whatever its content type says: plain `curl -d`
/// says it is a form.
async fn switch(body: Bytes) -> Result<Pretty<Statistics>, Problem> {
    let change: Change = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the body is not as expected: {error}");
        Problem::bad_request("invalid_body", detail).with("example", json!({"profiling": true}))
    })?;
    let before = heap::statistics().profiling;
    if change.profiling {
        heap::activate(None)
    } else {
        heap::deactivate()
    }
    .map_err(|error| problem(&error))?;
    if before != change.profiling {
        // At warn, so that it is seen at most levels.
        tracing::warn!(profiling = change.profiling, "heap profiling switched");
    }
    Ok(Pretty(heap::statistics()))
}

/// Why there is no profile of the heap.
pub(super) fn problem(error: &Unavailable) -> Problem {
    match error {
        Unavailable::Inactive => {
            let detail = "heap profiling is off, so nothing is known of what was allocated. Switch it on with \
                          PUT /debug/heap {\"profiling\": true}, or in the settings with monitoring.profiling.heap; \
                          what was allocated before is not shown then";
            Problem::conflict("profiling_off", detail)
        }
        Unavailable::Disabled => {
            let detail = format!("{error}: start the service without MALLOC_CONF=prof:false");
            Problem::conflict("profiling_disabled", detail)
        }
        Unavailable::Allocator(_) | Unavailable::Unreadable(_) => {
            tracing::error!(%error, "heap profile failed");
            Problem::internal()
        }
    }
}
