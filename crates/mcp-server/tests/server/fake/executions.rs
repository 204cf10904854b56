//! Executions, kept as rest-api keeps them: a tool answers what it was called with, `boom` fails, and `slow` goes on until
//! the test ends it.

use super::{Answer, Events, Fake, SERVICE_TOKEN, refused};
use domain::{ExecutionId, Principal, Scope};
use proto::v1::{self, executions_server, run_execution_event::Event};
use std::{collections::BTreeMap, sync::atomic::Ordering};
use tonic::{Request, Response, Status};

/// Every execution, by its id.
#[derive(Default)]
pub(crate) struct Executions {
    kept: BTreeMap<String, Kept>,
    /// By idempotency key.
    known: BTreeMap<String, String>,
}

struct Kept {
    tenant: String,
    execution: v1::Execution,
}

/// Notes that a run's stream was dropped before its end.
struct Dropped(Fake);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.run_dropped.store(true, Ordering::SeqCst);
    }
}

fn now() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_800_000_000,
        nanos: 0,
    })
}

fn missing() -> Status {
    refused(tonic::Code::NotFound, "not_found", "no such execution")
}

impl Fake {
    /// Changes an execution; whoever follows it hears.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut v1::Execution)) {
        change(&mut self.executions.lock().kept.get_mut(id).unwrap().execution);
        self.moved.send_replace(());
    }

    /// Ends an execution well.
    pub(crate) fn finish(&self, id: &str, result: &serde_json::Value) {
        self.change(id, |execution| {
            execution.status = "succeeded".into();
            execution.result_json = Some(result.to_string());
            execution.finished_at = now();
        });
    }

    /// Every execution as it stands, the oldest first.
    pub(crate) fn all_executions(&self) -> Vec<v1::Execution> {
        let executions = self.executions.lock();
        executions
            .kept
            .values()
            .map(|kept| kept.execution.clone())
            .collect()
    }

    fn found(&self, caller: &Principal, id: &str) -> Result<v1::Execution, Status> {
        let executions = self.executions.lock();
        let kept = executions
            .kept
            .get(id)
            .filter(|kept| kept.tenant == caller.tenant_id.to_string());
        kept.map(|kept| kept.execution.clone()).ok_or_else(missing)
    }

    /// Takes a run in: what a person has to approve waits, everything else runs.
    fn take(&self, request: Request<v1::RunExecutionRequest>) -> Result<v1::Execution, Status> {
        let caller = self.caller(request.metadata())?;
        let tenant = caller.tenant_id.to_string();
        let token = request.metadata().get("devops-mcp-service-token");
        let believed = token.is_some_and(|token| token == SERVICE_TOKEN);
        let run = request.into_inner();
        let tool = self
            .tools
            .lock()
            .iter()
            .find(|t| t.tenant_id == tenant && t.name == run.tool)
            .cloned();
        let tool = tool.ok_or_else(|| refused(tonic::Code::NotFound, "not_found", "no such tool"))?;
        let mut executions = self.executions.lock();
        if let Some(id) = run
            .idempotency_key
            .as_ref()
            .and_then(|key| executions.known.get(key))
        {
            return Ok(executions.kept[id].execution.clone());
        }
        let allowed = !tool.destructive
            || caller.scopes.contains(Scope::ToolsUnattended)
            || (run.confirmed && believed);
        let (status, result, error) = match &*run.tool {
            _ if !allowed => ("awaiting_approval", None, None),
            "slow" => ("running", None, None),
            "boom" => {
                let error = v1::ExecutionError {
                    code: "http_status".into(),
                    message: "it answered 500".into(),
                };
                ("failed", None, Some(error))
            }
            _ => ("succeeded", Some(run.arguments_json.clone()), None),
        };
        let execution = v1::Execution {
            id: ExecutionId::new().to_string(),
            tool: run.tool,
            status: status.into(),
            result_bytes: result.as_ref().map_or(0, |text| text.len() as u64),
            result_json: result,
            error,
            attempts: 1,
            created_at: now(),
            digest: "d1g357".into(),
            arguments_json: run.arguments_json,
            ..Default::default()
        };
        let id = execution.id.clone();
        executions
            .known
            .extend(run.idempotency_key.map(|key| (key, id.clone())));
        executions.kept.insert(
            id,
            Kept {
                tenant,
                execution: execution.clone(),
            },
        );
        Ok(execution)
    }
}

#[tonic::async_trait]
impl executions_server::Executions for Fake {
    type RunStream = Events<v1::RunExecutionEvent>;
    type FollowStream = Events<v1::Execution>;

    async fn run(&self, request: Request<v1::RunExecutionRequest>) -> Answer<Self::RunStream> {
        let execution = self.take(request)?;
        let fake = self.clone();
        let progress = |progress, message: &str| v1::RunExecutionEvent {
            event: Some(Event::Progress(v1::Progress {
                progress,
                total: Some(2.0),
                message: message.into(),
            })),
        };
        let events = async_stream::stream! {
            yield Ok(progress(1.0, "half"));
            if execution.status == "running" {
                fake.run_begun.fetch_add(1, Ordering::SeqCst);
                let _dropped = Dropped(fake);
                std::future::pending::<()>().await;
            }
            yield Ok(progress(2.0, "done"));
            yield Ok(v1::RunExecutionEvent { event: Some(Event::Execution(execution)) });
        };
        Ok(Response::new(Box::pin(events)))
    }

    async fn enqueue(&self, request: Request<v1::RunExecutionRequest>) -> Answer<v1::Execution> {
        self.take(request).map(Response::new)
    }

    async fn get(&self, request: Request<v1::GetExecutionRequest>) -> Answer<v1::Execution> {
        let caller = self.caller(request.metadata())?;
        self.found(&caller, &request.get_ref().id).map(Response::new)
    }

    async fn list(&self, request: Request<v1::ListExecutionsRequest>) -> Answer<v1::ListExecutionsResponse> {
        let tenant = self.caller(request.metadata())?.tenant_id.to_string();
        let executions = self.executions.lock();
        let ours = executions
            .kept
            .values()
            .rev()
            .filter(|kept| kept.tenant == tenant);
        Ok(Response::new(v1::ListExecutionsResponse {
            executions: ours.map(|kept| kept.execution.clone()).collect(),
            next_cursor: String::new(),
        }))
    }

    async fn follow(&self, request: Request<v1::GetExecutionRequest>) -> Answer<Self::FollowStream> {
        let caller = self.caller(request.metadata())?;
        let id = request.into_inner().id;
        self.found(&caller, &id)?;
        let fake = self.clone();
        let mut down = self.down.subscribe();
        let states = async_stream::try_stream! {
            let mut moved = fake.moved.subscribe();
            let mut shown = None;
            loop {
                moved.borrow_and_update();
                let execution = fake.found(&caller, &id)?;
                if shown.as_ref() != Some(&execution) {
                    shown = Some(execution.clone());
                    let over = execution.status.parse::<domain::execution::ExecutionStatus>().unwrap().is_final();
                    yield execution;
                    if over {
                        return;
                    }
                }
                tokio::select! {
                    _ = moved.changed() => {}
                    _ = down.wait_for(|down| *down) => return,
                }
            }
        };
        Ok(Response::new(Box::pin(states)))
    }

    async fn cancel(&self, request: Request<v1::GetExecutionRequest>) -> Answer<v1::Execution> {
        let caller = self.caller(request.metadata())?;
        let id = request.into_inner().id;
        self.found(&caller, &id)?;
        self.change(&id, |execution| {
            execution.status = "cancelled".into();
            execution.finished_at = now();
        });
        self.found(&caller, &id).map(Response::new)
    }

    async fn read_result(&self, request: Request<v1::ReadResultRequest>) -> Answer<v1::ReadResultResponse> {
        let caller = self.caller(request.metadata())?;
        let asked = request.into_inner();
        let text = self.found(&caller, &asked.id)?.result_json.unwrap_or_default();
        let from = text.floor_char_boundary(usize::try_from(asked.offset).unwrap());
        let to = text.floor_char_boundary(from + asked.limit as usize);
        Ok(Response::new(v1::ReadResultResponse {
            text: text[from..to.max(from)].to_owned(),
            offset: from as u64,
            total_bytes: text.len() as u64,
        }))
    }
}
