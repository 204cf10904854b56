//! Asks other MCP servers whose turn it is for their tools.

use super::{Client, Job};
use crate::settings::Jobs;
use async_trait::async_trait;
use proto::v1::{MaintenanceRequest, MaintenanceResponse};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct RefreshUpstreams;

#[async_trait]
impl Job for RefreshUpstreams {
    fn name(&self) -> &'static str {
        "refresh_upstreams"
    }

    fn interval(&self, settings: &Jobs) -> Duration {
        settings.refresh_upstreams
    }

    async fn step(
        &self,
        client: &mut Client,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        client.refresh_upstreams(request).await
    }
}
