use crate::harness::Fixture;
use chrono::TimeDelta;
use domain::{
    ApiKeyId, ExecutionId, TenantId, Time,
    audit::{Door, Outcome, Record},
    page::PageRequest,
};
use rest_api::store::AuditFilter;

fn start() -> Time {
    "2026-11-23T08:00:00.000250Z".parse().unwrap()
}

fn record(tenant: Option<TenantId>, second: i64, action: &str) -> Record {
    let mut record = Record::new(start() + TimeDelta::seconds(second), Door::Mcp, action);
    record.tenant_id = tenant;
    record.outcome = Outcome::Ok;
    record
}

async fn actions(f: &Fixture, tenant: Option<TenantId>, filter: &AuditFilter) -> String {
    let page = PageRequest::new(Some(100), None);
    let listed = f.store.list_audit(tenant, filter, &page).await.unwrap();
    assert_eq!(listed.next_cursor, None);
    let actions: Vec<_> = listed.items.into_iter().map(|record| record.action).collect();
    actions.join(" ")
}

pub(crate) async fn a_record_survives_the_round_trip_and_is_kept_once(f: Fixture) {
    let mut full = record(Some(f.id()), 0, "deploy");
    full.key_id = Some(ApiKeyId::new());
    full.key_name = "it's \"mine\" \\ ünï".to_owned();
    full.arguments_hash = "ab".repeat(32);
    full.arguments = Some(r#"{"text":"line\u0000\n'"}"#.to_owned());
    full.outcome = Outcome::Error;
    full.code = "tool_error".to_owned();
    full.duration_us = i64::MAX;
    full.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736".to_owned();
    full.execution_id = Some(ExecutionId::new());
    full.count = 1000;
    full.address = "192.0.2.7".to_owned();
    let bare = record(Some(f.id()), 1, "POST /api/v1/contexts");
    f.store.keep_audit(&[]).await.unwrap();
    f.store.keep_audit(&[full.clone()]).await.unwrap();
    let mut again = full.clone();
    again.action = "other".to_owned();
    f.store.keep_audit(&[bare.clone(), again]).await.unwrap();
    let page = PageRequest::new(None, None);
    let filter = AuditFilter::default();
    let listed = f.store.list_audit(Some(f.id()), &filter, &page).await.unwrap();
    assert_eq!(listed.items, [bare, full]);
}

pub(crate) async fn records_are_found_by_what_they_tell(f: Fixture) {
    let key = ApiKeyId::new();
    let mut records: Vec<_> = (0..6)
        .map(|n| record(Some(f.id()), n, &format!("a{n}")))
        .collect();
    records[1].key_id = Some(key);
    records[2].outcome = Outcome::Denied;
    records[3].trace_id = "t".repeat(32);
    f.store.keep_audit(&records).await.unwrap();
    let second = |n| Some(start() + TimeDelta::seconds(n));
    let one = |change: fn(&mut AuditFilter)| {
        let mut filter = AuditFilter::default();
        change(&mut filter);
        filter
    };
    let by_key = AuditFilter {
        key_id: Some(key),
        ..AuditFilter::default()
    };
    for (filter, expected) in [
        (AuditFilter::default(), "a5 a4 a3 a2 a1 a0"),
        (by_key, "a1"),
        (one(|f| f.outcome = Some(Outcome::Denied)), "a2"),
        (one(|f| f.outcome = Some(Outcome::Ok)), "a5 a4 a3 a1 a0"),
        (one(|f| f.trace_id = Some("t".repeat(32))), "a3"),
        (one(|f| f.trace_id = Some(String::new())), ""),
        (one(|f| f.action = Some("a4".to_owned())), "a4"),
    ] {
        assert_eq!(actions(&f, Some(f.id()), &filter).await, expected, "{filter:?}");
    }
    // To the microsecond, though identifiers count milliseconds.
    let between = |since, until| AuditFilter {
        since,
        until,
        ..AuditFilter::default()
    };
    assert_eq!(
        actions(&f, Some(f.id()), &between(second(2), second(4))).await,
        "a3 a2"
    );
    let microsecond = TimeDelta::microseconds(1);
    let late = between(
        second(2).map(|t| t + microsecond),
        second(4).map(|t| t + microsecond),
    );
    assert_eq!(actions(&f, Some(f.id()), &late).await, "a4 a3");
}

pub(crate) async fn pages_of_records_go_on_where_the_last_one_ended(f: Fixture) {
    let records: Vec<_> = (0..7)
        .map(|n| record(Some(f.id()), n / 3, &format!("a{n}")))
        .collect();
    f.store.keep_audit(&records).await.unwrap();
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest::new(Some(3), cursor);
        let filter = AuditFilter::default();
        let listed = f.store.list_audit(Some(f.id()), &filter, &page).await.unwrap();
        seen.extend(listed.items.into_iter().map(|record| record.id));
        cursor = listed.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let mut ids: Vec<_> = records.iter().map(|record| record.id).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(seen, ids);
}

pub(crate) async fn old_records_are_purged(f: Fixture) {
    let records: Vec<_> = (0..5)
        .map(|n| record(Some(f.id()), n, &format!("a{n}")))
        .collect();
    f.store.keep_audit(&records).await.unwrap();
    let before = start() + TimeDelta::seconds(3);
    assert_eq!(f.store.purge_audit(before, 2).await.unwrap(), 2);
    assert_eq!(f.store.purge_audit(before, 2).await.unwrap(), 1);
    assert_eq!(f.store.purge_audit(before, 2).await.unwrap(), 0);
    assert_eq!(actions(&f, Some(f.id()), &AuditFilter::default()).await, "a4 a3");
}

pub(crate) async fn another_tenants_records_do_not_exist(f: Fixture) {
    let mut theirs = record(Some(f.stranger.id), 0, "theirs");
    let key = ApiKeyId::new();
    theirs.key_id = Some(key);
    theirs.trace_id = "t".repeat(32);
    theirs.outcome = Outcome::Error;
    let own = record(Some(f.id()), 1, "own");
    let nobodys = record(None, 2, "nobodys");
    f.store.keep_audit(&[theirs, own, nobodys]).await.unwrap();
    assert_eq!(actions(&f, Some(f.id()), &AuditFilter::default()).await, "own");
    assert_eq!(actions(&f, None, &AuditFilter::default()).await, "nobodys");
    let crossing = [
        AuditFilter {
            key_id: Some(key),
            ..AuditFilter::default()
        },
        AuditFilter {
            trace_id: Some("t".repeat(32)),
            ..AuditFilter::default()
        },
        AuditFilter {
            outcome: Some(Outcome::Error),
            ..AuditFilter::default()
        },
        AuditFilter {
            action: Some("theirs".to_owned()),
            ..AuditFilter::default()
        },
    ];
    for filter in crossing {
        assert_eq!(actions(&f, Some(f.id()), &filter).await, "", "{filter:?}");
        assert_eq!(actions(&f, None, &filter).await, "", "{filter:?}");
    }
}
