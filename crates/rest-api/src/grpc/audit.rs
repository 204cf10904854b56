//! What other services recorded of their callers.

use super::Door;
use crate::error::Error;
use domain::audit::Record;
use proto::v1::{RecordAuditRequest, RecordAuditResponse, audit_server::Audit};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Audit for Door {
    async fn record(
        &self,
        request: Request<RecordAuditRequest>,
    ) -> Result<Response<RecordAuditResponse>, Status> {
        self.service(request.metadata())?;
        let records = request.into_inner().records.into_iter().map(Record::try_from);
        let records = records.collect::<Result<Vec<_>, _>>().map_err(Error::from)?;
        self.api.keep_audit(&records).await?;
        Ok(Response::new(RecordAuditResponse {}))
    }
}
