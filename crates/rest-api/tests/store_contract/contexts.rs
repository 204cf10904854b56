use crate::harness::{Fixture, after, assert_error, first, items, new_context, next, now, object};
use domain::{
    ContextId,
    context::{Context, ContextFilter, ContextPatch, ContextStatus, NewContext},
    page::PageRequest,
};
use rest_api::store::{Idempotency, Made, StoreError};
use serde_json::json;

pub(crate) async fn a_context_survives_the_round_trip(f: Fixture) {
    let new = NewContext {
        name: "Störung 🙂 'x\"".into(),
        kind: "incident".into(),
        agent_id: Some("agent-7".into()),
        session_id: Some("s".into()),
        metadata: object(json!({"deep": [1, 2.5, null, "\u{0}é"], "big": u64::MAX})),
        expires_at: Some(after(3600)),
    };
    let made = f
        .store
        .create_context(f.id(), &new, &items(&["eins", "zwei €"]), None)
        .await
        .unwrap();
    let Made::New(made) = made else { panic!("{made:?}") };
    assert_eq!((made.version, made.item_count, made.size_bytes), (1, 2, 4 + 8));
    assert_eq!((made.status, made.tenant_id), (ContextStatus::Active, f.id()));
    assert_eq!(
        (&made.name, &made.kind, &made.metadata),
        (&new.name, &new.kind, &new.metadata)
    );
    assert_eq!(
        (&made.agent_id, &made.session_id, made.expires_at),
        (&new.agent_id, &new.session_id, new.expires_at)
    );
    assert_eq!(f.store.get_context(f.id(), made.id).await.unwrap(), made);
    f.store.delete_context(f.id(), made.id, None).await.unwrap();
    assert_error!(f.store.get_context(f.id(), made.id).await, StoreError::NotFound);
    assert_error!(
        f.store.delete_context(f.id(), made.id, None).await,
        StoreError::NotFound
    );
}

pub(crate) async fn changes_count_versions_and_hold_the_caller_to_them(f: Fixture) {
    let made = f.context("before", &["text"]).await;
    let patch = ContextPatch {
        name: Some("after".into()),
        expires_at: Some(Some(after(60))),
        ..Default::default()
    };
    let update = |patch: ContextPatch, version| {
        let (f, id) = (f.clone(), made.id);
        async move { f.store.update_context(f.id(), id, &patch, version).await }
    };
    assert_error!(
        update(patch.clone(), Some(7)).await,
        StoreError::VersionMismatch { current: 1 }
    );
    assert_eq!(f.store.get_context(f.id(), made.id).await.unwrap(), made);
    let renamed = update(patch.clone(), Some(1)).await.unwrap();
    assert_eq!(
        (renamed.version, renamed.name.as_str(), renamed.expires_at),
        (2, "after", patch.expires_at.unwrap())
    );
    assert!(renamed.updated_at >= made.updated_at && renamed.created_at == made.created_at);
    let metadata = object(json!({"a": 1}));
    let patch = ContextPatch {
        metadata: Some(metadata.clone()),
        expires_at: Some(None),
        ..Default::default()
    };
    let described = update(patch, None).await.unwrap();
    assert_eq!(
        (described.version, &described.metadata, described.expires_at),
        (3, &metadata, None)
    );
    let archived = update(
        ContextPatch {
            status: Some(ContextStatus::Archived),
            ..Default::default()
        },
        Some(3),
    )
    .await;
    let archived = archived.unwrap();
    let expected = Context {
        status: ContextStatus::Archived,
        version: 4,
        updated_at: archived.updated_at,
        ..described
    };
    assert_eq!(archived, expected);
    assert_eq!(f.store.get_context(f.id(), made.id).await.unwrap(), archived);

    let delete = f.store.delete_context(f.id(), made.id, Some(3)).await;
    assert_error!(delete, StoreError::VersionMismatch { current: 4 });
    f.store.delete_context(f.id(), made.id, Some(4)).await.unwrap();
    assert_error!(update(ContextPatch::default(), None).await, StoreError::NotFound);
}

pub(crate) async fn pages_are_stable_while_contexts_are_made(f: Fixture) {
    let mut made = Vec::new();
    for i in 0..7 {
        made.insert(0, f.context(&format!("c{i}"), &[]).await.id);
    }
    let filter = ContextFilter::default();
    let (mut seen, mut request) = (Vec::new(), first(2));
    loop {
        let page = f.store.list_contexts(f.id(), &filter, &request).await.unwrap();
        seen.extend(page.items.iter().map(|context| context.id));
        f.context("made meanwhile", &[]).await;
        request = next(&page, 2);
        if page.next_cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);

    let page = f.store.list_contexts(f.id(), &filter, &first(2)).await.unwrap();
    for cursor in ["rubbish", "AQIDBA", &"A".repeat(5000)] {
        let request = PageRequest {
            limit: 2,
            cursor: Some(cursor.into()),
        };
        assert_error!(
            f.store.list_contexts(f.id(), &filter, &request).await,
            StoreError::BadCursor
        );
    }
    assert_error!(
        f.store.list_keys(f.id(), &next(&page, 2)).await,
        StoreError::BadCursor
    );
    assert_error!(
        f.store.list_tools(f.id(), &next(&page, 2)).await,
        StoreError::BadCursor
    );
}

pub(crate) async fn filters_narrow_the_listing(f: Fixture) {
    let make = async |kind: &str, agent: Option<&str>, session: Option<&str>| {
        let (agent_id, session_id) = (agent.map(Into::into), session.map(Into::into));
        let new = NewContext {
            kind: kind.into(),
            agent_id,
            session_id,
            ..new_context("x")
        };
        f.store
            .create_context(f.id(), &new, &[], None)
            .await
            .unwrap()
            .into_inner()
    };
    let plain = make("manual", None, None).await;
    let agents = make("incident", Some("a"), None).await;
    let since = agents.updated_at;
    let both = make("incident", Some("a"), Some("s")).await;
    let archive = ContextPatch {
        status: Some(ContextStatus::Archived),
        ..Default::default()
    };
    f.store
        .update_context(f.id(), both.id, &archive, None)
        .await
        .unwrap();
    let any = ContextFilter::default;
    let agent = || ContextFilter {
        agent_id: Some("a".into()),
        ..any()
    };
    for (filter, expected) in [
        (any(), vec![both.id, agents.id, plain.id]),
        (
            ContextFilter {
                kind: Some("incident".into()),
                ..any()
            },
            vec![both.id, agents.id],
        ),
        (
            ContextFilter {
                status: Some(ContextStatus::Active),
                ..any()
            },
            vec![agents.id, plain.id],
        ),
        (agent(), vec![both.id, agents.id]),
        (
            ContextFilter {
                status: Some(ContextStatus::Active),
                ..agent()
            },
            vec![agents.id],
        ),
        (
            ContextFilter {
                session_id: Some("s".into()),
                ..any()
            },
            vec![both.id],
        ),
        (
            ContextFilter {
                session_id: Some("s".into()),
                ..agent()
            },
            vec![both.id],
        ),
        (
            ContextFilter {
                session_id: Some("other".into()),
                ..agent()
            },
            vec![],
        ),
        (
            ContextFilter {
                updated_since: Some(since),
                ..any()
            },
            vec![both.id, agents.id],
        ),
        (
            ContextFilter {
                updated_since: Some(after(60)),
                ..any()
            },
            vec![],
        ),
    ] {
        let page = f.store.list_contexts(f.id(), &filter, &first(10)).await.unwrap();
        assert_eq!(
            page.items.iter().map(|c| c.id).collect::<Vec<_>>(),
            expected,
            "{filter:?}"
        );
    }
}

pub(crate) async fn what_has_expired_is_gone_at_once(f: Fixture) {
    let new = NewContext {
        expires_at: Some(after(-1)),
        ..new_context("needle expired")
    };
    let mut expired = Vec::new();
    for _ in 0..3 {
        expired.push(
            f.store
                .create_context(f.id(), &new, &items(&["needle"]), None)
                .await
                .unwrap()
                .into_inner(),
        );
    }
    let kept = f.context("kept", &["hay"]).await;
    let id = expired[0].id;
    assert_error!(f.store.get_context(f.id(), id).await, StoreError::NotFound);
    let patch = ContextPatch {
        expires_at: Some(None),
        ..Default::default()
    };
    assert_error!(
        f.store.update_context(f.id(), id, &patch, None).await,
        StoreError::NotFound
    );
    assert_error!(f.append(&expired[0], &["x"]).await, StoreError::NotFound);
    assert_error!(
        f.store.list_items(f.id(), id, &first(5), 100, false).await,
        StoreError::NotFound
    );
    assert_error!(
        f.store.delete_context(f.id(), id, None).await,
        StoreError::NotFound
    );
    let page = f
        .store
        .list_contexts(f.id(), &ContextFilter::default(), &first(10))
        .await
        .unwrap();
    assert_eq!(page.items, [kept]);
    let filter = ContextFilter::default();
    assert!(
        f.store
            .search_contexts(f.id(), "needle", &filter, 10)
            .await
            .unwrap()
            .is_empty()
    );

    assert_eq!(f.store.expire_contexts(now(), 2).await.unwrap(), 2);
    assert_eq!(f.store.expire_contexts(now(), 2).await.unwrap(), 1);
    assert_eq!(f.store.expire_contexts(now(), 2).await.unwrap(), 0);
    assert_eq!(
        f.store
            .search_contexts(f.id(), "hay", &filter, 10)
            .await
            .unwrap()
            .len(),
        1
    );
}

pub(crate) async fn active_contexts_are_counted_by_tenant(f: Fixture) {
    let archived = f.context("archived", &[]).await;
    let patch = ContextPatch {
        status: Some(ContextStatus::Archived),
        ..Default::default()
    };
    f.store
        .update_context(f.id(), archived.id, &patch, None)
        .await
        .unwrap();
    f.context("active", &[]).await;
    let new = NewContext {
        expires_at: Some(after(60)),
        ..new_context("short")
    };
    f.store.create_context(f.id(), &new, &[], None).await.unwrap();
    let count = f.store.count_active_contexts(now()).await.unwrap();
    assert_eq!(count, [("acme".to_owned(), 2), ("stranger".to_owned(), 0)]);
    assert_eq!(f.store.count_active_contexts(after(90)).await.unwrap()[0].1, 1);
}

pub(crate) async fn the_same_post_makes_one_context(f: Fixture) {
    let key = Idempotency {
        key: "k".into(),
        fingerprint: [1; 32],
        expires_at: after(60),
    };
    let create = async |tenant, key: &Idempotency| {
        f.store
            .create_context(tenant, &new_context("once"), &items(&["x"]), Some(key))
            .await
    };
    let Made::New(made) = create(f.id(), &key).await.unwrap() else {
        panic!("not new")
    };
    f.append(&made, &["y"]).await.unwrap();
    let again = create(f.id(), &key).await.unwrap();
    assert_eq!(
        again,
        Made::Before(f.store.get_context(f.id(), made.id).await.unwrap())
    );
    let other = Idempotency {
        fingerprint: [2; 32],
        ..key.clone()
    };
    assert_error!(create(f.id(), &other).await, StoreError::IdempotencyMismatch);
    assert!(
        matches!(create(f.stranger.id, &other).await, Ok(Made::New(_))),
        "keys are each tenant's own"
    );
    let all = f
        .store
        .list_contexts(f.id(), &ContextFilter::default(), &first(10))
        .await
        .unwrap();
    assert_eq!(all.items.len(), 1);

    // A record that has expired is as good as none, cleared away or not.
    let expired = Idempotency {
        key: "e".into(),
        fingerprint: [1; 32],
        expires_at: after(-1),
    };
    let Made::New(first) = create(f.id(), &expired).await.unwrap() else {
        panic!("not new")
    };
    let Made::New(second) = create(
        f.id(),
        &Idempotency {
            fingerprint: [3; 32],
            ..expired
        },
    )
    .await
    .unwrap() else {
        panic!("not new")
    };
    assert_ne!(first.id, second.id);
    assert_eq!(f.store.purge_idempotency(now(), 10).await.unwrap(), 1);
    assert_eq!(f.store.purge_idempotency(now(), 10).await.unwrap(), 0);
    assert!(matches!(create(f.id(), &key).await, Ok(Made::Before(_))));

    f.store.delete_context(f.id(), made.id, None).await.unwrap();
    assert_error!(create(f.id(), &key).await, StoreError::NotFound);
}

pub(crate) async fn another_tenants_contexts_do_not_exist(f: Fixture) {
    let made = f.context("mine", &["secret"]).await;
    let stranger = f.stranger.id;
    assert_error!(f.store.get_context(stranger, made.id).await, StoreError::NotFound);
    let patch = ContextPatch {
        name: Some("stolen".into()),
        ..Default::default()
    };
    assert_error!(
        f.store.update_context(stranger, made.id, &patch, None).await,
        StoreError::NotFound
    );
    assert_error!(
        f.store.update_context(stranger, made.id, &patch, Some(9)).await,
        StoreError::NotFound
    );
    assert_error!(
        f.store.delete_context(stranger, made.id, None).await,
        StoreError::NotFound
    );
    assert_error!(
        f.store.delete_context(stranger, made.id, Some(9)).await,
        StoreError::NotFound
    );
    let filter = ContextFilter::default();
    assert!(
        f.store
            .list_contexts(stranger, &filter, &first(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(f.store.get_context(f.id(), made.id).await.unwrap(), made);
    assert_error!(
        f.store.get_context(f.id(), ContextId::new()).await,
        StoreError::NotFound
    );
    let homeless = domain::TenantId::new();
    assert_error!(
        f.store
            .create_context(homeless, &new_context("x"), &[], None)
            .await,
        StoreError::NotFound
    );
}
