//! What waits at rest-api, taken up: a lease stream over which runs come as there is room for them, heartbeats that keep
//! them, and reports of how they ended.
//!
//! Where what is bounded, so that one tenant's slow tool never starves another's:
//! - rest-api hands tenants their turns one after the other, and caps how many runs of one tenant are leased at once, over
//!   all workers (`queue.running_per_tenant` there);
//! - here, `queue.room` bounds what is held in all. It is several times that cap, so that no tenant fills it;
//! - a run takes one of the slots (`slots.rs`, settings `concurrency`) that direct runs take, too: so many for each tenant,
//!   so many in all. Who finds none in time is handed back, and frees its room.
//!
//! A run that is held outlives the stream it came over: heartbeats keep it, and reports go to any replica of rest-api.

mod backoff;
mod heartbeat;
mod held;
mod lease;
mod report;
mod run;

use crate::{runner::Runner, settings};
use chassis::{Dependency, Host, Tasks, grpc::GrpcChannel};
use held::Held;
use proto::v1::{LeasedRun, queue_client::QueueClient};
use secrecy::{ExposeSecret, SecretString};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use uuid::Uuid;

/// Of the time that a stopping service has, the part after which a report that was not accepted is given up, so that the
/// service ends by itself.
const LAST_REPORTS: f64 = 0.95;

/// Starts to take up runs.
pub(crate) fn start(settings: &settings::Queue, host: &Host, channel: &GrpcChannel, runner: &Runner) {
    if !settings.enabled {
        tracing::info!("nothing is taken up from the queue: it is switched off");
        return;
    }
    let queue = Queue(Arc::new(Inner {
        worker: name(),
        room: settings.room as usize,
        client: QueueClient::new(channel.clone()),
        token: host.common.service_token.clone(),
        runner: runner.clone(),
        held: Held::new(),
        tasks: host.tasks.clone(),
        stopping: host.shutdown.clone(),
        time_to_stop: host.common.shutdown.timeout,
        rest_api: host.readiness.dependency("rest-api"),
    }));
    let (leases, beats) = (queue.clone(), queue);
    // Both begin to stop with the servers, not after them: what is held has the same time as what was called directly.
    host.tasks.spawn_graceful("queue leases", |_| lease::keep(leases));
    host.tasks
        .spawn_graceful("queue heartbeats", |stop| heartbeat::keep(beats, stop));
}

/// What the parts share. Cheap to clone.
#[derive(Clone)]
struct Queue(Arc<Inner>);

struct Inner {
    worker: String,
    room: usize,
    client: QueueClient<GrpcChannel>,
    token: Option<SecretString>,
    runner: Runner,
    held: Held,
    tasks: Tasks,
    stopping: CancellationToken,
    time_to_stop: Duration,
    rest_api: Dependency,
}

impl Queue {
    /// Takes up a run, in a task of its own.
    fn take(&self, leased: LeasedRun) {
        let id = leased.run.as_ref().map(|run| run.execution_id.clone());
        let lease = Duration::from_millis(leased.lease_ms.into());
        let Some(holding) = id.and_then(|id| self.0.held.take(id, leased.token, lease)) else {
            tracing::warn!(
                token = leased.token,
                "a run came that is held already, or is none"
            );
            return;
        };
        let queue = self.clone();
        self.0
            .tasks
            .spawn_graceful("leased run", |_| run::run(queue, leased, holding));
    }

    /// A message with the service's own credential.
    fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let token = self.0.token.as_ref().map(ExposeSecret::expose_secret);
        chassis::grpc::with_bearer(Request::new(message), token.unwrap_or_default())
    }

    /// Waits for the moment in a stopping service when reports are given up.
    async fn last_call(&self) {
        self.0.stopping.cancelled().await;
        tokio::time::sleep(self.0.time_to_stop.mul_f64(LAST_REPORTS)).await;
    }
}

/// The worker's name: of its host, so that people know it, and of this start, so that it is nobody else's.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok());
    let host: String = host
        .iter()
        .flat_map(|host| host.trim().chars())
        .take(100)
        .collect();
    let host = if host.is_empty() { "worker" } else { &host };
    format!("{host}-{}", Uuid::now_v7())
}
