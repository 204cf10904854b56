//! Enqueues what schedules are due.

use super::{Client, Job};
use crate::settings::Jobs;
use async_trait::async_trait;
use proto::v1::{MaintenanceRequest, MaintenanceResponse};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct RunSchedules;

#[async_trait]
impl Job for RunSchedules {
    fn name(&self) -> &'static str {
        "run_schedules"
    }

    fn interval(&self, settings: &Jobs) -> Duration {
        settings.run_schedules
    }

    async fn step(
        &self,
        client: &mut Client,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        client.run_schedules(request).await
    }
}
