use crate::harness::{
    Fixture, after, assert_error, error, failed, first, next, now, queued, succeeded, waited_for,
};
use domain::{
    ApiKeyId, ExecutionId, ScheduleId,
    execution::{Execution, ExecutionStatus},
};
use rest_api::store::{End, ExecutionFilter, FIRST_TOKEN, Made, NewExecution, Start, StoreError};

pub(crate) async fn an_execution_runs_to_its_outcome(f: Fixture) {
    let tool = f.tool("t").await;
    let new = waited_for(&tool);
    let running = f.execution(&new).await;
    assert_eq!(f.get(new.id).await, running, "as it was said to be");
    assert_eq!(
        (running.status, running.attempts, running.tool_id),
        (ExecutionStatus::Running, 1, Some(tool.id))
    );
    assert_eq!(
        (
            &running.arguments,
            &running.trace_id,
            running.key_id,
            &running.digest
        ),
        (&new.arguments, &new.trace_id, new.key_id, &new.digest)
    );
    assert!(running.started_at.is_some() && running.finished_at.is_none());
    assert_error!(f.store.create_execution(f.id(), &new).await, StoreError::Conflict);

    let end = End::Final(&succeeded());
    let done = f.store.end_attempt(new.id, FIRST_TOKEN, end).await.unwrap();
    assert_eq!(
        (done.status, &done.result, &done.error),
        (ExecutionStatus::Succeeded, &succeeded().result, &None)
    );
    assert!(done.finished_at >= done.started_at);
    assert_eq!(f.get(new.id).await, done);
    f.store.delete_tool(f.id(), "t").await.unwrap();
    assert_eq!(
        f.get(new.id).await,
        Execution {
            tool_id: None,
            ..done
        }
    );
    let gone = NewExecution {
        id: ExecutionId::new(),
        ..new
    };
    assert_error!(
        f.store.create_execution(f.id(), &gone).await,
        StoreError::NotFound
    );
}

pub(crate) async fn each_way_to_begin_is_shown_as_it_is(f: Fixture) {
    let tool = f.tool("t").await;
    let schedule = Some(ScheduleId::new());
    for (start, status, run_at) in [
        (Start::Queued { run_at: after(60) }, ExecutionStatus::Queued, true),
        (Start::AwaitingApproval, ExecutionStatus::AwaitingApproval, false),
    ] {
        let new = NewExecution {
            start,
            priority: -3,
            deadline: Some(after(600)),
            schedule_id: schedule,
            ..queued(&tool)
        };
        let made = f.execution(&new).await;
        assert_eq!(f.get(new.id).await, made);
        assert_eq!(
            (made.status, made.attempts, made.priority, made.started_at),
            (status, 0, -3, None)
        );
        assert_eq!(
            (made.deadline, made.schedule_id, made.run_at.is_some()),
            (new.deadline, schedule, run_at)
        );
    }
}

pub(crate) async fn one_idempotency_key_makes_one_execution(f: Fixture) {
    let tool = f.tool("t").await;
    let keyed = |print: u8| NewExecution {
        idempotency: Some(("k".into(), [print; 32])),
        ..queued(&tool)
    };
    let first_one = f.execution(&keyed(1)).await;
    let leased = f.lease_one().await;
    let Made::Before(again) = f.store.create_execution(f.id(), &keyed(1)).await.unwrap() else {
        panic!("made twice")
    };
    assert_eq!((again.id, again.status), (first_one.id, ExecutionStatus::Running));
    let done = f.succeed(&leased).await;
    let again = f.store.create_execution(f.id(), &keyed(1)).await.unwrap();
    assert_eq!(again, Made::Before(done), "as it stands");
    assert_error!(
        f.store.create_execution(f.id(), &keyed(2)).await,
        StoreError::IdempotencyMismatch
    );
    f.store.delete_tool(f.id(), "t").await.unwrap();
    let again = f.store.create_execution(f.id(), &keyed(1)).await.unwrap();
    assert_eq!(again.into_inner().id, first_one.id, "also when the tool is gone");

    let spec = crate::harness::spec("t");
    let tool = f.store.create_tool(f.stranger.id, &spec, None);
    let theirs = NewExecution {
        idempotency: Some(("k".into(), [1; 32])),
        ..queued(&tool.await.unwrap())
    };
    let made = f.store.create_execution(f.stranger.id, &theirs).await.unwrap();
    assert!(
        matches!(made, Made::New(_)),
        "another tenant's key is another key"
    );
}

pub(crate) async fn executions_are_listed_newest_first(f: Fixture) {
    let (a, b) = (f.tool("a").await, f.tool("b").await);
    let schedule = ScheduleId::new();
    let mut made = Vec::new();
    for i in 0..6 {
        let new = NewExecution {
            schedule_id: (i < 2).then_some(schedule),
            ..waited_for(if i % 3 == 0 { &b } else { &a })
        };
        f.execution(&new).await;
        if i % 2 == 0 {
            let end = End::Final(&succeeded());
            f.store.end_attempt(new.id, FIRST_TOKEN, end).await.unwrap();
        }
        made.insert(0, new.id);
    }
    let any = ExecutionFilter::default;
    let one = f.store.list_executions(f.id(), &any(), &first(4)).await.unwrap();
    f.execution(&waited_for(&a)).await;
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
    let tool = |name: &str| ExecutionFilter {
        tool: Some(name.into()),
        ..any()
    };
    let status = |status| ExecutionFilter {
        status: Some(status),
        ..any()
    };
    let scheduled = ExecutionFilter {
        schedule_id: Some(schedule),
        ..any()
    };
    for (filter, expected) in [
        (tool("b"), 2),
        (tool("none"), 0),
        (status(ExecutionStatus::Succeeded), 3),
        (
            ExecutionFilter {
                tool: Some("b".into()),
                ..status(ExecutionStatus::Running)
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
        (
            ExecutionFilter {
                created_until: Some(since),
                ..any()
            },
            4,
        ),
        (scheduled.clone(), 2),
        (
            ExecutionFilter {
                tool: Some("a".into()),
                ..scheduled.clone()
            },
            1,
        ),
        (
            ExecutionFilter {
                schedule_id: Some(ScheduleId::new()),
                ..any()
            },
            0,
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

pub(crate) async fn old_executions_are_purged_with_their_attempts(f: Fixture) {
    let tool = f.tool("t").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let new = waited_for(&tool);
        f.execution(&new).await;
        let retry = End::Retry {
            run_at: now(),
            error: &error("http_status"),
        };
        f.store.end_attempt(new.id, FIRST_TOKEN, retry).await.unwrap();
        f.succeed(&f.lease_one().await).await;
        ids.push(new.id);
    }
    let open = [waited_for(&tool), queued(&tool)];
    for new in &open {
        f.execution(new).await;
    }
    assert_eq!(f.store.purge_executions(after(-60), 10).await.unwrap(), 0);
    assert_eq!(f.store.purge_executions(after(60), 2).await.unwrap(), 2);
    assert_eq!(f.store.purge_executions(after(60), 2).await.unwrap(), 1);
    for id in ids {
        assert_error!(f.store.list_attempts(f.id(), id).await, StoreError::NotFound);
    }
    let left = f
        .store
        .list_executions(f.id(), &ExecutionFilter::default(), &first(10))
        .await
        .unwrap();
    assert_eq!(left.items.len(), open.len(), "what is open stays");
}

pub(crate) async fn another_tenants_executions_do_not_exist(f: Fixture) {
    let tool = f.tool("t").await;
    let (running, waiting) = (waited_for(&tool), queued(&tool));
    let awaiting = NewExecution {
        start: Start::AwaitingApproval,
        ..queued(&tool)
    };
    for new in [&running, &waiting, &awaiting] {
        f.execution(new).await;
    }
    let dead = waited_for(&tool);
    f.execution(&dead).await;
    let end = failed(ExecutionStatus::Dead);
    f.store
        .end_attempt(dead.id, FIRST_TOKEN, End::Final(&end))
        .await
        .unwrap();
    let stranger = f.stranger.id;
    for id in [running.id, waiting.id, awaiting.id, dead.id] {
        let before = f.get(id).await;
        let by = waiting.key_id;
        let replay = f
            .store
            .replay_execution(stranger, id, ApiKeyId::new(), 1, true, "d1")
            .await;
        assert_error!(replay, StoreError::NotFound);
        let approve = f.store.approve_execution(stranger, id, by, "d1").await;
        assert_error!(approve, StoreError::NotFound);
        assert_error!(f.store.cancel_execution(stranger, id).await, StoreError::NotFound);
        assert_error!(f.store.list_attempts(stranger, id).await, StoreError::NotFound);
        assert_error!(f.store.get_execution(stranger, id).await, StoreError::NotFound);
        assert_eq!(f.get(id).await, before);
    }
    let all = f
        .store
        .list_executions(stranger, &ExecutionFilter::default(), &first(10))
        .await
        .unwrap();
    assert!(all.items.is_empty());
    assert_error!(
        f.store.create_execution(stranger, &queued(&tool)).await,
        StoreError::NotFound
    );
    let state = f.store.queue_state(now()).await.unwrap();
    assert!(state.by_status.iter().all(|(tenant, ..)| tenant == "acme"));
}
