//! What other services recorded of their callers.

use super::Door;
use chassis::outbox::AUDIT_RECORDS_LOST;
use domain::audit::Record;
use proto::v1::{AuditRecord, RecordAuditRequest, RecordAuditResponse, audit_server::Audit};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Audit for Door {
    async fn record(
        &self,
        request: Request<RecordAuditRequest>,
    ) -> Result<Response<RecordAuditResponse>, Status> {
        self.service(request.metadata())?;
        let records = readable(request.into_inner().records);
        self.api.keep_audit(&records).await?;
        Ok(Response::new(RecordAuditResponse {}))
    }
}

/// The records without those that break a rule: sent again they would not be better, and the others wait behind them.
fn readable(records: Vec<AuditRecord>) -> Vec<Record> {
    let (given, mut reason) = (records.len(), None);
    let records = records.into_iter().map(Record::try_from);
    let read: Vec<_> = records
        .filter_map(|record| record.map_err(|invalid| reason = Some(invalid)).ok())
        .collect();
    if let Some(reason) = reason {
        let records = given - read.len();
        AUDIT_RECORDS_LOST.add(records as u64, ["refused"]);
        tracing::error!(records, %reason, "records of the audit log break a rule and are lost");
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::audit::Door;

    #[test]
    fn a_record_that_breaks_a_rule_is_left_out_and_the_others_stay() {
        let record = |action: &str| Record::new(chrono::Utc::now(), Door::Mcp, action);
        let (one, other) = (
            AuditRecord::from(&record("one")),
            AuditRecord::from(&record("two")),
        );
        let broken = AuditRecord {
            outcome: "unheard_of".to_owned(),
            ..AuditRecord::from(&record("broken"))
        };
        let read = readable(vec![one, broken, other]);
        let actions: Vec<_> = read.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(actions, ["one", "two"]);
    }
}
