//! `/tools/{name}/execute`: runs a tool, now or later.

use super::{
    Answer, Caller, Json, Path, Query, Span,
    executions::{ExecutionView, ViewQuery, stands},
    idempotency::{Key, mark_if},
};
use crate::{
    api::{Api, Ask},
    audit::Note,
    error::Error,
    store::Made,
};
use axum::{
    extract::{FromRequestParts, State},
    response::Response,
};
use domain::JsonObject;
use http::{HeaderName, HeaderValue, request::Parts};
use serde::Deserialize;
use std::convert::Infallible;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(execute))
}

/// Whether the caller would rather not wait (RFC 7240).
struct RespondAsync(bool);

impl<S: Sync> FromRequestParts<S> for RespondAsync {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let values = parts.headers.get_all(PREFER).iter();
        let mut preferences = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|preference| preference.split(';').next().unwrap_or_default().trim());
        Ok(Self(preferences.any(|p| p.eq_ignore_ascii_case(RESPOND_ASYNC))))
    }
}

/// What a tool is called with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(default)]
    #[schema(value_type = Object)]
    arguments: JsonObject,
    /// Those with a higher one run first, within the tenant: -100 to 100.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100)]
    priority: i32,
    /// It ends if it has not begun by then: seconds, or a duration such as `10m`.
    deadline_in: Option<Span>,
}

impl Call {
    fn ask(self, tool: String, idempotency_key: Option<String>) -> Ask {
        Ask {
            tool,
            arguments: self.arguments,
            confirmed: false,
            idempotency_key,
            priority: self.priority,
            deadline: self.deadline_in.map(Span::ahead),
            schedule_id: None,
            of_incident: false,
        }
    }
}

/// Runs a tool and waits for its outcome, which is stored before it is answered. A failed execution is answered with
/// 200 too: `status` and `error` tell. 202 answers what is not over: asked for with `Prefer: respond-async`, still being
/// tried when the tool's time is over, or awaiting approval.
#[utoipa::path(post, path = "/tools/{name}/execute", tag = "tools", request_body = Call,
    params(("name" = String, Path), ViewQuery,
        ("Prefer" = Option<String>, Header, description = "`respond-async`: do not wait"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, tool and arguments: the same execution")),
    responses((status = 200, body = ExecutionView),
        (status = 202, body = ExecutionView, description = "Not over: see Location"),
        (status = 403, description = "`missing_scope` or `arguments_not_allowed`"), (status = 404),
        (status = 422, description = "The Idempotency-Key was used for another call"),
        (status = 429, description = "`queue_full` or `rate_limited`"),
        (status = 503, description = "No worker took it up")))]
async fn execute(
    State(api): State<Api>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    Query(query): Query<ViewQuery>,
    headers: (RespondAsync, Key),
    note: Note,
    Json(call): Json<Call>,
) -> Answer<Response> {
    let (RespondAsync(respond_async), key) = headers;
    note.call(&name, &call.arguments);
    let ask = call.ask(name, key.into_inner());
    let (execution, before) = if respond_async {
        match api.enqueue_once(&caller, ask).await? {
            Made::New(execution) => (execution, false),
            Made::Before(execution) => (execution, true),
        }
    } else {
        let waiting = api.run_tool(&caller, ask).await?;
        let before = waiting.replayed();
        (waiting.finished().await?, before)
    };
    note.execution(
        execution.id,
        execution.error.as_ref().map_or("", |error| error.code.as_str()),
    );
    let mut response = mark_if(before, stands(&api, execution, query.view).await?);
    if respond_async {
        let applied = HeaderValue::from_static(RESPOND_ASYNC);
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok::<_, Error>(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preference_is_found_among_others() {
        for (values, expected) in [
            (vec!["respond-async"], true),
            (vec!["return=minimal", "wait=5, Respond-Async; x=1"], true),
            (vec!["respond-asynchronously"], false),
            (vec![], false),
        ] {
            let mut request = http::Request::builder();
            for value in &values {
                request = request.header(PREFER, *value);
            }
            let (mut parts, ()) = request.body(()).expect("well-formed").into_parts();
            let Ok(RespondAsync(found)) = RespondAsync::from_request_parts(&mut parts, &()).await;
            assert_eq!(found, expected, "{values:?}");
        }
    }
}
