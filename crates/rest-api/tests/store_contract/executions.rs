use crate::harness::{Fixture, after, assert_error, first, next, now, object};
use domain::{
    ApiKeyId, ExecutionId,
    execution::{Execution, ExecutionError, ExecutionStatus, Outcome},
    tool::Tool,
};
use rest_api::store::{ExecutionFilter, NewExecution, StoreError};
use serde_json::json;

fn new(tool: &Tool) -> NewExecution {
    NewExecution {
        id: ExecutionId::new(),
        tool_id: tool.id,
        tool: tool.spec.name.clone(),
        key_id: ApiKeyId::new(),
        arguments: object(json!({"service": "api", "nul": "\u{0}"})),
        idempotent: false,
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
        lease_owner: "replica-1".into(),
        lease_expires_at: after(30),
    }
}

fn succeeded() -> Outcome {
    Outcome {
        status: ExecutionStatus::Succeeded,
        result: Some(json!({"ok": [true, "\u{0}"]})),
        error: None,
    }
}

async fn get(f: &Fixture, id: ExecutionId) -> Execution {
    f.store.get_execution(f.id(), id).await.unwrap()
}

pub(crate) async fn an_execution_runs_to_its_outcome(f: Fixture) {
    let tool = f.tool("t").await;
    let new = new(&tool);
    let token = f.store.begin_execution(f.id(), &new).await.unwrap();
    let running = get(&f, new.id).await;
    assert_eq!(
        (running.status, running.attempts, running.tool_id),
        (ExecutionStatus::Running, 1, Some(tool.id))
    );
    assert_eq!(
        (&running.arguments, &running.trace_id, running.key_id),
        (&new.arguments, &new.trace_id, new.key_id)
    );
    assert!(running.started_at.is_some() && running.finished_at.is_none());
    assert_error!(f.store.begin_execution(f.id(), &new).await, StoreError::Conflict);

    let done = f
        .store
        .finish_execution(new.id, token, &succeeded())
        .await
        .unwrap();
    assert_eq!(
        (done.status, &done.result, &done.error),
        (ExecutionStatus::Succeeded, &succeeded().result, &None)
    );
    assert!(done.finished_at >= done.started_at);
    assert_eq!(get(&f, new.id).await, done);
    f.store.delete_tool(f.id(), "t").await.unwrap();
    assert_eq!(
        get(&f, new.id).await,
        Execution {
            tool_id: None,
            ..done
        }
    );
    let gone = NewExecution {
        id: ExecutionId::new(),
        ..new
    };
    assert_error!(f.store.begin_execution(f.id(), &gone).await, StoreError::NotFound);
}

pub(crate) async fn executions_are_listed_newest_first(f: Fixture) {
    let (a, b) = (f.tool("a").await, f.tool("b").await);
    let mut made = Vec::new();
    for i in 0..6 {
        let new = new(if i % 3 == 0 { &b } else { &a });
        let token = f.store.begin_execution(f.id(), &new).await.unwrap();
        if i % 2 == 0 {
            f.store
                .finish_execution(new.id, token, &succeeded())
                .await
                .unwrap();
        }
        made.insert(0, new.id);
    }
    let any = ExecutionFilter::default;
    let one = f.store.list_executions(f.id(), &any(), &first(4)).await.unwrap();
    f.store.begin_execution(f.id(), &new(&a)).await.unwrap();
    let two = f
        .store
        .list_executions(f.id(), &any(), &next(&one, 4))
        .await
        .unwrap();
    assert_eq!(two.next_cursor, None);
    let since = one.items[1].created_at;
    let seen: Vec<_> = [one, two]
        .into_iter()
        .flat_map(|page| page.items)
        .map(|e| e.id)
        .collect();
    assert_eq!(seen, made);
    for (filter, expected) in [
        (
            ExecutionFilter {
                tool: Some("b".into()),
                ..any()
            },
            2,
        ),
        (
            ExecutionFilter {
                tool: Some("none".into()),
                ..any()
            },
            0,
        ),
        (
            ExecutionFilter {
                status: Some(ExecutionStatus::Succeeded),
                ..any()
            },
            3,
        ),
        (
            ExecutionFilter {
                status: Some(ExecutionStatus::Running),
                tool: Some("b".into()),
                ..any()
            },
            1,
        ),
        (
            ExecutionFilter {
                created_since: Some(since),
                ..any()
            },
            3,
        ),
    ] {
        let page = f
            .store
            .list_executions(f.id(), &filter, &first(10))
            .await
            .unwrap();
        assert_eq!(page.items.len(), expected, "{filter:?}");
    }
}

pub(crate) async fn a_lost_lease_ends_nothing(f: Fixture) {
    let tool = f.tool("t").await;
    let new = new(&tool);
    let token = f.store.begin_execution(f.id(), &new).await.unwrap();
    assert_error!(
        f.store.renew_lease(new.id, token + 1, after(60)).await,
        StoreError::LeaseLost
    );
    assert_error!(
        f.store.finish_execution(new.id, token + 1, &succeeded()).await,
        StoreError::LeaseLost
    );
    assert_error!(
        f.store.renew_lease(ExecutionId::new(), token, after(60)).await,
        StoreError::LeaseLost
    );

    f.store.renew_lease(new.id, token, after(120)).await.unwrap();
    assert!(
        f.store.reap_executions(after(60), 10).await.unwrap().is_empty(),
        "it was renewed"
    );
    assert_eq!(f.store.reap_executions(after(180), 10).await.unwrap().len(), 1);
    assert_error!(
        f.store.renew_lease(new.id, token, after(240)).await,
        StoreError::LeaseLost
    );
    assert_error!(
        f.store.finish_execution(new.id, token, &succeeded()).await,
        StoreError::LeaseLost
    );
    assert_eq!(get(&f, new.id).await.status, ExecutionStatus::OutcomeUnknown);

    let error = ExecutionError {
        code: "timeout".into(),
        message: "took\0 too long".into(),
    };
    let outcome = Outcome {
        status: ExecutionStatus::Failed,
        result: None,
        error: Some(error),
    };
    let new = self::new(&tool);
    let token = f.store.begin_execution(f.id(), &new).await.unwrap();
    let failed = f.store.finish_execution(new.id, token, &outcome).await.unwrap();
    assert_eq!(
        failed.error.map(|e| (e.code, e.message)),
        Some(("timeout".into(), "took too long".into()))
    );
    assert_error!(
        f.store.finish_execution(new.id, token, &succeeded()).await,
        StoreError::LeaseLost
    );
}

pub(crate) async fn only_what_is_safe_counts_as_failed(f: Fixture) {
    let tool = f.tool("t").await;
    let safe = NewExecution {
        idempotent: true,
        lease_expires_at: after(-20),
        ..new(&tool)
    };
    let unsafe_ = NewExecution {
        lease_expires_at: after(-10),
        ..new(&tool)
    };
    let alive = new(&tool);
    for new in [&safe, &unsafe_, &alive] {
        f.store.begin_execution(f.id(), new).await.unwrap();
    }
    let one = f.store.reap_executions(now(), 1).await.unwrap();
    assert_eq!(one, [("t".to_owned(), ExecutionStatus::Failed)]);
    let two = f.store.reap_executions(now(), 10).await.unwrap();
    assert_eq!(two, [("t".to_owned(), ExecutionStatus::OutcomeUnknown)]);
    assert!(f.store.reap_executions(now(), 10).await.unwrap().is_empty());
    for (id, status) in [
        (safe.id, ExecutionStatus::Failed),
        (unsafe_.id, ExecutionStatus::OutcomeUnknown),
    ] {
        let ended = get(&f, id).await;
        assert_eq!(
            (ended.status, ended.error.unwrap().code),
            (status, "worker_lost".into())
        );
        assert!(ended.finished_at.is_some());
    }
    assert_eq!(get(&f, alive.id).await.status, ExecutionStatus::Running);
}

pub(crate) async fn old_executions_are_purged(f: Fixture) {
    let tool = f.tool("t").await;
    for _ in 0..3 {
        let new = new(&tool);
        let token = f.store.begin_execution(f.id(), &new).await.unwrap();
        f.store
            .finish_execution(new.id, token, &succeeded())
            .await
            .unwrap();
    }
    f.store.begin_execution(f.id(), &new(&tool)).await.unwrap();
    assert_eq!(f.store.purge_executions(after(-60), 10).await.unwrap(), 0);
    assert_eq!(f.store.purge_executions(after(60), 2).await.unwrap(), 2);
    assert_eq!(f.store.purge_executions(after(60), 2).await.unwrap(), 1);
    let left = f
        .store
        .list_executions(f.id(), &ExecutionFilter::default(), &first(10))
        .await
        .unwrap();
    assert_eq!(left.items.len(), 1, "what runs stays");
}

pub(crate) async fn another_tenants_executions_do_not_exist(f: Fixture) {
    let tool = f.tool("t").await;
    let mine = new(&tool);
    f.store.begin_execution(f.id(), &mine).await.unwrap();
    let stranger = f.stranger.id;
    assert_error!(
        f.store.get_execution(stranger, mine.id).await,
        StoreError::NotFound
    );
    let all = f
        .store
        .list_executions(stranger, &ExecutionFilter::default(), &first(10))
        .await
        .unwrap();
    assert!(all.items.is_empty());
    assert_error!(
        f.store.begin_execution(stranger, &new(&tool)).await,
        StoreError::NotFound
    );
}
