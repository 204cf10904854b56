//! Keeps what is held: one heartbeat for all runs, when a lease needs it or there is something to tell.

use super::{Queue, backoff::Backoff};
use crate::metrics;
use proto::v1::HeartbeatRequest;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// An answer may take this part of the shortest lease.
const PATIENCE: u32 = 4;
/// While heartbeats fail, the next one does not wait longer.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Beats until `stop` is told and nothing is held any more.
pub(super) async fn keep(queue: Queue, stop: CancellationToken) {
    let held = &queue.0.held;
    let mut backoff = Backoff::new();
    let mut failing = false;
    loop {
        let due = held.due();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = held.due_changed() => continue,
            () = stop.cancelled(), if due.is_none() => return,
        }
        let beaten = beat(&queue).await;
        metrics::HEARTBEATS.inc([if beaten.is_ok() { "ok" } else { "error" }]);
        match beaten {
            Ok(()) => {
                backoff.reset();
                failing = false;
            }
            Err(status) => {
                // Told once; for as long as it lasts, the metric tells.
                if !failing {
                    tracing::warn!(code = ?status.code(), error = status.message(), "a heartbeat failed");
                }
                failing = true;
                tokio::time::sleep(backoff.wait().min(LONGEST_WAIT)).await;
            }
        }
    }
}

async fn beat(queue: &Queue) -> Result<(), Status> {
    let (runs, shortest) = queue.0.held.beat();
    if runs.is_empty() {
        return Ok(());
    }
    let sent = Instant::now();
    let request = queue.request(HeartbeatRequest { runs: runs.clone() })?;
    let mut client = queue.0.client.clone();
    let late = |_| Status::deadline_exceeded("rest-api takes too long");
    let answer = tokio::time::timeout(shortest / PATIENCE, client.heartbeat(request)).await;
    let answer = answer.map_err(late)??;
    queue.0.held.answered(sent, &runs, answer.get_ref());
    Ok(())
}
