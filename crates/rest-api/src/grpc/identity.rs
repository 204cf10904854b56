//! Who calls.

use super::Door;
use crate::error::Error;
use domain::api_key::Secret;
use proto::v1::{WhoAmIRequest, WhoAmIResponse, identity_server::Identity};
use tonic::{Request, Response, Status};

impl Door {
    /// The refusal, with whose the key is, where that is known.
    fn refused(&self, text: Option<&str>, error: Error) -> Status {
        let owner = text
            .and_then(|text| Secret::parse(text).ok())
            .and_then(|secret| self.api.verifier().refused(&secret.hash()));
        let known = matches!(&error, Error::Unauthenticated(_));
        let mut status = Status::from(error);
        if let Some(owner) = owner.filter(|_| known)
            && let Ok(owner) = format!("{}/{}", owner.tenant_id, owner.key_id).parse()
        {
            status.metadata_mut().insert(proto::REFUSED_KEY, owner);
        }
        status
    }
}

#[tonic::async_trait]
impl Identity for Door {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let text = chassis::grpc::bearer(request.metadata());
        let verified = self.api.verifier().verify(text).await;
        let verified = verified.map_err(|error| self.refused(text, error))?;
        let valid_for_ms = u32::try_from(verified.valid_for().as_millis()).unwrap_or(0);
        Ok(Response::new(WhoAmIResponse {
            principal: Some((&*verified.principal).into()),
            valid_for_ms,
        }))
    }
}
