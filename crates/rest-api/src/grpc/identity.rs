//! Who calls.

use super::Door;
use proto::v1::{WhoAmIRequest, WhoAmIResponse, identity_server::Identity};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Identity for Door {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let verified = self
            .api
            .verifier()
            .verify(chassis::grpc::bearer(request.metadata()))
            .await?;
        let valid_for_ms = u32::try_from(verified.valid_for().as_millis()).unwrap_or(0);
        Ok(Response::new(WhoAmIResponse {
            principal: Some((&*verified.principal).into()),
            valid_for_ms,
        }))
    }
}
