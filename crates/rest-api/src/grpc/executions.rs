//! Executions, for callers that wait and for those that do not.

use super::{Door, empty_is_none, parse};
use crate::{
    api::{Ask, RunEvent, View, Waiting},
    clock,
    error::{Error, Result as Answer},
    store::ExecutionFilter,
};
use domain::{
    ExecutionId,
    execution::{Execution, ExecutionStatus},
};
use futures_util::{StreamExt as _, stream::BoxStream};
use proto::{
    convert::PageOf,
    v1::{
        self, GetExecutionRequest, ListExecutionsRequest, ListExecutionsResponse, ReadResultRequest,
        ReadResultResponse, RunExecutionEvent, RunExecutionRequest, executions_server::Executions,
        run_execution_event::Event,
    },
};
use std::time::Duration;
use tonic::{Request, Response, Status, metadata::MetadataMap};

/// Where a service of ours vouches for what it says beside the caller's own credential.
const SERVICE_TOKEN_KEY: &str = "devops-mcp-service-token";

impl Door {
    /// What is asked for. A confirmation counts only where a service of ours vouches for it.
    fn ask(&self, metadata: &MetadataMap, request: RunExecutionRequest) -> Answer<Ask> {
        let given = metadata
            .get(SERVICE_TOKEN_KEY)
            .and_then(|value| value.to_str().ok());
        let vouched = match (given, &self.service_token) {
            (Some(given), Some(token)) => chassis::same_secret(given, token),
            _ => false,
        };
        Ok(Ask {
            tool: request.tool,
            arguments: proto::convert::object("arguments", &request.arguments_json)?,
            confirmed: request.confirmed && vouched,
            idempotency_key: empty_is_none(request.idempotency_key),
            priority: request.priority,
            deadline: request
                .deadline_in_ms
                .map(|ms| clock::ahead(Duration::from_millis(ms))),
            schedule_id: None,
            of_incident: false,
        })
    }

    async fn answer(&self, execution: Execution) -> Result<Response<v1::Execution>, Status> {
        Ok(Response::new(message(self.api.view(execution).await?)))
    }
}

#[tonic::async_trait]
impl Executions for Door {
    type RunStream = BoxStream<'static, Result<RunExecutionEvent, Status>>;
    type FollowStream = BoxStream<'static, Result<v1::Execution, Status>>;

    async fn run(&self, request: Request<RunExecutionRequest>) -> Result<Response<Self::RunStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let (metadata, _, request) = request.into_parts();
        let waiting = self.api.run_tool(&caller, self.ask(&metadata, request)?).await?;
        let api = self.api.clone();
        let events = futures_util::stream::unfold((api, waiting), async |(api, mut waiting)| {
            let event = match waiting.next().await? {
                Ok(event) => Ok(run_event(&api, &waiting, event).await),
                Err(error) => Err(Status::from(error)),
            };
            Some((event, (api, waiting)))
        });
        Ok(Response::new(events.boxed()))
    }

    async fn enqueue(
        &self,
        request: Request<RunExecutionRequest>,
    ) -> Result<Response<v1::Execution>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let (metadata, _, request) = request.into_parts();
        let ask = self.ask(&metadata, request)?;
        self.answer(self.api.enqueue(&caller, ask).await?).await
    }

    async fn get(&self, request: Request<GetExecutionRequest>) -> Result<Response<v1::Execution>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let id = id(request.get_ref())?;
        self.answer(self.api.get_execution(&caller, id).await?).await
    }

    async fn list(
        &self,
        request: Request<ListExecutionsRequest>,
    ) -> Result<Response<ListExecutionsResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let status = empty_is_none(request.status).map(|s| s.parse::<ExecutionStatus>());
        let filter = ExecutionFilter {
            tool: empty_is_none(request.tool),
            status: status.transpose().map_err(Error::from)?,
            ..ExecutionFilter::default()
        };
        let page = PageOf::from(request.page).0;
        let page = self.api.list_executions(&caller, &filter, &page).await?;
        let brief = |execution| {
            let execution = v1::Execution::from(execution);
            v1::Execution {
                result_json: None,
                arguments_json: String::new(),
                ..execution
            }
        };
        Ok(Response::new(ListExecutionsResponse {
            executions: page.items.into_iter().map(brief).collect(),
            next_cursor: page.next_cursor.unwrap_or_default(),
        }))
    }

    async fn follow(
        &self,
        request: Request<GetExecutionRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        telemetry::recent::waits();
        let (metadata, _, request) = request.into_parts();
        let changes = self.api.follow_execution(&caller, id(&request)?).await?;
        let door = self.clone();
        let events = async_stream::try_stream! {
            let mut changes = std::pin::pin!(changes);
            while let Some(changed) = changes.next().await {
                // Verified anew each time: a revoked key sees no more.
                door.caller(&metadata).await?;
                yield message(door.api.view(changed?).await?);
            }
        };
        Ok(Response::new(events.boxed()))
    }

    async fn cancel(&self, request: Request<GetExecutionRequest>) -> Result<Response<v1::Execution>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let id = id(request.get_ref())?;
        self.answer(self.api.cancel_execution(&caller, id).await?).await
    }

    async fn read_result(
        &self,
        request: Request<ReadResultRequest>,
    ) -> Result<Response<ReadResultResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.get_ref();
        let part = self
            .api
            .read_result(&caller, parse("id", &r.id)?, r.offset, r.limit)
            .await?;
        Ok(Response::new(ReadResultResponse {
            text: part.text,
            offset: part.offset as u64,
            total_bytes: part.total as u64,
        }))
    }
}

fn id(request: &GetExecutionRequest) -> Answer<ExecutionId> {
    parse("id", &request.id)
}

async fn run_event(api: &crate::api::Api, waiting: &Waiting, event: RunEvent) -> RunExecutionEvent {
    let event = match event {
        RunEvent::Progress(progress) => Event::Progress(progress),
        RunEvent::Finished(execution) => {
            Event::Execution(message(api.view_as(*execution, waiting.options()).await))
        }
    };
    RunExecutionEvent { event: Some(event) }
}

fn message(view: View) -> v1::Execution {
    v1::Execution {
        result_json: view.shown.result_json,
        result_bytes: view.shown.result_bytes,
        selected: view.shown.selected,
        not_selected: view.shown.not_selected,
        max_result_bytes: view.max_result_bytes,
        ..view.execution.into()
    }
}
