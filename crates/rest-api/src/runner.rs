//! Reaches the workers: one call, a stream of progress, an outcome.

pub(crate) mod upstreams;

use crate::{built_ins::BuiltIns, error::Error, queue::report::Ended, settings};
use anyhow::Context as _;
use bytes::Bytes;
use chassis::{
    Dependency, Host,
    grpc::{ChannelOptions, GrpcChannel, with_bearer},
};
use domain::execution::Outcome;
use proto::v1::{
    FetchRequest, ManifestRequest, PingRequest, Progress, RunToolRequest, run_tool_event::Event,
    tool_runner_client::ToolRunnerClient,
};
use secrecy::{ExposeSecret, SecretString};
use std::{
    error::Error as _,
    time::{Duration, Instant},
};
use tonic::{Code, Status, Streaming};

/// How often a worker is asked for a sign of life, and how long that may take: a loss shows within their sum.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// How often, while none has told which tools of the product it runs.
const FIRST_PINGS_EVERY: Duration = Duration::from_millis(500);
/// How long the end of a stream is waited for when all that matters has come.
const STATUS_PATIENCE: Duration = Duration::from_millis(100);

/// The client of the workers. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    client: ToolRunnerClient<GrpcChannel>,
    token: SecretString,
    worker: Dependency,
    built_ins: BuiltIns,
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
    /// A client of the workers; connects when first needed.
    ///
    /// # Errors
    /// When their URL is no address, or there is no service token to show.
    pub fn connect(host: &Host, settings: &settings::Worker) -> anyhow::Result<Self> {
        let token = host
            .common
            .service_token
            .clone()
            .context("SERVICE_TOKEN is not set: workers would refuse us")?;
        let channel = chassis::grpc::channel(host, "worker", &settings.url, &ChannelOptions::default())
            .context("worker.url")?;
        let runner = Self {
            client: ToolRunnerClient::new(channel),
            token,
            worker: host.readiness.dependency("worker"),
            built_ins: BuiltIns::new(settings.tools_kept),
        };
        host.tasks
            .spawn_every("worker's state", PING_EVERY, runner.clone().watch());
        Ok(runner)
    }

    /// What the workers told of the product's own tools.
    pub fn built_ins(&self) -> &BuiltIns {
        &self.built_ins
    }

    /// Asks for a sign of life, and which tools there are, again and again: calls tell no more than how it was at the
    /// last one.
    async fn watch(self) {
        loop {
            match tokio::time::timeout(PING_PATIENCE, self.ping()).await {
                Ok(Ok(())) => self.worker.up(),
                Ok(Err(status)) => note(&self.worker, &status),
                Err(_) => self.worker.down("it does not answer"),
            }
            let told = self.built_ins.manifest().is_some();
            tokio::time::sleep(if told { PING_EVERY } else { FIRST_PINGS_EVERY }).await;
        }
    }

    async fn ping(&self) -> Result<(), Status> {
        let request = with_bearer(tonic::Request::new(PingRequest {}), self.token.expose_secret())?;
        match self.client.clone().ping(request).await {
            // A worker of the version before: it answers, which is all that was asked for.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            answer => answer.map(drop),
        }?;
        let request = with_bearer(
            tonic::Request::new(ManifestRequest {}),
            self.token.expose_secret(),
        )?;
        match self.client.clone().manifest(request).await {
            Ok(answer) => self.built_ins.told(answer.into_inner().tools, Instant::now()),
            // A worker of the version before runs none of the product's tools, and says nothing of what others run.
            Err(status) if status.code() == Code::Unimplemented => {
                if self.built_ins.manifest().is_none() {
                    self.built_ins.told(Vec::new(), Instant::now());
                }
            }
            Err(status) => return Err(status),
        }
        Ok(())
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

impl Runner {
    /// Fetches a document of at most `most` bytes for `tenant`: workers do that, behind their guard.
    ///
    /// # Errors
    /// Why it cannot be had, or that there is no worker.
    pub async fn fetch(&self, tenant: &str, url: &str, most: u64) -> Result<Bytes, Error> {
        let request = FetchRequest {
            tenant: tenant.to_owned(),
            url: url.to_owned(),
            max_bytes: most,
        };
        let refused = |status: Status| {
            note(&self.worker, &status);
            not_fetched(&status)
        };
        let request = with_bearer(tonic::Request::new(request), self.token.expose_secret())
            .map_err(|s| not_fetched(&s))?;
        let mut parts = self
            .client
            .clone()
            .fetch(request)
            .await
            .map_err(refused)?
            .into_inner();
        let mut document = Vec::new();
        while let Some(part) = parts.message().await.map_err(refused)? {
            document.extend_from_slice(&part.data);
            if document.len() as u64 > most {
                return Err(Error::TooLarge {
                    what: "the document",
                    limit: most,
                });
            }
        }
        self.worker.up();
        Ok(document.into())
    }
}

/// The worker's reason, in this service's terms.
fn not_fetched(status: &Status) -> Error {
    const CODES: [&str; 10] = [
        "address_not_allowed",
        "connect_failed",
        "connection_lost",
        "dns_failed",
        "http_status",
        "invalid_redirect",
        "response_too_large",
        "timeout",
        "tls_failed",
        "too_many_redirects",
    ];
    let told = status
        .metadata()
        .get(proto::CODE_KEY)
        .and_then(|code| code.to_str().ok());
    match told.and_then(|told| CODES.into_iter().find(|code| *code == told)) {
        Some(code) => Error::NotFetched {
            code,
            message: status.message().to_owned(),
        },
        None if status.code() == Code::FailedPrecondition && told != Some("overloaded") => {
            Error::NotFetched {
                code: "not_fetched",
                message: status.message().to_owned(),
            }
        }
        None => Error::Unavailable { what: "a worker" },
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
                    // Its status follows at once. A call whose stream is dropped before counts as cancelled.
                    let _late = tokio::time::timeout(STATUS_PATIENCE, self.events.message()).await;
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
