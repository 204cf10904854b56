//! What the audit log is told of calls: every tools/call, and who was not let in. A record is put into an outbox, which
//! is sent to rest-api in batches; while rest-api is away it waits there, and no call waits for it.

use crate::{
    caller::authorized,
    settings,
    span::{caller, parts},
};
use chassis::{
    Host,
    grpc::GrpcChannel,
    outbox::{Courier, Outbox, Unsent},
};
use domain::{
    JsonObject,
    audit::{Arguments, Door, Outcome, Record, Rejected, Rejections},
};
use parking_lot::Mutex;
use proto::v1::{AuditRecord, RecordAuditRequest, audit_client::AuditClient};
use rmcp::{
    ErrorData, RoleServer,
    model::{CallToolRequestParams, CallToolResponse, CallToolResult},
    service::RequestContext,
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use telemetry::http::RequestScope;
use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
};

/// How long rest-api may take to keep a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// The codes of calls that ended without an error and are not over.
const TASK: &str = "task_created";
const QUESTION: &str = "input_required";

/// Where records are put. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trail {
    outbox: Outbox<Record>,
    rejections: Arc<Mutex<Rejections>>,
    arguments: Arguments,
}

struct Sender {
    client: AuditClient<GrpcChannel>,
    token: Option<MetadataValue<Ascii>>,
    rejections: Arc<Mutex<Rejections>>,
}

impl Courier for Sender {
    type Item = Record;

    fn gather(&self) -> Vec<Record> {
        self.rejections.lock().take()
    }

    async fn send(&self, batch: &[Record]) -> Result<(), Unsent> {
        let records = batch.iter().map(AuditRecord::from).collect();
        let message = RecordAuditRequest { records };
        let request = match &self.token {
            Some(token) => authorized(message, token.clone()),
            None => tonic::Request::new(message),
        };
        let mut client = self.client.clone();
        match tokio::time::timeout(PATIENCE, client.record(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(unsent(&status)),
            Err(_) => Err(Unsent::Away("rest-api did not answer in time".to_owned())),
        }
    }
}

/// What rest-api's answer says of a batch that it did not keep.
fn unsent(status: &Status) -> Unsent {
    let reason = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        // Too large is OutOfRange.
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::AlreadyExists => {
            Unsent::Refused(reason)
        }
        Code::Internal | Code::DataLoss => Unsent::Failed(reason),
        // A wrong token or an older rest-api passes, as an outage does.
        _ => Unsent::Away(reason),
    }
}

impl Trail {
    /// Sends to rest-api until the service stops.
    ///
    /// # Errors
    /// When the SERVICE_TOKEN is none that metadata could carry.
    pub(crate) fn start(
        settings: &settings::Audit,
        host: &Host,
        channel: &GrpcChannel,
    ) -> anyhow::Result<Self> {
        let token = host.common.service_token.as_ref();
        let token = token.map(|token| crate::caller::bearer(token.expose_secret()));
        let rejections = Arc::new(Mutex::new(Rejections::at(Door::Mcp)));
        let sender = Sender {
            client: AuditClient::new(channel.clone()),
            token: token.transpose()?,
            rejections: Arc::clone(&rejections),
        };
        let (room, every) = (settings.buffer, settings.rejected_every);
        Ok(Self {
            outbox: Outbox::start(&host.tasks, "audit-log", room, every, sender),
            rejections,
            arguments: settings.arguments,
        })
    }

    /// Counts an authentication that was rejected.
    pub(crate) fn reject(&self, rejected: Rejected) {
        self.rejections.lock().count(rejected, chrono::Utc::now());
    }

    /// The record of a call that begins now.
    pub(crate) fn call(&self, request: &CallToolRequestParams, cx: &RequestContext<RoleServer>) -> Entry {
        // What names no tool can hold anything.
        let name = domain::validate::word("name", &request.name, 64).map_or("other", |()| &request.name);
        let mut record = Record::new(chrono::Utc::now(), Door::Mcp, name);
        if let Ok(caller) = caller(cx) {
            record.tenant_id = Some(caller.principal.tenant_id);
            record.key_id = Some(caller.principal.key_id);
            record.key_name.clone_from(&caller.principal.key_name);
        }
        let nothing = JsonObject::new();
        let arguments = request.arguments.as_ref().unwrap_or(&nothing);
        self.arguments.keep(arguments, &mut record);
        let scope = parts(cx).and_then(|parts| parts.extensions.get::<RequestScope>());
        record.trace_id = scope.map(RequestScope::trace_id).unwrap_or_default();
        Entry {
            outbox: self.outbox.clone(),
            begun: Instant::now(),
            record: Some(record),
        }
    }
}

/// A call in hand. Dropped before its end, its client went away.
pub(crate) struct Entry {
    outbox: Outbox<Record>,
    begun: Instant,
    record: Option<Record>,
}

impl Entry {
    /// Takes the trace of the operation in hand: a message may bring its own.
    pub(crate) fn traced(&mut self) {
        if let (Some(record), Some(trace)) = (&mut self.record, telemetry::context::current_trace_id()) {
            record.trace_id = trace;
        }
    }

    /// The call was answered.
    pub(crate) fn ended(mut self, answer: &Result<CallToolResponse, ErrorData>) {
        let (code, execution) = match answer {
            Ok(CallToolResponse::Complete(result)) => told(result),
            Ok(CallToolResponse::Task(task)) => (TASK, Some(task.task.task_id.as_str())),
            Ok(CallToolResponse::InputRequired(_)) => (QUESTION, None),
            Ok(_) => ("", None),
            Err(error) => (code(error), None),
        };
        self.note(code, execution);
    }

    /// The call was answered with a task in the form of 2025-11-25.
    pub(crate) fn became_task(mut self, answer: &Result<Value, ErrorData>) {
        match answer {
            Ok(answer) => self.note(TASK, answer["task"]["taskId"].as_str()),
            Err(error) => self.note(code(error), None),
        }
    }

    fn note(&mut self, code: &str, execution: Option<&str>) {
        let Some(record) = &mut self.record else { return };
        record.outcome = match code {
            TASK | QUESTION => Outcome::Ok,
            code => Outcome::of_code(code),
        };
        record.code = code.to_owned();
        record.execution_id = execution.and_then(|id| id.parse().ok());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.duration_us = i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.outbox.put(record);
    }
}

/// The stable code of an error; every one of ours has one.
fn code(error: &ErrorData) -> &str {
    let data = error.data.as_ref();
    data.and_then(|data| data["code"].as_str())
        .unwrap_or("protocol_error")
}

/// The code that a result tells of, and its execution.
fn told(result: &CallToolResult) -> (&str, Option<&str>) {
    let structure = result.structured_content.as_ref();
    let code = structure.and_then(|structure| structure["error"]["code"].as_str());
    let about = result
        .meta
        .as_ref()
        .and_then(|meta| meta.get(crate::execute::EXECUTION));
    let execution = about.and_then(|about| about["id"].as_str());
    let failed = result.is_error == Some(true);
    (if failed { code.unwrap_or("tool_error") } else { "" }, execution)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use domain::Scope;

    #[test]
    fn a_defect_of_rest_api_does_not_keep_records_waiting_for_ever() {
        let told = |code| unsent(&Status::new(code, "x"));
        assert!(matches!(told(Code::Internal), Unsent::Failed(_)));
        assert!(matches!(told(Code::InvalidArgument), Unsent::Refused(_)));
        assert!(matches!(told(Code::OutOfRange), Unsent::Refused(_)));
        assert!(matches!(told(Code::Unavailable), Unsent::Away(_)));
        assert!(matches!(told(Code::Unauthenticated), Unsent::Away(_)));
        assert!(matches!(told(Code::Unimplemented), Unsent::Away(_)));
    }

    #[test]
    fn how_a_call_ended_is_read_from_its_answer() {
        let missing = Error::MissingScope(domain::principal::MissingScope(Scope::ContextsWrite));
        let result = missing.into_tool_result().expect("for the agent");
        assert_eq!(told(&result), ("missing_scope", None));
        assert_eq!(Outcome::of_code("missing_scope"), Outcome::Denied);
        assert_eq!(code(&Error::Cancelled.into()), "cancelled");
        assert_eq!(code(&ErrorData::invalid_params("x", None)), "protocol_error");
        assert_eq!(told(&CallToolResult::success(Vec::new())), ("", None));
    }
}
