use crate::harness::{
    Fixture, after, error, failed, first, items, new_context, now, queued, spec, succeeded, waited_for,
};
use domain::{ApiKeyId, context::ContextPatch, execution::ExecutionStatus};
use futures_util::future::join_all;
use rest_api::store::{End, FIRST_TOKEN, Idempotency, Made, NewExecution, Start, StoreError, connect};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(60);

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

/// The same store as several replicas see it.
async fn replicas(f: &Fixture) -> [Fixture; 2] {
    let other = Fixture {
        store: connect(&f.settings).await.unwrap(),
        ..f.clone()
    };
    [f.clone(), other]
}

pub(crate) async fn racing_leasers_never_share_an_execution(f: Fixture) {
    const COUNT: usize = 200;
    let replicas = replicas(&f).await;
    let theirs = f
        .store
        .create_tool(f.stranger.id, &spec("t"), None)
        .await
        .unwrap();
    let tool = f.tool("t").await;
    for i in 0..COUNT {
        let (tenant, tool) = if i % 4 == 0 {
            (f.stranger.id, &theirs)
        } else {
            (f.id(), &tool)
        };
        f.store.create_execution(tenant, &queued(tool)).await.unwrap();
    }
    let all = Arc::new(Mutex::new(Vec::new()));
    let lease = |i: usize| {
        let (f, all) = (replicas[i % 2].clone(), Arc::clone(&all));
        tokio::spawn(async move {
            // Another's lock may hide what is left for a moment.
            while all.lock().unwrap().len() < COUNT {
                let leased = f.lease_at(now(), 7).await;
                all.lock()
                    .unwrap()
                    .extend(leased.into_iter().map(|leased| leased.execution.id));
            }
        })
    };
    let leased = tokio::time::timeout(LIMIT, join_all((0..8).map(lease))).await;
    assert!(
        leased
            .expect("all are leased")
            .into_iter()
            .all(|done| done.is_ok())
    );
    let all = all.lock().unwrap().clone();
    assert_eq!(all.len(), COUNT, "none twice");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), COUNT);
    replicas[1].store.close().await;
}

pub(crate) async fn racing_cancels_and_reports_agree(f: Fixture) {
    let replicas = replicas(&f).await;
    let tool = f.tool("t").await;
    for round in 0..20 {
        let new = queued(&tool);
        f.execution(&new).await;
        let leased = f.lease_one().await;
        let (id, token, tenant) = (new.id, leased.token, f.id());
        let [one, other] = replicas.clone().map(|f| f.store);
        let cancel = tokio::spawn(async move { one.cancel_execution(tenant, id).await.unwrap() });
        let report = tokio::spawn(async move {
            let error = error("http_status");
            let retry = End::Retry {
                run_at: now(),
                error: &error,
            };
            let end = if round % 2 == 0 {
                End::Final(&succeeded())
            } else {
                retry
            };
            other.end_attempt(id, token, end).await.unwrap()
        });
        let (cancelled, reported) = (cancel.await.unwrap(), report.await.unwrap());
        let now_is = f.get(id).await;
        assert!(now_is.status.is_final(), "{now_is:?}");
        if round % 2 == 0 {
            assert_eq!(now_is, reported);
        } else {
            assert_eq!(now_is.status, ExecutionStatus::Cancelled);
        }
        assert!(cancelled.cancel_requested || cancelled.status.is_final());
        assert_eq!(f.store.list_attempts(tenant, id).await.unwrap().len(), 1);
    }
    replicas[1].store.close().await;
}

pub(crate) async fn racing_posts_with_one_key_make_one_execution(f: Fixture) {
    let replicas = replicas(&f).await;
    let tool = f.tool("t").await;
    let post = |i: usize| {
        let (f, tool) = (replicas[i % 2].clone(), tool.clone());
        tokio::spawn(async move {
            let new = NewExecution {
                idempotency: Some(("k".into(), [1; 32])),
                ..queued(&tool)
            };
            f.store.create_execution(f.id(), &new).await.unwrap()
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
    replicas[1].store.close().await;
}

pub(crate) async fn racing_replays_queue_once(f: Fixture) {
    let tool = f.tool("t").await;
    let new = waited_for(&tool);
    f.execution(&new).await;
    let end = failed(ExecutionStatus::Failed);
    f.store
        .end_attempt(new.id, FIRST_TOKEN, End::Final(&end))
        .await
        .unwrap();
    let replay = |_| {
        let (f, id) = (f.clone(), new.id);
        tokio::spawn(async move {
            f.store
                .replay_execution(f.id(), id, ApiKeyId::new(), 1, true, "d1")
                .await
                .is_ok()
        })
    };
    let won = join_all((0..10).map(replay)).await;
    assert_eq!(won.into_iter().filter(|won| matches!(won, Ok(true))).count(), 1);
}

pub(crate) async fn racing_reapers_decide_each_once(f: Fixture) {
    let replicas = replicas(&f).await;
    let tool = f.tool("t").await;
    for i in 0..30 {
        let new = NewExecution {
            idempotent: i % 2 == 0,
            start: Start::Leased {
                owner: "replica".into(),
                expires_at: after(-5),
            },
            ..waited_for(&tool)
        };
        f.execution(&new).await;
    }
    let count = Arc::new(Mutex::new(Vec::new()));
    let reap = |i: usize| {
        let (f, count) = (replicas[i % 2].clone(), Arc::clone(&count));
        tokio::spawn(async move {
            while count.lock().unwrap().len() < 30 {
                let reaped = f.store.reap_executions(now(), 3).await.unwrap();
                count
                    .lock()
                    .unwrap()
                    .extend(reaped.into_iter().map(|reaped| reaped.id));
            }
        })
    };
    let done = tokio::time::timeout(LIMIT, join_all((0..6).map(reap))).await;
    assert!(
        done.expect("all are decided")
            .into_iter()
            .all(|done| done.is_ok())
    );
    let ids = count.lock().unwrap().clone();
    assert_eq!(ids.len(), 30);
    for id in ids {
        assert_eq!(f.store.list_attempts(f.id(), id).await.unwrap().len(), 1);
    }
    replicas[1].store.close().await;
}
