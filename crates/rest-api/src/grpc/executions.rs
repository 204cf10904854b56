//! Running a tool for a caller that waits.

use super::Door;
use crate::{api::RunEvent, error::Error};
use futures_util::{StreamExt as _, stream::BoxStream};
use proto::v1::{
    RunExecutionEvent, RunExecutionRequest, executions_server::Executions, run_execution_event::Event,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Executions for Door {
    type RunStream = BoxStream<'static, Result<RunExecutionEvent, Status>>;

    async fn run(&self, request: Request<RunExecutionRequest>) -> Result<Response<Self::RunStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let RunExecutionRequest { tool, arguments_json } = request.into_inner();
        let arguments = proto::convert::object("arguments", &arguments_json).map_err(Error::from)?;
        let waiting = self.api.run_tool(&caller, &tool, arguments).await?;
        let events = futures_util::stream::unfold(waiting, async |mut waiting| {
            let event = waiting.next().await?;
            Some((event.map(message).map_err(Status::from), waiting))
        });
        Ok(Response::new(events.boxed()))
    }
}

fn message(event: RunEvent) -> RunExecutionEvent {
    let event = match event {
        RunEvent::Progress(progress) => Event::Progress(progress),
        RunEvent::Finished(execution) => Event::Execution((*execution).into()),
    };
    RunExecutionEvent { event: Some(event) }
}
