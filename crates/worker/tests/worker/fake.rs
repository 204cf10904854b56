//! rest-api's queue, as the tests want it.

use crate::support::{PATIENCE, TOKEN};
use proto::v1::{
    HeartbeatRequest, HeartbeatResponse, LeaseEvent, LeaseRequest, LeasedRun, ReportRequest, ReportResponse,
    lease_event::Event, queue_server,
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::{
    Stream,
    wrappers::{TcpListenerStream, UnboundedReceiverStream},
};
use tonic::{Request, Response, Status, Streaming};

type Events = mpsc::UnboundedSender<Result<LeaseEvent, Status>>;

/// What the fake has seen, and how it answers.
#[derive(Default)]
pub(crate) struct Seen {
    /// The stream that stands, and the room that was given on it in all.
    pub(crate) stream: Option<(Events, usize)>,
    pub(crate) streams: usize,
    pub(crate) workers: Vec<String>,
    pub(crate) heartbeats: usize,
    /// The last progress of each run.
    pub(crate) progress: HashMap<String, String>,
    pub(crate) reports: Vec<ReportRequest>,
    pub(crate) lost: Vec<String>,
    pub(crate) cancel: Vec<String>,
    /// Answers to the next reports, before they are accepted.
    pub(crate) refusals: Vec<Status>,
    pub(crate) refused: usize,
}

/// rest-api's part.
#[derive(Clone)]
pub(crate) struct Fake {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<u64>,
    pub(crate) address: SocketAddr,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            seen: Arc::default(),
            changed: watch::channel(0).0,
            address: listener.local_addr().unwrap(),
        };
        let server =
            tonic::transport::Server::builder().add_service(queue_server::QueueServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let changed = change(&mut self.seen());
        self.changed.send_modify(|count| *count += 1);
        changed
    }

    /// Waits until what was seen is as it should be.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Seen) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !holds(&self.seen()) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    }

    /// Waits for a stream on which there is room, and hands a run out.
    pub(crate) async fn lease(&self, run: LeasedRun) {
        self.until(
            "there is room",
            |seen| matches!(seen.stream, Some((_, room)) if room > 0),
        )
        .await;
        self.change(|seen| {
            let (events, room) = seen.stream.as_mut().unwrap();
            *room -= 1;
            events
                .send(Ok(LeaseEvent {
                    event: Some(Event::Run(run)),
                }))
                .unwrap();
        });
    }

    /// Breaks the stream off.
    pub(crate) fn break_stream(&self) {
        let (events, _) = self.change(|seen| seen.stream.take()).expect("a stream stands");
        let _ = events.send(Err(Status::unavailable("gone")));
    }

    /// Waits for so many reports, and gives them all.
    pub(crate) async fn reports(&self, count: usize) -> Vec<ReportRequest> {
        self.until("a report", |seen| seen.reports.len() >= count).await;
        self.seen().reports.clone()
    }
}

fn authentic<T>(request: &Request<T>) -> Result<(), Status> {
    chassis::grpc::require_service_token(request.metadata(), Some(&TOKEN.into()))
}

#[tonic::async_trait]
impl queue_server::Queue for Fake {
    type LeaseStream = Pin<Box<dyn Stream<Item = Result<LeaseEvent, Status>> + Send>>;

    async fn lease(
        &self,
        request: Request<Streaming<LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        authentic(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        let (events, stream) = mpsc::unbounded_channel();
        self.change(|seen| {
            seen.streams += 1;
            seen.workers.push(first.worker);
            seen.stream = Some((events.clone(), first.room as usize));
        });
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                fake.change(|seen| {
                    if let Some((_, room)) = seen.stream.as_mut().filter(|(own, _)| own.same_channel(&events))
                    {
                        *room += request.room as usize;
                    }
                });
            }
            // The worker has ended its half.
            fake.change(|seen| {
                if seen
                    .stream
                    .as_ref()
                    .is_some_and(|(own, _)| own.same_channel(&events))
                {
                    seen.stream = None;
                }
            });
        });
        let stream = UnboundedReceiverStream::new(stream);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        authentic(&request)?;
        let answer = self.change(|seen| {
            seen.heartbeats += 1;
            for run in request.into_inner().runs {
                seen.progress.insert(run.held.unwrap().execution_id, run.progress);
            }
            HeartbeatResponse {
                lost: seen.lost.clone(),
                cancel: seen.cancel.clone(),
            }
        });
        Ok(Response::new(answer))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        authentic(&request)?;
        self.change(|seen| {
            if let Some(refusal) = seen.refusals.pop() {
                seen.refused += 1;
                return Err(refusal);
            }
            seen.reports.push(request.into_inner());
            Ok(Response::new(ReportResponse {
                status: "succeeded".into(),
            }))
        })
    }
}
