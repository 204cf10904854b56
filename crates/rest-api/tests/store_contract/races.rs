use crate::harness::{Fixture, after, first, items, new_context, now, spec};
use domain::{ApiKeyId, ExecutionId, context::ContextPatch, execution::ExecutionStatus};
use futures_util::future::join_all;
use rest_api::store::{Idempotency, Made, NewExecution, StoreError, connect};
use std::collections::BTreeSet;

pub(crate) async fn racing_appends_leave_no_gap(f: Fixture) {
    let context = f.context("c", &["0"]).await;
    // A second store on the same database, as a second replica has.
    let other = Fixture {
        store: connect(&f.settings).await.unwrap(),
        ..f.clone()
    };
    let append = |i: usize| {
        let (f, context) = (
            if i.is_multiple_of(2) {
                f.clone()
            } else {
                other.clone()
            },
            context.clone(),
        );
        tokio::spawn(async move { f.append(&context, &["a", "b"]).await.unwrap() })
    };
    let appended = join_all((0..50).map(append)).await;
    let mut seen = BTreeSet::new();
    for appended in appended.into_iter().map(Result::unwrap) {
        assert_eq!(appended.items[0].sequence + 1, appended.items[1].sequence);
        seen.extend(appended.items.iter().map(|item| item.sequence));
    }
    assert_eq!(seen, (2..=101).collect());
    let after = f.store.get_context(f.id(), context.id).await.unwrap();
    assert_eq!(
        (after.version, after.item_count, after.size_bytes),
        (51, 101, 101)
    );
    let page = f
        .store
        .list_items(f.id(), context.id, &first(200), 1000, false)
        .await
        .unwrap()
        .items;
    assert!(page.items.iter().map(|item| item.sequence).eq(1..=101));
    other.store.close().await;
}

pub(crate) async fn racing_posts_with_one_key_make_one_context(f: Fixture) {
    let post = |_| {
        let f = f.clone();
        tokio::spawn(async move {
            let key = Idempotency {
                key: "k".into(),
                fingerprint: [1; 32],
                expires_at: after(60),
            };
            f.store
                .create_context(f.id(), &new_context("once"), &items(&["x"]), Some(&key))
                .await
                .unwrap()
        })
    };
    let made: Vec<_> = join_all((0..20).map(post))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(made.iter().filter(|made| matches!(made, Made::New(_))).count(), 1);
    let ids: BTreeSet<_> = made.into_iter().map(|made| made.into_inner().id).collect();
    assert_eq!(ids.len(), 1);
    let all = f
        .store
        .list_contexts(f.id(), &Default::default(), &first(10))
        .await
        .unwrap();
    assert_eq!(all.items.len(), 1);
}

pub(crate) async fn racing_updates_with_a_version_let_one_win(f: Fixture) {
    let context = f.context("c", &[]).await;
    let update = |i| {
        let f = f.clone();
        tokio::spawn(async move {
            let patch = ContextPatch {
                name: Some(format!("name {i}")),
                ..Default::default()
            };
            f.store.update_context(f.id(), context.id, &patch, Some(1)).await
        })
    };
    let done: Vec<_> = join_all((0..20).map(update))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let (won, lost): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(
        lost.iter()
            .all(|lost| matches!(lost, Err(StoreError::VersionMismatch { current: 2 }))),
        "{lost:?}"
    );
}

pub(crate) async fn racing_catalogue_changes_have_their_own_revisions(f: Fixture) {
    let create = |i| {
        let f = f.clone();
        tokio::spawn(async move { f.tool(&format!("tool-{i}")).await })
    };
    let watch = tokio::spawn({
        let f = f.clone();
        async move {
            let (mut revision, mut seen) = (0, BTreeSet::new());
            while seen.len() < 20 {
                let changes = f.store.tools_since(revision).await.unwrap();
                seen.extend(changes.upserted.into_iter().map(|tool| tool.spec.name));
                revision = changes.revision;
            }
            revision
        }
    });
    join_all((0..20).map(create)).await;
    let revision = tokio::time::timeout(std::time::Duration::from_secs(60), watch).await;
    assert!(revision.expect("the watch misses none").unwrap() <= 20);
    assert_eq!(f.store.catalogue_revision().await.unwrap(), 20);
    let same = |_| {
        let f = f.clone();
        tokio::spawn(async move { f.store.create_tool(f.id(), &spec("same"), None).await.is_ok() })
    };
    let made = join_all((0..10).map(same)).await;
    assert_eq!(
        made.into_iter().filter(|made| matches!(made, Ok(true))).count(),
        1
    );
    assert_eq!(f.store.catalogue_revision().await.unwrap(), 21);
}

pub(crate) async fn racing_reapers_end_each_execution_once(f: Fixture) {
    let tool = f.tool("t").await;
    for _ in 0..30 {
        let new = NewExecution {
            id: ExecutionId::new(),
            tool_id: tool.id,
            tool: "t".into(),
            key_id: ApiKeyId::new(),
            arguments: Default::default(),
            idempotent: true,
            trace_id: None,
            lease_owner: "replica".into(),
            lease_expires_at: after(-5),
        };
        f.store.begin_execution(f.id(), &new).await.unwrap();
    }
    let reap = |_| {
        let f = f.clone();
        tokio::spawn(async move {
            let mut ended = 0;
            loop {
                match f.store.reap_executions(now(), 3).await.unwrap() {
                    lost if lost.is_empty() => break ended,
                    lost => ended += lost.len(),
                }
            }
        })
    };
    let ended: usize = join_all((0..6).map(reap))
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    assert_eq!(ended, 30);
    let all = f
        .store
        .list_executions(f.id(), &Default::default(), &first(100))
        .await
        .unwrap();
    assert!(
        all.items
            .iter()
            .all(|execution| execution.status == ExecutionStatus::Failed)
    );
}
