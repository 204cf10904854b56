//! Deletes what is kept no longer: old executions, idempotency records, expired keys' records.

use super::{Client, Job};
use crate::settings::Jobs;
use async_trait::async_trait;
use proto::v1::{MaintenanceRequest, MaintenanceResponse};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct PurgeExpired;

#[async_trait]
impl Job for PurgeExpired {
    fn name(&self) -> &'static str {
        "purge_expired"
    }

    fn interval(&self, settings: &Jobs) -> Duration {
        settings.purge_expired
    }

    async fn step(
        &self,
        client: &mut Client,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        client.purge_expired(request).await
    }
}
