//! The whole service, over its gRPC port.

use crate::{
    runs::{HERE, accept, tool},
    support::{PATIENCE, TOKEN, start},
};
use axum::{Router, routing::get};
use proto::v1::{
    MaintenanceRequest, MaintenanceResponse, RunToolEvent, RunToolRequest, Tool,
    maintenance_server::{Maintenance, MaintenanceServer},
    run_tool_event::Event,
    tool_runner_client::ToolRunnerClient,
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

/// rest-api's part: the first two calls of each job find a full batch, then there is nothing left.
#[derive(Clone, Default)]
struct Rows(Arc<Mutex<HashMap<&'static str, u32>>>);

impl Rows {
    fn step(
        &self,
        job: &'static str,
        request: &Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        chassis::grpc::require_service_token(request.metadata(), Some(&TOKEN.into()))?;
        let mut calls = self.0.lock().unwrap();
        let calls = calls.entry(job).or_default();
        *calls += 1;
        let affected = if *calls <= 2 {
            request.get_ref().limit.into()
        } else {
            0
        };
        Ok(Response::new(MaintenanceResponse { affected }))
    }

    fn calls(&self) -> Vec<u32> {
        self.0.lock().unwrap().values().copied().collect()
    }
}

#[tonic::async_trait]
impl Maintenance for Rows {
    async fn expire_contexts(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        self.step("expire", &request)
    }
    async fn purge_expired(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        self.step("purge", &request)
    }
    async fn reap_executions(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        self.step("reap", &request)
    }
    async fn follow_incidents(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        self.step("incidents", &request)
    }
    async fn refresh_upstreams(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        self.step("upstreams", &request)
    }
    async fn run_schedules(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        self.step("schedules", &request)
    }
}

async fn rest_api(rows: Rows) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(MaintenanceServer::new(rows));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn request(url: String) -> Request<RunToolRequest> {
    let spec = tool("GET", url);
    let request = RunToolRequest {
        execution_id: domain::ExecutionId::new().to_string(),
        tenant: "acme".into(),
        // A name of its own: the other tests count in the same metrics.
        tool: Some(Tool {
            name: "greeter".into(),
            method: "GET".into(),
            url: spec.url,
            timeout_ms: 60_000,
            ..Tool::default()
        }),
        arguments_json: "{}".into(),
        credentials_json: Some(r#"{"type":"bearer","token":"secret"}"#.into()),
        ..RunToolRequest::default()
    };
    chassis::grpc::with_bearer(Request::new(request), TOKEN).unwrap()
}

async fn outcome(mut events: Streaming<RunToolEvent>) -> (usize, proto::v1::Outcome) {
    let mut reports = 0;
    loop {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            Event::Progress(_) => reports += 1,
            Event::Outcome(outcome) => {
                assert!(
                    events.message().await.unwrap().is_none(),
                    "the outcome comes last"
                );
                return (reports, outcome);
            }
        }
    }
}

async fn what_is_malformed_or_unproven_is_refused(client: &mut ToolRunnerClient<Channel>) {
    let mut anonymous = request("http://192.0.2.1/".into());
    anonymous.metadata_mut().remove("authorization");
    assert_eq!(
        client.run(anonymous).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let mut malformed = request("http://192.0.2.1/".into());
    malformed.get_mut().credentials_json = Some(r#"{"type":"bearer","tokn":"secret"}"#.into());
    let status = client.run(malformed).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(!status.message().contains("secret"));
    assert_eq!(status.metadata().get(proto::CODE_KEY).unwrap(), "invalid_request");
}

async fn dropping_the_call_closes_the_connection(client: &mut ToolRunnerClient<Channel>) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let events = client.run(request(url)).await.unwrap();
    let mut stream = accept(&listener).await;
    drop(events);
    let closed = async { while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(30), closed)
        .await
        .expect("the connection is closed at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_tools_and_keeps_the_time_for_jobs() {
    let rows = Rows::default();
    let mut worker = start(rest_api(rows.clone()).await, |c| {
        c.service.jobs.enabled = true;
        c.service.jobs.expire_contexts = Duration::from_millis(20);
        c.service.jobs.purge_expired = Duration::from_millis(20);
        c.service.jobs.reap_executions = Duration::from_millis(20);
    })
    .await;
    let grpc = format!("http://{}", worker.grpc.unwrap());
    let mut client = ToolRunnerClient::new(Channel::from_shared(grpc).unwrap().connect().await.unwrap());

    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let routes = Router::new().route("/", get(async || "fine"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let events = client.run(request(format!("http://{endpoint}/"))).await.unwrap();
    let (reports, done) = outcome(events.into_inner()).await;
    assert_eq!((done.status.as_str(), reports), ("succeeded", 2));
    let result: serde_json::Value = serde_json::from_str(&done.result_json.unwrap()).unwrap();
    assert_eq!(result["body"], "fine");

    what_is_malformed_or_unproven_is_refused(&mut client).await;
    dropping_the_call_closes_the_connection(&mut client).await;

    let done = async {
        while rows.calls().len() < 3 || rows.calls().iter().any(|calls| *calls < 4) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done)
        .await
        .expect("each job goes on until nothing is left");
    for series in [
        r#"worker_tool_runs_total{service="worker",tool="greeter",status="succeeded"} 1"#,
        r#"worker_tool_runs_total{service="worker",tool="greeter",status="outcome_unknown"} 1"#,
        r#"worker_job_rows_total{service="worker",job="expire_contexts"} 1000"#,
    ] {
        let exported = async {
            while !worker.host.telemetry.render(None).1.contains(series) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, exported).await;
        assert!(
            waited.is_ok(),
            "{series} in\n{}",
            worker.host.telemetry.render(None).1
        );
    }
    drop(client);
    worker.stop().await.unwrap();
}
