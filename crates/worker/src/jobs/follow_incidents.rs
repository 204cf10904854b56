//! Has incidents looked into, and what was found told in their contexts.

use super::{Client, Job};
use crate::settings::Jobs;
use async_trait::async_trait;
use proto::v1::{MaintenanceRequest, MaintenanceResponse};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct FollowIncidents;

#[async_trait]
impl Job for FollowIncidents {
    fn name(&self) -> &'static str {
        "follow_incidents"
    }

    fn interval(&self, settings: &Jobs) -> Duration {
        settings.follow_incidents
    }

    async fn step(
        &self,
        client: &mut Client,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        client.follow_incidents(request).await
    }
}
