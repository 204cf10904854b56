//! The audit log's writer: what changed through the HTTP door, and who was not let in. Nothing of it waits for the
//! database: records are put into an outbox, which is written in batches.

use crate::{
    clock::now,
    settings,
    store::{SharedStore, StoreError},
};
use axum::{
    body::{Body, HttpBody as _},
    extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use chassis::{
    Tasks,
    outbox::{Courier, Outbox, Unsent},
    problem::Code,
};
use domain::{
    ExecutionId, JsonObject, Principal,
    audit::{Arguments, Door, Hash, Outcome, Record, Rejected, Rejections},
};
use futures_util::StreamExt as _;
use http::{StatusCode, request::Parts};
use parking_lot::Mutex;
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Instant};

/// Routes whose bodies may hold credentials. Not even their hashes are kept: who knows the rest of a body could guess a
/// weak password by them.
const CONFIDED: [&str; 2] = ["/api/v1/tools", "/api/v1/upstreams"];

/// Where records are put. Cheap to clone.
#[derive(Clone)]
pub struct Trail {
    outbox: Outbox<Record>,
    rejections: Arc<Mutex<Rejections>>,
    arguments: Arguments,
}

struct Writer {
    store: SharedStore,
    rejections: Arc<Mutex<Rejections>>,
}

impl Courier for Writer {
    type Item = Record;

    fn gather(&self) -> Vec<Record> {
        self.rejections.lock().take()
    }

    async fn send(&self, batch: &[Record]) -> Result<(), Unsent> {
        self.store.keep_audit(batch).await.map_err(|error| match error {
            StoreError::Unavailable(_) | StoreError::InDoubt(_) => Unsent::Away(error.to_string()),
            StoreError::Internal(_) => Unsent::Failed(error.to_string()),
            other => Unsent::Refused(other.to_string()),
        })
    }
}

impl Trail {
    /// Writes into `store` until the service stops.
    pub fn start(settings: &settings::Audit, store: SharedStore, tasks: &Tasks) -> Self {
        let rejections = Arc::new(Mutex::new(Rejections::at(Door::Rest)));
        let writer = Writer {
            store,
            rejections: Arc::clone(&rejections),
        };
        let (room, every) = (settings.buffer, settings.rejected_every);
        Self {
            outbox: Outbox::start(tasks, "audit-log", room, every, writer),
            rejections,
            arguments: settings.arguments,
        }
    }

    /// Counts an authentication that was rejected.
    pub fn reject(&self, rejected: Rejected) {
        self.rejections.lock().count(rejected, now());
    }
}

/// The address at the other end of the connection.
pub fn peer(request: &Request) -> Option<std::net::IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(peer)| peer.ip().to_canonical())
}

/// What a handler tells of a request, for its record.
#[derive(Clone, Default)]
pub struct Note(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    keep: Arguments,
    call: Option<Record>,
    ended: Option<(ExecutionId, String)>,
}

impl Note {
    /// The request is a call of this tool.
    pub fn call(&self, tool: &str, arguments: &JsonObject) {
        let mut noted = self.0.lock();
        // What names no tool can hold anything.
        let action = domain::validate::word("tool", tool, 64).map_or("other", |()| tool);
        let mut record = Record::new(now(), Door::Rest, action);
        noted.keep.keep(arguments, &mut record);
        noted.call = Some(record);
    }

    /// The call is this execution, which stands so: the code of its error, or nothing.
    pub fn execution(&self, id: ExecutionId, code: &str) {
        self.0.lock().ended = Some((id, code.to_owned()));
    }
}

/// Nothing, where no record is kept.
impl<S: Sync> FromRequestParts<S> for Note {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// The middleware: records requests that may change something. Stands around the routes, inside of authentication.
pub async fn follow(State(trail): State<Trail>, mut request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let principal = request.extensions().get::<Arc<Principal>>().cloned();
    let route = request.extensions().get::<MatchedPath>();
    let (Some(principal), Some(route)) = (principal, route) else {
        return next.run(request).await;
    };
    let confided = may_hold_credentials(route.as_str());
    let mut record = Record::new(
        now(),
        Door::Rest,
        format!("{} {}", request.method(), route.as_str()),
    );
    record.tenant_id = Some(principal.tenant_id);
    record.key_id = Some(principal.key_id);
    record.key_name.clone_from(&principal.key_name);
    record.trace_id = telemetry::context::current_trace_id().unwrap_or_default();
    let note = Note::default();
    note.0.lock().keep = trail.arguments;
    request.extensions_mut().insert(note.clone());
    let (request, body) = if confided {
        (request, None)
    } else {
        hashed(request)
    };
    let entry = Entry {
        outbox: trail.outbox,
        begun: Instant::now(),
        record: Some(record),
        note,
        body,
        code: None,
    };
    let response = next.run(request).await;
    entry.ended(&response);
    response
}

fn may_hold_credentials(route: &str) -> bool {
    CONFIDED.iter().any(|path| {
        let below = route.strip_prefix(path);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    })
}

/// The request with its body hashed while it is read.
fn hashed(request: Request) -> (Request, Option<Arc<Mutex<Hash>>>) {
    if request.body().is_end_stream() {
        return (request, None);
    }
    let hash = Arc::new(Mutex::new(Hash::default()));
    let read = Arc::clone(&hash);
    let request = request.map(|body| {
        let parts = body.into_data_stream().inspect(move |part| {
            if let Ok(bytes) = part {
                read.lock().update(bytes);
            }
        });
        Body::from_stream(parts)
    });
    (request, Some(hash))
}

/// A request in hand. Dropped before its end, its caller went away.
struct Entry {
    outbox: Outbox<Record>,
    begun: Instant,
    record: Option<Record>,
    note: Note,
    body: Option<Arc<Mutex<Hash>>>,
    code: Option<(StatusCode, &'static str)>,
}

impl Entry {
    fn ended(mut self, response: &Response) {
        let code = response.extensions().get::<Code>();
        self.code = Some((response.status(), code.map_or("", |code| code.0)));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        let Noted { call, ended, .. } = std::mem::take(&mut *self.note.0.lock());
        if let Some(call) = call {
            record.action = call.action;
            record.arguments_hash = call.arguments_hash;
            record.arguments = call.arguments;
        } else if let Some(body) = &self.body {
            record.arguments_hash = body.lock().hex();
        }
        if let Some((status, code)) = self.code {
            record.outcome = outcome(status, code);
            record.code = code.to_owned();
        }
        if let Some((execution, code)) = ended {
            record.execution_id = Some(execution);
            if record.outcome == Outcome::Ok {
                record.outcome = Outcome::of_code(&code);
                record.code = code;
            }
        }
        record.duration_us = i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.outbox.put(record);
    }
}

fn outcome(status: StatusCode, code: &str) -> Outcome {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Denied,
        status if status.is_client_error() || status.is_server_error() => match Outcome::of_code(code) {
            Outcome::Ok => Outcome::Error,
            told => told,
        },
        _ => Outcome::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Every route whose body has a member named `credentials` in the API's description.
    fn routes_with_credentials() -> Vec<String> {
        let description: Value = serde_json::from_str(&crate::http::description()).expect("JSON");
        let takes = |operation: &Value| {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
            let schema = name.map_or(schema, |name| &description["components"]["schemas"][name]);
            schema.to_string().contains("\"credentials\"")
        };
        let paths = description["paths"].as_object().expect("paths");
        let with = paths.iter().filter(|(_, item)| {
            let mut operations = item.as_object().into_iter().flat_map(|item| item.values());
            operations.any(takes)
        });
        with.map(|(path, _)| path.clone()).collect()
    }

    #[test]
    fn no_hash_is_kept_of_bodies_that_may_hold_credentials() {
        let routes = routes_with_credentials();
        assert!(routes.len() >= 5, "{routes:?}");
        for route in routes {
            assert!(may_hold_credentials(&route), "{route}");
        }
        assert!(!may_hold_credentials("/api/v1/contexts"));
        assert!(!may_hold_credentials("/api/v1/toolshed"));
    }
}
