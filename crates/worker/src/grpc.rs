//! The gRPC service `ToolRunner`.

use crate::{
    fetch,
    outcome::Failure,
    progress,
    runner::Runner,
    tools::{Call, Caller, Departed, Server},
};
use domain::{Invalid, Scope, tool::Credentials};
use futures_util::{Stream, StreamExt};
use proto::{
    convert,
    v1::{self, run_tool_event::Event},
};
use secrecy::SecretString;
use std::{pin::Pin, time::Duration};
use tonic::{Code, Request, Response, Status};

/// How long another MCP server has to list its tools.
const LISTING_TIME: Duration = Duration::from_secs(20);

/// Answers rest-api.
pub struct Runs {
    runner: Runner,
    service_token: Option<SecretString>,
}

impl Runs {
    /// Answers to whoever has the token; to nobody where there is none.
    pub fn new(runner: Runner, service_token: Option<SecretString>) -> Self {
        Self {
            runner,
            service_token,
        }
    }
}

#[tonic::async_trait]
impl v1::tool_runner_server::ToolRunner for Runs {
    type RunStream = Pin<Box<dyn Stream<Item = Result<v1::RunToolEvent, Status>> + Send>>;
    type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::FetchPart, Status>> + Send>>;

    async fn run(&self, request: Request<v1::RunToolRequest>) -> Result<Response<Self::RunStream>, Status> {
        chassis::grpc::require_service_token(request.metadata(), self.service_token.as_ref())?;
        let call = call(request.into_inner()).map_err(|invalid| refused(&invalid))?;
        telemetry::context::set_tenant(&call.tenant);
        Ok(Response::new(Box::pin(events(self.runner.clone(), call))))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        chassis::grpc::require_service_token(request.metadata(), self.service_token.as_ref())?;
        let request = request.into_inner();
        telemetry::context::set_tenant(&request.tenant);
        let parts = fetch::parts(self.runner.clone(), request);
        let parts = parts.map(|part| match part {
            Ok(data) => Ok(v1::FetchPart { data: data.into() }),
            Err(failure) => Err(failed(failure)),
        });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn manifest(
        &self,
        request: Request<v1::ManifestRequest>,
    ) -> Result<Response<v1::ManifestResponse>, Status> {
        chassis::grpc::require_service_token(request.metadata(), self.service_token.as_ref())?;
        let tools = self.runner.manifest();
        Ok(Response::new(v1::ManifestResponse { tools }))
    }

    async fn list_upstream_tools(
        &self,
        request: Request<v1::ListUpstreamToolsRequest>,
    ) -> Result<Response<v1::ListUpstreamToolsResponse>, Status> {
        chassis::grpc::require_service_token(request.metadata(), self.service_token.as_ref())?;
        let request = request.into_inner();
        telemetry::context::set_tenant(&request.tenant);
        let credentials = credentials(request.credentials_json.as_deref()).map_err(|e| refused(&e))?;
        let server = Server {
            tenant: &request.tenant,
            name: &request.server,
            url: &request.url,
            credentials: credentials.as_ref(),
        };
        let deadline = tokio::time::Instant::now() + LISTING_TIME;
        let listed = self.runner.list_upstream(deadline, &server).await;
        listed.map(Response::new).map_err(failed)
    }

    async fn ping(&self, request: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        chassis::grpc::require_service_token(request.metadata(), self.service_token.as_ref())?;
        Ok(Response::new(v1::PingResponse {}))
    }
}

/// The run is the stream: when the caller leaves, tonic drops the stream, and all that the run holds with it.
fn events(runner: Runner, call: Call) -> impl Stream<Item = Result<v1::RunToolEvent, Status>> + Send {
    // The stream is polled after the call's own layers have returned.
    let context = telemetry::context::current();
    async_stream::stream! {
        let (reporter, mut reports) = progress::channel();
        let run = telemetry::span::in_context(async move { runner.run(call, &reporter).await }, context);
        let mut run = std::pin::pin!(run);
        let ended = loop {
            let report = tokio::select! {
                biased;
                Some(report) = reports.recv() => report,
                ended = &mut run => break ended,
            };
            yield Ok(progressed(report));
        };
        while let Ok(report) = reports.try_recv() {
            yield Ok(progressed(report));
        }
        yield Ok(v1::RunToolEvent {
            transient: ended.transient,
            departed: ended.departed,
            retry_after_ms: ended.retry_after_ms(),
            event: Some(Event::Outcome(ended.outcome.into())),
        });
    }
}

fn progressed(report: v1::Progress) -> v1::RunToolEvent {
    v1::RunToolEvent {
        event: Some(Event::Progress(report)),
        ..v1::RunToolEvent::default()
    }
}

/// What a request asks for.
///
/// # Errors
/// When it breaks the contract.
pub(crate) fn call(request: v1::RunToolRequest) -> Result<Call, Invalid> {
    let tool = request.tool.ok_or_else(|| Invalid::new("tool", "a tool"))?;
    let credentials = credentials(request.credentials_json.as_deref())?;
    Ok(Call {
        execution_id: convert::parse("execution_id", &request.execution_id)?,
        tenant: request.tenant,
        tool: tool.try_into()?,
        arguments: convert::object("arguments_json", &request.arguments_json)?,
        credentials,
        departed: Departed::default(),
        attempt: None,
        built_in: request.built_in,
        caller: caller(request.caller.unwrap_or_default()),
    })
}

fn credentials(json: Option<&str>) -> Result<Option<Credentials>, Invalid> {
    // serde's own message would quote what it found.
    let read = |text| serde_json::from_str(text).map_err(|_| Invalid::new("credentials_json", "credentials"));
    json.map(read).transpose()
}

/// Scopes that this version does not know are left out: they open nothing here.
fn caller(caller: v1::RunCaller) -> Caller {
    let scopes: Vec<Scope> = caller
        .scopes
        .iter()
        .filter_map(|word| word.parse().ok())
        .collect();
    Caller {
        key_id: caller.key_id,
        key_name: caller.key_name,
        scopes: scopes.into(),
    }
}

fn refused(invalid: &Invalid) -> Status {
    with_code(Code::InvalidArgument, invalid.to_string(), "invalid_request")
}

fn failed(failure: Failure) -> Status {
    with_code(Code::FailedPrecondition, failure.message, failure.code.as_str())
}

fn with_code(code: Code, message: String, stable: &'static str) -> Status {
    let mut status = Status::new(code, message);
    let stable = tonic::metadata::MetadataValue::from_static(stable);
    status.metadata_mut().insert(proto::CODE_KEY, stable);
    status
}
