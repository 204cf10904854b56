//! Deletes contexts whose time has come.

use super::{Client, Job};
use crate::settings::Jobs;
use async_trait::async_trait;
use proto::v1::{MaintenanceRequest, MaintenanceResponse};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct ExpireContexts;

#[async_trait]
impl Job for ExpireContexts {
    fn name(&self) -> &'static str {
        "expire_contexts"
    }

    fn interval(&self, settings: &Jobs) -> Duration {
        settings.expire_contexts
    }

    async fn step(
        &self,
        client: &mut Client,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        client.expire_contexts(request).await
    }
}
