//! Reaches the workers: one call, a stream of progress, an outcome.

use crate::queue::report::Ended;
use anyhow::Context as _;
use chassis::{
    Dependency, Host,
    grpc::{ChannelOptions, GrpcChannel, with_bearer},
};
use domain::execution::Outcome;
use proto::v1::{Progress, RunToolRequest, run_tool_event::Event, tool_runner_client::ToolRunnerClient};
use secrecy::{ExposeSecret, SecretString};
use std::{error::Error as _, time::Duration};
use tonic::{Code, Status, Streaming};

/// The client of the workers. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    client: ToolRunnerClient<GrpcChannel>,
    token: SecretString,
    worker: Dependency,
}

/// A run that a worker has taken up.
pub struct Run {
    events: Streaming<proto::v1::RunToolEvent>,
    worker: Dependency,
}

/// What a worker tells of a run.
pub enum Told {
    /// How far it has come.
    Progress(Progress),
    /// How it ended; nothing follows.
    Ended(Ended),
}

impl Runner {
    /// A client of the workers at `url`; connects when first needed.
    ///
    /// # Errors
    /// When `url` is no address, or there is no service token to show.
    pub fn connect(host: &Host, url: &str) -> anyhow::Result<Self> {
        let token = host
            .common
            .service_token
            .clone()
            .context("SERVICE_TOKEN is not set: workers would refuse us")?;
        let channel =
            chassis::grpc::channel(host, "worker", url, &ChannelOptions::default()).context("worker.url")?;
        Ok(Self {
            client: ToolRunnerClient::new(channel),
            token,
            worker: host.readiness.dependency("worker"),
        })
    }

    /// Hands a run to a worker. Dropping what it answers cancels the run.
    ///
    /// # Errors
    /// The worker's refusal; `Unavailable` when there is none, and then nothing has run.
    pub async fn run(&self, request: RunToolRequest) -> Result<Run, Status> {
        let request = with_bearer(tonic::Request::new(request), self.token.expose_secret())?;
        let mut client = self.client.clone();
        let answer = client
            .run(request)
            .await
            .inspect_err(|status| note(&self.worker, status))?;
        self.worker.up();
        let (events, worker) = (answer.into_inner(), self.worker.clone());
        Ok(Run { events, worker })
    }
}

impl Run {
    /// What comes next.
    ///
    /// # Errors
    /// When the worker was lost, or spoke nonsense: then the outcome is not known here.
    pub async fn next(&mut self) -> Result<Told, Status> {
        loop {
            let event = self
                .events
                .message()
                .await
                .inspect_err(|status| note(&self.worker, status))?
                .ok_or_else(|| Status::unavailable("the worker ended the run early"))?;
            match event.event {
                Some(Event::Progress(progress)) => return Ok(Told::Progress(progress)),
                Some(Event::Outcome(outcome)) => {
                    let outcome = Outcome::try_from(outcome).map_err(|e| Status::internal(e.to_string()))?;
                    return Ok(Told::Ended(Ended {
                        outcome,
                        transient: event.transient,
                        departed: event.departed,
                        retry_after: event.retry_after_ms.map(Duration::from_millis),
                    }));
                }
                // A newer worker may tell more than this version knows.
                None => {}
            }
        }
    }
}

/// Tells readiness that there is no worker, where a refusal says so.
fn note(worker: &Dependency, status: &Status) {
    if status.source().is_some() || status.code() == Code::Unavailable {
        worker.down(status.message());
    }
}
