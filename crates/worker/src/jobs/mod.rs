//! Scheduled work, one job a file. The work itself is done by rest-api, which owns the data; the worker keeps time.
//!
//! Replicas need not agree on who does it: every job may run twice.

mod expire_contexts;
mod follow_incidents;
mod purge_expired;
mod reap_executions;
mod refresh_upstreams;
mod run_schedules;

use crate::{metrics, settings};
use async_trait::async_trait;
use chassis::{Dependency, Host, grpc::GrpcChannel};
use proto::v1::{MaintenanceRequest, MaintenanceResponse, maintenance_client::MaintenanceClient};
use secrecy::{ExposeSecret, SecretString};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::{Code, Request, Response, Status};

/// The jobs' names, as metrics know them.
pub(crate) const NAMES: [&str; 6] = [
    "expire_contexts",
    "follow_incidents",
    "purge_expired",
    "reap_executions",
    "refresh_upstreams",
    "run_schedules",
];

type Client = MaintenanceClient<GrpcChannel>;

/// A job that is done again and again.
#[async_trait]
trait Job: Send + Sync {
    /// Its name in metrics and logs.
    fn name(&self) -> &'static str;

    /// How often it is done.
    fn interval(&self, settings: &settings::Jobs) -> Duration;

    /// Does a part of it: at most as many rows as the request says.
    async fn step(
        &self,
        client: &mut Client,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status>;
}

/// Starts all jobs.
pub(crate) fn start(settings: &settings::Jobs, host: &Host, channel: &GrpcChannel) {
    if !settings.enabled {
        tracing::info!("scheduled jobs are switched off");
        return;
    }
    let settings = Arc::new(settings.clone());
    let jobs: [(&'static str, Box<dyn Job>); NAMES.len()] = [
        ("job expire_contexts", Box::new(expire_contexts::ExpireContexts)),
        (
            "job follow_incidents",
            Box::new(follow_incidents::FollowIncidents),
        ),
        ("job purge_expired", Box::new(purge_expired::PurgeExpired)),
        ("job reap_executions", Box::new(reap_executions::ReapExecutions)),
        (
            "job refresh_upstreams",
            Box::new(refresh_upstreams::RefreshUpstreams),
        ),
        ("job run_schedules", Box::new(run_schedules::RunSchedules)),
    ];
    for (task, job) in jobs {
        debug_assert!(NAMES.contains(&job.name()));
        let every = job.interval(&settings).max(settings.timeout);
        let schedule = Schedule {
            job,
            settings: Arc::clone(&settings),
            client: Client::new(channel.clone()),
            token: host.common.service_token.clone(),
            rest_api: host.readiness.dependency("rest-api"),
        };
        host.tasks.spawn_every(task, every, schedule.run());
    }
}

struct Schedule {
    job: Box<dyn Job>,
    settings: Arc<settings::Jobs>,
    client: Client,
    token: Option<SecretString>,
    rest_api: Dependency,
}

impl Schedule {
    async fn run(mut self) {
        let interval = self.job.interval(&self.settings);
        // The first time soon, but not all replicas at once.
        tokio::time::sleep(interval.min(Duration::from_secs(5)).mul_f64(rand::random())).await;
        let mut failing = false;
        loop {
            let (name, started) = (self.job.name(), Instant::now());
            let done = self.once().await;
            metrics::JOB_DURATION.record(started.elapsed().as_secs_f64(), [name]);
            metrics::JOBS.inc([name, if done.is_ok() { "ok" } else { "error" }]);
            match &done {
                Ok(rows) => {
                    self.rest_api.up();
                    if *rows > 0 {
                        tracing::info!(job = name, rows, "job is done");
                    }
                }
                Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                    self.rest_api.down(status.message());
                }
                // Told once; for as long as it lasts, the metric tells.
                Err(status) if !failing => {
                    tracing::error!(job = name, code = ?status.code(), error = status.message(), "job fails");
                }
                Err(_) => {}
            }
            failing = done.is_err();
            // A tenth up or down.
            tokio::time::sleep(interval.mul_f64(rand::random_range(0.9..=1.1))).await;
        }
    }

    /// Does the job until nothing is left to do.
    async fn once(&mut self) -> Result<u64, Status> {
        let (limit, name) = (self.settings.batch, self.job.name());
        metrics::JOB_ROWS.add(0, [name]);
        let mut rows = 0;
        loop {
            let token = self
                .token
                .as_ref()
                .map(ExposeSecret::expose_secret)
                .unwrap_or_default();
            let request = chassis::grpc::with_bearer(Request::new(MaintenanceRequest { limit }), token)?;
            let step = self.job.step(&mut self.client, request);
            let late = |_| Status::deadline_exceeded("rest-api takes too long");
            let answer = tokio::time::timeout(self.settings.timeout, step)
                .await
                .map_err(late)??;
            let affected = answer.into_inner().affected;
            metrics::JOB_ROWS.add(affected, [name]);
            rows += affected;
            if affected < u64::from(limit) {
                return Ok(rows);
            }
        }
    }
}
