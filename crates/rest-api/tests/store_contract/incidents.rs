use crate::harness::{Fixture, after, assert_error, first, items, next, now, object};
use domain::{
    ApiKeyId, ExecutionId, IncidentId, JsonObject, TenantId, Time,
    context::{ContextFilter, ContextStatus, NewContext, NewItem},
    incident::{Alert, Incident, IncidentStatus, Said, Summary},
};
use rest_api::store::{
    SharedStore, StoreError,
    incidents::{Explanation, IncidentChange, NewIncident, News},
};
use serde_json::json;
use std::collections::BTreeSet;

const NO_ITEMS: News<'static> = News {
    items: &[],
    max_bytes: u64::MAX,
};

fn alert(name: &str) -> Alert {
    let labels = [("alertname", name), ("service", "web"), ("severity", "critical")];
    let said = Said {
        fingerprint: name.into(),
        labels: labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Said::default()
    };
    Alert::new(&said, after(-60))
}

fn group(name: &str) -> [u8; 32] {
    let mut group = [0; 32];
    group[..name.len()].copy_from_slice(name.as_bytes());
    group
}

async fn open_in(
    store: &SharedStore,
    tenant: TenantId,
    name: &str,
    explain: &[(String, JsonObject)],
) -> Result<Incident, StoreError> {
    let alerts = [alert(name)];
    let summary = Summary::of(&alerts, IncidentStatus::Firing, now());
    let context = NewContext {
        name: summary.title.clone(),
        kind: "incident".into(),
        metadata: object(json!({"status": "firing"})),
        ..Default::default()
    };
    let new = NewIncident {
        id: IncidentId::new(),
        group: group(name),
        key_id: ApiKeyId::new(),
        summary: &summary,
        alerts: &alerts,
        explain,
        context: &context,
        items: &items(&["it fires"]),
    };
    store.open_incident(tenant, &new).await
}

async fn open(f: &Fixture, name: &str) -> Incident {
    open_in(&f.store, f.id(), name, &[]).await.unwrap()
}

/// Ends an incident at this time.
async fn close(f: &Fixture, incident: &Incident, end: Time, told: News<'_>) -> Result<Incident, StoreError> {
    let alerts = [alert("A").ended(end, end)];
    let summary = Summary::of(&alerts, IncidentStatus::Resolved, now());
    let change = IncidentChange {
        version: incident.version,
        summary: &summary,
        alerts: &alerts,
        metadata: &object(json!({"status": "resolved"})),
        news: told,
    };
    f.store.change_incident(f.id(), incident.id, &change).await
}

fn wanted(names: &[&str]) -> Vec<(String, JsonObject)> {
    let one = |name: &&str| ((*name).to_owned(), object(json!({"alert": name})));
    names.iter().map(one).collect()
}

async fn claim(f: &Fixture, limit: u32) -> Vec<Explanation> {
    f.store.claim_explanations(now(), after(30), limit).await.unwrap()
}

pub(crate) async fn a_group_has_one_open_incident(f: Fixture) {
    let made = open(&f, "A").await;
    assert_eq!((made.summary.title.as_str(), made.version), ("A: web", 1));
    let context = f.store.get_context(f.id(), made.context_id).await.unwrap();
    assert_eq!(
        (context.kind.as_str(), context.item_count, context.status),
        ("incident", 1, ContextStatus::Active)
    );
    assert_error!(open_in(&f.store, f.id(), "A", &[]).await, StoreError::Conflict);
    let listed = f
        .store
        .list_contexts(f.id(), &ContextFilter::default(), &first(10))
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1, "who came second made no context");

    let known = f.store.get_incident(f.id(), made.id).await.unwrap();
    assert_eq!((&known.incident, known.alerts[0].name.as_str()), (&made, "A"));
    let closed = close(&f, &made, after(-1), NO_ITEMS).await.unwrap();
    assert_eq!(
        (closed.summary.status, closed.version),
        (IncidentStatus::Resolved, 2)
    );
    let again = open(&f, "A").await;
    let of_group = f.store.incidents_of_group(f.id(), &group("A")).await.unwrap();
    let ids: Vec<_> = of_group.iter().map(|known| known.incident.id).collect();
    assert_eq!(ids, [again.id, closed.id]);
    let other = open(&f, "B").await;

    let page = f.store.list_incidents(f.id(), None, &first(2)).await.unwrap();
    assert_eq!(page.items, [other.clone(), again.clone()]);
    let page = f
        .store
        .list_incidents(f.id(), None, &next(&page, 2))
        .await
        .unwrap();
    assert_eq!((page.items, page.next_cursor), (vec![closed.clone()], None));
    for (status, expected) in [
        (IncidentStatus::Firing, vec![other, again]),
        (IncidentStatus::Resolved, vec![closed]),
    ] {
        let page = f
            .store
            .list_incidents(f.id(), Some(status), &first(9))
            .await
            .unwrap();
        assert_eq!(page.items, expected);
    }
    let open = f.store.count_open_incidents().await.unwrap();
    assert_eq!(open, [("acme".to_owned(), 2), ("stranger".to_owned(), 0)]);
    for (tenant, count) in [(f.id(), 2), (f.stranger.id, 0)] {
        assert_eq!(f.store.count_open_of(tenant).await.unwrap(), count);
    }
}

pub(crate) async fn what_nobody_tells_of_is_found(f: Fixture) {
    let (a, b) = (open(&f, "A").await, open(&f, "B").await);
    let over = open(&f, "C").await;
    close(&f, &over, after(0), NO_ITEMS).await.unwrap();
    let unheard = async |before: Time| {
        let found = f.store.unheard_incidents(before, 10).await.unwrap();
        found
            .into_iter()
            .map(|known| known.incident.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(unheard(after(-60)).await, []);
    assert_eq!(unheard(after(60)).await, [a.id, b.id], "those that are open");
    // A word within the hour is not written down, a later one is.
    f.store.incident_heard(f.id(), a.id, after(600)).await.unwrap();
    assert_eq!(unheard(after(60)).await, [a.id, b.id]);
    f.store
        .incident_heard(f.stranger.id, a.id, after(7200))
        .await
        .unwrap();
    assert_eq!(unheard(after(60)).await, [a.id, b.id], "another tenant's word");
    f.store.incident_heard(f.id(), a.id, after(7200)).await.unwrap();
    assert_eq!(unheard(after(60)).await, [b.id]);
    assert_eq!(
        f.store.unheard_incidents(after(9000), 1).await.unwrap()[0]
            .incident
            .id,
        b.id
    );
}

pub(crate) async fn a_change_is_told_in_the_context(f: Fixture) {
    let made = open(&f, "A").await;
    let told = items(&["it is over"]);
    let stale = Incident {
        version: 7,
        ..made.clone()
    };
    let news = News {
        items: &told,
        max_bytes: u64::MAX,
    };
    assert_error!(
        close(&f, &stale, now(), news).await,
        StoreError::VersionMismatch { current: 1 }
    );
    let patch = domain::context::ContextPatch {
        metadata: Some(object(json!({"status": "firing", "mine": 1}))),
        ..Default::default()
    };
    f.store
        .update_context(f.id(), made.context_id, &patch, None)
        .await
        .unwrap();
    let closed = close(&f, &made, now(), news).await.unwrap();
    let context = f.store.get_context(f.id(), made.context_id).await.unwrap();
    assert_eq!(context.item_count, 2, "what was refused told nothing");
    assert_eq!(
        serde_json::Value::from(context.metadata),
        json!({"status": "resolved", "mine": 1})
    );

    // No room for it, and then no context: the incident changes all the same.
    let full = News {
        items: &told,
        max_bytes: 3,
    };
    let closed = close(&f, &closed, now(), full).await.unwrap();
    let context = f.store.get_context(f.id(), made.context_id).await.unwrap();
    assert_eq!((context.item_count, closed.version), (2, 3));
    f.store
        .delete_context(f.id(), made.context_id, None)
        .await
        .unwrap();
    let closed = close(&f, &closed, now(), news).await.unwrap();
    assert_eq!(closed.version, 4);
}

pub(crate) async fn racing_replicas_open_one_incident(f: Fixture) {
    for round in 0..5 {
        let name = format!("R{round}");
        let racers: Vec<_> = (0..6)
            .map(|_| {
                let (store, tenant, name) = (f.store.clone(), f.id(), name.clone());
                tokio::spawn(async move { open_in(&store, tenant, &name, &wanted(&["R"])).await })
            })
            .collect();
        let mut opened = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) => opened += 1,
                Err(StoreError::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(opened, 1);
    }
    let contexts = f
        .store
        .list_contexts(f.id(), &ContextFilter::default(), &first(100))
        .await
        .unwrap();
    assert_eq!(contexts.items.len(), 5);
    assert_eq!(claim(&f, 100).await.len(), 5);
}

pub(crate) async fn an_explanation_is_looked_for_and_told_once(f: Fixture) {
    let made = open_in(&f.store, f.id(), "A", &wanted(&["A", "B"]))
        .await
        .unwrap();
    let claimed = claim(&f, 10).await;
    assert_eq!(claimed.len(), 2);
    assert!(claim(&f, 10).await.is_empty(), "they are claimed");
    let of_b = claimed.iter().find(|one| one.alert == "B").unwrap();
    assert_eq!(
        (of_b.incident, of_b.tenant_id, of_b.position),
        (made.id, f.id(), 1)
    );
    assert_eq!(of_b.arguments, object(json!({"alert": "B"})));

    let run = ExecutionId::new();
    f.store
        .put_off_explanation(of_b, Some(run), after(-1))
        .await
        .unwrap();
    let again = claim(&f, 10).await;
    assert_eq!(
        again
            .iter()
            .map(|one| (one.position, one.execution_id))
            .collect::<Vec<_>>(),
        [(1, Some(run))]
    );
    f.store.put_off_explanation(of_b, None, after(60)).await.unwrap();

    // Two replicas found it; one of them tells.
    let found: Vec<NewItem> = items(&["the disk is full"]);
    let ends: Vec<_> = (0..2)
        .map(|_| {
            let (store, one, found) = (f.store.clone(), again[0].clone(), found.clone());
            tokio::spawn(async move {
                let news = News {
                    items: &found,
                    max_bytes: u64::MAX,
                };
                store.end_explanation(&one, news).await.unwrap()
            })
        })
        .collect();
    let mut told = 0;
    for end in ends {
        told += usize::from(end.await.unwrap().is_some());
    }
    assert_eq!(told, 1);
    let context = f.store.get_context(f.id(), made.context_id).await.unwrap();
    assert_eq!(context.item_count, 2);
    let touched = f.store.get_incident(f.id(), made.id).await.unwrap().incident;
    assert_eq!(
        touched.version, 2,
        "who follows incidents sees that something was found"
    );
    // It is over: nothing brings it back.
    f.store
        .put_off_explanation(&again[0], Some(run), after(-5))
        .await
        .unwrap();
    assert!(claim(&f, 10).await.is_empty());
}

pub(crate) async fn racing_replicas_claim_each_explanation_once(f: Fixture) {
    for i in 0..20 {
        open_in(&f.store, f.id(), &format!("S{i}"), &wanted(&["A"]))
            .await
            .unwrap();
    }
    let replicas: Vec<_> = (0..4)
        .map(|_| {
            let f = f.clone();
            tokio::spawn(async move { claim(&f, 10).await })
        })
        .collect();
    let mut claimed = Vec::new();
    for replica in replicas {
        claimed.extend(replica.await.unwrap());
    }
    claimed.extend(claim(&f, 100).await);
    let unique: BTreeSet<_> = claimed.iter().map(|one| one.incident).collect();
    assert_eq!((claimed.len(), unique.len()), (20, 20));
}

pub(crate) async fn old_incidents_are_purged(f: Fixture) {
    let old = open_in(&f.store, f.id(), "A", &wanted(&["A"])).await.unwrap();
    close(&f, &old, now(), NO_ITEMS).await.unwrap();
    let open = open(&f, "B").await;
    assert_eq!(f.store.purge_incidents(after(-10), 10).await.unwrap(), 0);
    assert_eq!(f.store.purge_incidents(after(10), 10).await.unwrap(), 1);
    assert_error!(f.store.get_incident(f.id(), old.id).await, StoreError::NotFound);
    assert!(f.store.get_incident(f.id(), open.id).await.is_ok());
    assert!(f.store.get_context(f.id(), old.context_id).await.is_ok());
    assert!(claim(&f, 10).await.is_empty(), "its explanation went with it");
}

pub(crate) async fn another_tenants_incidents_do_not_exist(f: Fixture) {
    let theirs = open_in(&f.store, f.stranger.id, "A", &[]).await.unwrap();
    let ours = open(&f, "A").await;
    assert_ne!(theirs.id, ours.id, "a group is its tenant's");
    assert_error!(
        f.store.get_incident(f.id(), theirs.id).await,
        StoreError::NotFound
    );
    assert_error!(close(&f, &theirs, now(), NO_ITEMS).await, StoreError::NotFound);
    let listed = f.store.list_incidents(f.id(), None, &first(10)).await.unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&ours));
    let of_group = f.store.incidents_of_group(f.id(), &group("A")).await.unwrap();
    assert_eq!(of_group.len(), 1);
    let still = f.store.get_incident(f.stranger.id, theirs.id).await.unwrap();
    assert_eq!(still.incident, theirs);
}
