//! One worker's lease stream: hands out as much as the worker has room for, as soon as there is something.

use super::hub::SWEEP;
use crate::{
    api::{Api, HandedRun},
    metrics,
};
use domain::ExecutionId;
use futures_util::{Stream, StreamExt as _};
use proto::v1::{Held, LeaseEvent, LeaseRequest, lease_event::Event};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    convert::Infallible,
};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The most room that one stream is believed to have.
const MAX_ROOM: u32 = 10_000;
/// How many events may wait for a slow worker.
const WAITING: usize = 32;
/// How many of the runs that were sent are remembered, to pass their cancels on.
const REMEMBERED: usize = 8_192;

/// What waits to be sent.
enum Out {
    Run(Box<HandedRun>),
    Cancel(Held),
}

impl Out {
    fn message(self) -> LeaseEvent {
        let event = match self {
            Self::Run(run) => Event::Run(run.take()),
            Self::Cancel(held) => Event::Cancel(held),
        };
        LeaseEvent { event: Some(event) }
    }
}

/// The runs that a stream handed out, by token; of many, the last.
#[derive(Default)]
pub struct Sent {
    tokens: HashMap<ExecutionId, i64>,
    order: VecDeque<ExecutionId>,
}

impl Sent {
    /// Remembers a run.
    pub fn note(&mut self, id: ExecutionId, token: i64) {
        if self.tokens.insert(id, token).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.tokens.remove(&oldest);
        }
    }

    /// The run, if it was handed out here.
    pub fn held(&self, id: ExecutionId) -> Option<Held> {
        let token = *self.tokens.get(&id)?;
        Some(Held {
            execution_id: id.to_string(),
            token,
        })
    }
}

/// A stream that is served: what the worker said of itself, and the way to it.
pub struct LeaseStream {
    api: Api,
    worker: String,
    /// The product's own tools that it runs.
    built_ins: BTreeSet<String>,
    room: u32,
    sent: Sent,
    out: mpsc::Sender<Out>,
}

impl LeaseStream {
    /// Serves a stream, of which this is the first message, until the worker leaves or the service stops. It goes on in a
    /// task of its own: what was leased and could not be sent is handed back, wherever the way broke.
    pub fn open(
        api: &Api,
        first: LeaseRequest,
        requests: impl Stream<Item = Result<LeaseRequest, Status>> + Send + Unpin + 'static,
    ) -> impl Stream<Item = LeaseEvent> + Send + 'static {
        let (out, events) = mpsc::channel(WAITING);
        let stream = Self {
            api: api.clone(),
            worker: first.worker,
            built_ins: first.built_ins.into_iter().collect(),
            room: first.room.min(MAX_ROOM),
            sent: Sent::default(),
            out,
        };
        let stop = api.shutdown().clone();
        api.tasks()
            .spawn_graceful("lease-stream", move |_stop| async move {
                metrics::LEASE_STREAMS.add(1.0, []);
                let worker = stream.worker.clone();
                tracing::info!(worker, "lease stream opened");
                let Err(Left) = stream.serve(requests, &stop).await;
                tracing::info!(worker, "lease stream closed");
                metrics::LEASE_STREAMS.sub(1.0, []);
            });
        tokio_stream::wrappers::ReceiverStream::new(events).map(Out::message)
    }

    async fn serve(
        mut self,
        mut requests: impl Stream<Item = Result<LeaseRequest, Status>> + Send + Unpin,
        stop: &CancellationToken,
    ) -> Result<Infallible, Left> {
        let hub = self.api.hub().clone();
        let (mut queued, mut cancels) = (hub.queued(), hub.cancels());
        loop {
            // Marked as seen before the database is asked: what is queued in between wakes the next turn.
            queued.borrow_and_update();
            self.hand_out(stop).await?;
            // Never in the middle of a lease: what the database has given must be sent, or handed back.
            tokio::select! {
                () = stop.cancelled() => return Err(Left),
                () = self.out.closed() => return Err(Left),
                request = requests.next() => self.make_room(request)?,
                cancel = cancels.recv() => self.pass_cancel(cancel).await?,
                _ = queued.changed() => {}
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }

    fn make_room(&mut self, request: Option<Result<LeaseRequest, Status>>) -> Result<(), Left> {
        let request = request.and_then(Result::ok).ok_or(Left)?;
        self.room = self.room.saturating_add(request.room).min(MAX_ROOM);
        Ok(())
    }

    /// Leases until nothing is due or there is no more room.
    async fn hand_out(&mut self, stop: &CancellationToken) -> Result<(), Left> {
        while self.room > 0 && !stop.is_cancelled() {
            let leased = self.api.lease(&self.worker, &self.built_ins, self.room).await;
            let batch = match leased {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::debug!(worker = self.worker, %error, "nothing could be leased");
                    return Ok(());
                }
            };
            for run in batch.runs {
                self.room = self.room.saturating_sub(1);
                self.sent.note(run.id(), run.token());
                self.send(Out::Run(Box::new(run))).await?;
            }
            if !batch.more {
                break;
            }
        }
        Ok(())
    }

    async fn pass_cancel(&self, cancel: Result<ExecutionId, RecvError>) -> Result<(), Left> {
        match cancel {
            Ok(id) => match self.sent.held(id) {
                Some(held) => self.send(Out::Cancel(held)).await,
                None => Ok(()),
            },
            // The worker hears of it with its next heartbeat.
            Err(RecvError::Lagged(_)) => Ok(()),
            Err(RecvError::Closed) => Err(Left),
        }
    }

    async fn send(&self, out: Out) -> Result<(), Left> {
        self.out.send(out).await.map_err(|_| Left)
    }
}

/// The worker has left, or the service stops.
struct Left;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_runs_are_remembered_and_memory_is_bounded() {
        let mut sent = Sent::default();
        let first = ExecutionId::new();
        sent.note(first, 1);
        sent.note(first, 2);
        assert_eq!(sent.held(first).map(|held| held.token), Some(2));
        for _ in 0..2 * REMEMBERED {
            sent.note(ExecutionId::new(), 1);
        }
        assert!(sent.held(first).is_none());
        assert_eq!((sent.tokens.len(), sent.order.len()), (REMEMBERED, REMEMBERED));
    }
}
