//! Ends executions whose worker was lost.

use super::{Client, Job};
use crate::settings::Jobs;
use async_trait::async_trait;
use proto::v1::{MaintenanceRequest, MaintenanceResponse};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct ReapExecutions;

#[async_trait]
impl Job for ReapExecutions {
    fn name(&self) -> &'static str {
        "reap_executions"
    }

    fn interval(&self, settings: &Jobs) -> Duration {
        settings.reap_executions
    }

    async fn step(
        &self,
        client: &mut Client,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        client.reap_executions(request).await
    }
}
