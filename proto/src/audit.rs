//! Records of the audit log, from and to the domain's.

use crate::{
    convert::{Result, parse, time, timestamp},
    v1,
};
use domain::{
    Invalid,
    audit::{Record, first_id},
};
use uuid::Uuid;

/// The longest text that a record may hold, bytes. What is written by us is far below.
const TEXT_MAX: usize = 8192;

impl From<&Record> for v1::AuditRecord {
    fn from(r: &Record) -> Self {
        Self {
            id: r.id.to_string(),
            at: Some(timestamp(r.at)),
            tenant_id: r.tenant_id.map(|id| id.to_string()),
            key_id: r.key_id.map(|id| id.to_string()),
            key_name: r.key_name.clone(),
            door: r.door.as_str().to_owned(),
            action: r.action.clone(),
            arguments_hash: r.arguments_hash.clone(),
            arguments_json: r.arguments.clone(),
            outcome: r.outcome.as_str().to_owned(),
            code: r.code.clone(),
            duration_us: u64::try_from(r.duration_us).unwrap_or(0),
            trace_id: r.trace_id.clone(),
            execution_id: r.execution_id.map(|id| id.to_string()).unwrap_or_default(),
            count: u64::try_from(r.count).unwrap_or(1),
            address: r.address.clone(),
        }
    }
}

impl TryFrom<v1::AuditRecord> for Record {
    type Error = Invalid;
    fn try_from(r: v1::AuditRecord) -> Result<Self> {
        let at =
            r.at.as_ref()
                .ok_or_else(|| Invalid::new("at", "a point in time"))?;
        let at = time("at", at)?;
        let id: Uuid = parse("id", &r.id)?;
        // Listings go by the identifier.
        if id < first_id(at) || id >= first_id(at + chrono::TimeDelta::milliseconds(1)) {
            return Err(Invalid::new("id", "a UUIDv7 of the time in `at`"));
        }
        let optional = |text: Option<String>| text.filter(|text| !text.is_empty());
        let id_of = |field: &str, text: Option<String>| {
            optional(text).map(|text| parse::<Uuid>(field, &text)).transpose()
        };
        let texts = [
            &r.key_name,
            &r.action,
            &r.arguments_hash,
            &r.code,
            &r.trace_id,
            &r.address,
        ];
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        if longest.max(r.arguments_json.as_ref().map_or(0, String::len)) > TEXT_MAX {
            return Err(Invalid::new("records", "texts of 8 KiB at most"));
        }
        Ok(Self {
            id,
            at,
            tenant_id: id_of("tenant_id", r.tenant_id)?.map(domain::TenantId),
            key_id: id_of("key_id", r.key_id)?.map(domain::ApiKeyId),
            key_name: r.key_name,
            door: r.door.parse()?,
            action: r.action,
            arguments_hash: r.arguments_hash,
            arguments: optional(r.arguments_json),
            outcome: r.outcome.parse()?,
            code: r.code,
            duration_us: i64::try_from(r.duration_us).unwrap_or(i64::MAX),
            trace_id: r.trace_id,
            execution_id: id_of("execution_id", Some(r.execution_id))?.map(domain::ExecutionId),
            count: i64::try_from(r.count).unwrap_or(i64::MAX).max(1),
            address: r.address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::audit::{Door, Outcome};

    #[test]
    fn a_record_survives_the_wire() {
        let at = "2026-11-23T08:00:00.123456Z".parse().expect("a time");
        let mut record = Record::new(at, Door::Mcp, "context_list");
        record.tenant_id = Some(domain::TenantId::new());
        record.execution_id = Some(domain::ExecutionId::new());
        record.outcome = Outcome::Ok;
        record.arguments = Some("{}".to_owned());
        let message = v1::AuditRecord::from(&record);
        assert_eq!(Record::try_from(message.clone()), Ok(record));
        let elsewhen = v1::AuditRecord {
            id: Uuid::now_v7().to_string(),
            ..message
        };
        assert!(Record::try_from(elsewhen).is_err());
    }
}
