//! The stream over which runs come: it says how much room there is, and is opened again whenever it breaks.

use super::{Queue, backoff::Backoff};
use crate::metrics;
use proto::v1::{LeaseEvent, LeaseRequest, lease_event::Event};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

/// How long a stream may take to open.
const OPEN: Duration = Duration::from_secs(10);
/// A stream that stood so long has not failed: it ended, as they do when rest-api restarts or sheds old connections.
const STOOD: Duration = Duration::from_secs(1);
/// How long a stopping worker waits for what is on its way to it, to hand it back.
const LAST_RUNS: Duration = Duration::from_secs(2);

/// Keeps a stream open until the worker stops.
pub(super) async fn keep(queue: Queue) {
    let stopping = queue.0.stopping.clone();
    let mut backoff = Backoff::new();
    let mut failing = false;
    while !stopping.is_cancelled() {
        let opened = Instant::now();
        let ended = one(&queue).await;
        metrics::LEASE_STREAM_UP.set(0, []);
        if opened.elapsed() >= STOOD {
            backoff.reset();
            failing = false;
        }
        if let Err(status) = ended {
            if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) {
                queue.0.rest_api.down(status.message());
            } else if !failing {
                // Told once; for as long as it lasts, the metric tells.
                tracing::warn!(code = ?status.code(), error = status.message(), "the lease stream broke");
            }
            failing = true;
        }
        tokio::select! {
            () = stopping.cancelled() => {}
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    }
}

/// Opens one stream and follows it to its end.
async fn one(queue: &Queue) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(1);
    let room = Room {
        granted: queue.0.room.saturating_sub(queue.0.held.count()),
    };
    let opened = tokio::select! {
        opened = tokio::time::timeout(OPEN, open(queue, room.granted, receiver)) => opened,
        () = queue.0.stopping.cancelled() => return Ok(()),
    };
    let late = |_| Status::deadline_exceeded("rest-api takes too long to open a lease stream");
    let mut events = opened.map_err(late)??;
    queue.0.rest_api.up();
    metrics::LEASE_STREAM_UP.set(1, []);
    tracing::info!(worker = queue.0.worker, "takes up what waits at rest-api");
    follow(queue, room, &mut events, &sender).await?;
    if queue.0.stopping.is_cancelled() {
        // Ends our half of the stream: rest-api sends what it has leased for us, and no more.
        drop(sender);
        let rest = hand_back_rest(queue, &mut events);
        if tokio::time::timeout(LAST_RUNS, rest).await.is_err() {
            tracing::debug!(
                "rest-api does not end the lease stream; what is on its way is leased again later"
            );
        }
    }
    Ok(())
}

async fn open(
    queue: &Queue,
    room: usize,
    mut further: mpsc::Receiver<LeaseRequest>,
) -> Result<Streaming<LeaseEvent>, Status> {
    let first = LeaseRequest {
        worker: queue.0.worker.clone(),
        room: message(room),
        built_ins: queue
            .0
            .runner
            .manifest()
            .into_iter()
            .map(|tool| tool.name)
            .collect(),
    };
    // The first message goes with the call: rest-api answers when it has it.
    let requests = async_stream::stream! {
        yield first;
        while let Some(request) = further.recv().await {
            yield request;
        }
    };
    let mut client = queue.0.client.clone();
    Ok(client.lease(queue.request(requests)?).await?.into_inner())
}

/// Takes up what comes and says what room there is, until the stream ends or the worker stops.
async fn follow(
    queue: &Queue,
    mut room: Room,
    events: &mut Streaming<LeaseEvent>,
    sender: &mpsc::Sender<LeaseRequest>,
) -> Result<(), Status> {
    loop {
        tokio::select! {
            biased;
            () = queue.0.stopping.cancelled() => return Ok(()),
            event = events.message() => match event? {
                Some(event) => room.take(queue, event),
                None => return Ok(()),
            },
            () = queue.0.held.freed() => {}
            // Room is counted when there is a place for the message that tells it.
            permit = sender.reserve(), if room.worth_saying(queue) => {
                let permit = permit.map_err(|_| Status::unavailable("the lease stream is closed"))?;
                permit.send(LeaseRequest { room: message(room.grant(queue)), ..LeaseRequest::default() });
            }
        }
    }
}

/// Takes up what comes: in a stopping worker, each run is handed back at once.
async fn hand_back_rest(queue: &Queue, events: &mut Streaming<LeaseEvent>) {
    while let Ok(Some(event)) = events.message().await {
        Room { granted: 0 }.take(queue, event);
    }
}

/// What this stream was told that there is room for, and has not used.
struct Room {
    granted: usize,
}

impl Room {
    fn take(&mut self, queue: &Queue, event: LeaseEvent) {
        match event.event {
            Some(Event::Run(run)) => {
                self.granted = self.granted.saturating_sub(1);
                queue.take(run);
            }
            Some(Event::Cancel(held)) => queue.0.held.cancel(&held),
            // A newer rest-api may tell more than this version knows.
            None => {}
        }
    }

    fn free(&self, queue: &Queue) -> usize {
        let spoken_for = queue.0.held.count() + self.granted;
        queue.0.room.saturating_sub(spoken_for)
    }

    /// Not for each run that ends: an eighth of all room, or when rest-api thinks that there is none.
    fn worth_saying(&self, queue: &Queue) -> bool {
        let free = self.free(queue);
        free > 0 && (self.granted == 0 || free >= (queue.0.room / 8).max(1))
    }

    fn grant(&mut self, queue: &Queue) -> usize {
        let free = self.free(queue);
        self.granted += free;
        free
    }
}

fn message(room: usize) -> u32 {
    u32::try_from(room).unwrap_or(u32::MAX)
}
