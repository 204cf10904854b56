use crate::harness::{Fixture, after, assert_error, first, next, now, object};
use domain::{
    ApiKeyId, ExecutionId, ScheduleId, TenantId, Time,
    schedule::{MissedRuns, NewSchedule, Schedule},
};
use rest_api::store::{
    StoreError,
    schedules::{ScheduleSpec, Turn},
};
use serde_json::json;
use std::collections::BTreeSet;

fn spec(name: &str) -> NewSchedule {
    NewSchedule {
        name: name.into(),
        tool: "restart".into(),
        arguments: object(json!({"service": "web"})),
        cron: "*/5 * * * *".into(),
        timezone: "Europe/Berlin".into(),
        missed_runs: MissedRuns::RunAll,
        enabled: true,
        priority: -3,
    }
}

async fn make(f: &Fixture, tenant: TenantId, name: &str, next_run_at: Option<Time>) -> Schedule {
    let spec = spec(name);
    let new = ScheduleSpec {
        spec: &spec,
        key_id: ApiKeyId::new(),
        next_run_at,
    };
    f.store.create_schedule(tenant, &new).await.unwrap()
}

fn turn(schedule: &Schedule, next_run_at: Option<Time>) -> Turn<'static> {
    Turn {
        id: schedule.id,
        from: schedule.next_run_at.unwrap(),
        next_run_at,
        last: None,
        disabled_reason: None,
    }
}

pub(crate) async fn a_schedule_survives_the_round_trip(f: Fixture) {
    let made = make(&f, f.id(), "nightly", Some(after(60))).await;
    assert_eq!((&made.spec, made.version), (&spec("nightly"), 1));
    assert_eq!(f.store.get_schedule(f.id(), made.id).await.unwrap(), made);
    let spec_of = spec("nightly");
    let again = ScheduleSpec {
        spec: &spec_of,
        key_id: made.key_id,
        next_run_at: None,
    };
    assert_error!(
        f.store.create_schedule(f.id(), &again).await,
        StoreError::Conflict
    );

    let second = make(&f, f.id(), "weekly", None).await;
    assert_eq!(f.store.count_schedules(f.id()).await.unwrap(), 2);
    let page = f.store.list_schedules(f.id(), &first(1)).await.unwrap();
    assert_eq!(page.items, [second]);
    let page = f.store.list_schedules(f.id(), &next(&page, 1)).await.unwrap();
    assert_eq!((page.items, page.next_cursor), (vec![made.clone()], None));

    f.store.delete_schedule(f.id(), made.id, None).await.unwrap();
    assert_error!(f.store.get_schedule(f.id(), made.id).await, StoreError::NotFound);
    assert_error!(
        f.store.delete_schedule(f.id(), made.id, None).await,
        StoreError::NotFound
    );
}

pub(crate) async fn a_schedule_is_changed_at_its_version(f: Fixture) {
    let made = make(&f, f.id(), "nightly", Some(after(60))).await;
    let changed = NewSchedule {
        enabled: false,
        cron: "@daily".into(),
        ..spec("daily")
    };
    let key_id = ApiKeyId::new();
    let new = ScheduleSpec {
        spec: &changed,
        key_id,
        next_run_at: None,
    };
    let updated = f.store.update_schedule(f.id(), made.id, 1, &new).await.unwrap();
    assert_eq!((&updated.spec, updated.version), (&changed, 2));
    assert_eq!((updated.key_id, updated.next_run_at), (key_id, None));
    assert_error!(
        f.store.update_schedule(f.id(), made.id, 1, &new).await,
        StoreError::VersionMismatch { current: 2 }
    );
    assert_error!(
        f.store.delete_schedule(f.id(), made.id, Some(1)).await,
        StoreError::VersionMismatch { current: 2 }
    );
    assert_eq!(f.store.get_schedule(f.id(), made.id).await.unwrap(), updated);

    let heir = ApiKeyId::new();
    let handed = f.store.hand_over_schedules(f.id(), key_id, heir).await.unwrap();
    let now_his = f.store.get_schedule(f.id(), made.id).await.unwrap();
    assert_eq!((handed, now_his.key_id, now_his.version), (1, heir, 2));
}

pub(crate) async fn a_due_schedule_has_its_turn_once(f: Fixture) {
    let due = make(&f, f.id(), "due", Some(after(-10))).await;
    make(&f, f.id(), "later", Some(after(3600))).await;
    make(&f, f.id(), "off", None).await;
    let claim = async |limit| {
        f.store
            .claim_due_schedules(now(), after(30), limit)
            .await
            .unwrap()
    };
    assert_eq!(claim(10).await, std::slice::from_ref(&due));
    assert_eq!(claim(10).await, [], "it is claimed");

    let (ran, execution) = (after(-10), ExecutionId::new());
    let ended = Turn {
        last: Some((ran, execution)),
        ..turn(&due, Some(after(-5)))
    };
    assert!(f.store.end_turn(&ended).await.unwrap());
    assert!(!f.store.end_turn(&ended).await.unwrap(), "that turn is over");
    let after_it = f.store.get_schedule(f.id(), due.id).await.unwrap();
    assert_eq!(after_it.last_run_at, Some(ran));
    assert_eq!(
        (after_it.last_execution_id, after_it.version),
        (Some(execution), 1)
    );

    // Its next turn is due at once. Who claims it is lost: another takes it up when the claim has run out.
    let lost = f.store.claim_due_schedules(now(), after(-1), 10).await.unwrap();
    assert_eq!(lost, std::slice::from_ref(&after_it));
    assert_eq!(claim(10).await, std::slice::from_ref(&after_it));
    let disabled = Turn {
        disabled_reason: Some("key_revoked"),
        ..turn(&after_it, None)
    };
    assert!(f.store.end_turn(&disabled).await.unwrap());
    let off = f.store.get_schedule(f.id(), due.id).await.unwrap();
    assert_eq!((off.spec.enabled, off.version), (false, 2));
    assert_eq!(
        (off.disabled_reason.as_deref(), off.next_run_at),
        (Some("key_revoked"), None)
    );
    assert_eq!(off.last_execution_id, Some(execution));
}

pub(crate) async fn a_change_ends_the_turn_that_it_meets(f: Fixture) {
    let due = make(&f, f.id(), "due", Some(after(-10))).await;
    let claimed = f.store.claim_due_schedules(now(), after(30), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let same = spec("due");
    let new = ScheduleSpec {
        spec: &same,
        key_id: due.key_id,
        next_run_at: Some(after(600)),
    };
    let changed = f.store.update_schedule(f.id(), due.id, 1, &new).await.unwrap();
    assert!(!f.store.end_turn(&turn(&due, Some(after(5)))).await.unwrap());
    assert_eq!(f.store.get_schedule(f.id(), due.id).await.unwrap(), changed);
}

pub(crate) async fn racing_replicas_claim_each_schedule_once(f: Fixture) {
    let mut made = BTreeSet::new();
    for i in 0..20 {
        made.insert(make(&f, f.id(), &format!("s{i}"), Some(after(-20 + i))).await.id);
    }
    let replicas: Vec<_> = (0..4)
        .map(|_| {
            let store = f.store.clone();
            tokio::spawn(async move {
                let mut claimed = Vec::<ScheduleId>::new();
                loop {
                    let some = store.claim_due_schedules(now(), after(600), 3).await.unwrap();
                    if some.is_empty() {
                        return claimed;
                    }
                    claimed.extend(some.iter().map(|schedule| schedule.id));
                }
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for replica in replicas {
        claimed.extend(replica.await.unwrap());
    }
    // A replica that met only rows which others were just claiming may have gone home early; none is claimed twice.
    claimed.extend(
        f.store
            .claim_due_schedules(now(), after(600), 20)
            .await
            .unwrap()
            .iter()
            .map(|schedule| schedule.id),
    );
    assert_eq!(claimed.len(), 20);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), made);
}

pub(crate) async fn another_tenants_schedules_do_not_exist(f: Fixture) {
    let theirs = make(&f, f.stranger.id, "nightly", Some(after(60))).await;
    make(&f, f.id(), "nightly", None).await;
    let same = spec("mine");
    let new = ScheduleSpec {
        spec: &same,
        key_id: theirs.key_id,
        next_run_at: None,
    };
    assert_error!(
        f.store.get_schedule(f.id(), theirs.id).await,
        StoreError::NotFound
    );
    assert_error!(
        f.store.update_schedule(f.id(), theirs.id, 1, &new).await,
        StoreError::NotFound
    );
    assert_error!(
        f.store.delete_schedule(f.id(), theirs.id, None).await,
        StoreError::NotFound
    );
    let heir = ApiKeyId::new();
    let handed = f.store.hand_over_schedules(f.id(), theirs.key_id, heir).await;
    assert_eq!(handed.unwrap(), 0);
    assert_eq!(f.store.count_schedules(f.id()).await.unwrap(), 1);
    let listed = f.store.list_schedules(f.id(), &first(10)).await.unwrap();
    assert!(listed.items.iter().all(|schedule| schedule.tenant_id == f.id()));
    assert_eq!(
        f.store.get_schedule(f.stranger.id, theirs.id).await.unwrap(),
        theirs
    );
    let (key, _) = f.key(f.stranger.id, now()).await;
    let owner = f
        .store
        .key_owner_by_id(f.stranger.id, key.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (owner.key, owner.principal.tenant.as_str()),
        (key.clone(), "stranger")
    );
    assert!(f.store.key_owner_by_id(f.id(), key.id).await.unwrap().is_none());
    assert_eq!(f.store.count_tenant_keys(f.id(), now()).await.unwrap(), 0);
    assert_eq!(f.store.count_tenant_keys(f.stranger.id, now()).await.unwrap(), 1);
}
