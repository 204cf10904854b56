//! What the worker asks for on a schedule.

use super::Door;
use proto::v1::{MaintenanceRequest, MaintenanceResponse, maintenance_server::Maintenance};
use tonic::{Request, Response, Status};

/// The most that one call deletes, whatever it asks for.
const MAX: u32 = 10_000;

impl Door {
    fn limit(&self, request: &Request<MaintenanceRequest>) -> Result<u32, Status> {
        self.service(request.metadata())?;
        Ok(request.get_ref().limit.clamp(1, MAX))
    }
}

fn affected(affected: u64) -> Response<MaintenanceResponse> {
    Response::new(MaintenanceResponse { affected })
}

#[tonic::async_trait]
impl Maintenance for Door {
    async fn expire_contexts(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        let limit = self.limit(&request)?;
        Ok(affected(self.api.expire_contexts(limit).await?))
    }

    async fn purge_expired(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        let limit = self.limit(&request)?;
        Ok(affected(self.api.purge_expired(limit).await?))
    }

    async fn reap_executions(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        let limit = self.limit(&request)?;
        Ok(affected(self.api.reap_executions(limit).await?))
    }

    async fn follow_incidents(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        let limit = self.limit(&request)?;
        Ok(affected(self.api.follow_incidents(limit).await?))
    }

    async fn refresh_upstreams(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        let limit = self.limit(&request)?;
        Ok(affected(self.api.refresh_upstreams(limit).await?))
    }

    async fn run_schedules(
        &self,
        request: Request<MaintenanceRequest>,
    ) -> Result<Response<MaintenanceResponse>, Status> {
        let limit = self.limit(&request)?;
        Ok(affected(self.api.run_schedules(limit).await?))
    }
}
