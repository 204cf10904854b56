use crate::harness::{Fixture, after, assert_error, error, failed, now, queued, succeeded, waited_for};
use domain::{
    ApiKeyId, ExecutionId,
    execution::{Execution, ExecutionStatus},
    tool::{Tool, ToolSpec},
};
use rest_api::store::{
    CredentialsChange, End, FIRST_TOKEN, MAX_LOST, NewExecution, Reaped, Start, StoreError,
};

fn code(execution: &Execution) -> &str {
    execution.error.as_ref().map_or("", |error| &error.code)
}

fn awaiting(tool: &Tool) -> NewExecution {
    NewExecution {
        start: Start::AwaitingApproval,
        deadline: Some(after(600)),
        ..queued(tool)
    }
}

async fn cancel(f: &Fixture, id: ExecutionId) -> Execution {
    f.store.cancel_execution(f.id(), id).await.unwrap()
}

pub(crate) async fn an_execution_is_cancelled_wherever_it_stands(f: Fixture) {
    let tool = f.tool("t").await;
    for new in [queued(&tool), awaiting(&tool)] {
        f.execution(&new).await;
        let cancelled = cancel(&f, new.id).await;
        assert_eq!(
            (cancelled.status, code(&cancelled)),
            (ExecutionStatus::Cancelled, "cancelled")
        );
        assert!(cancelled.finished_at.is_some());
        assert_eq!(cancel(&f, new.id).await, cancelled, "what is over stays");
    }
    assert!(f.lease_at(now(), 10).await.is_empty());

    // What runs is told; what its worker reports then counts.
    let new = queued(&tool);
    f.execution(&new).await;
    let leased = f.lease_one().await;
    let asked = cancel(&f, new.id).await;
    assert!(asked.cancel_requested && asked.status == ExecutionStatus::Running);
    let done = f.succeed(&leased).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded);
    assert_eq!(cancel(&f, new.id).await, done);

    // It is not tried again, in whichever order report and wish arrive.
    let new = queued(&tool);
    f.execution(&new).await;
    let leased = f.lease_one().await;
    cancel(&f, new.id).await;
    let retry = End::Retry {
        run_at: now(),
        error: &error("http_status"),
    };
    let ended = f.store.end_attempt(new.id, leased.token, retry).await.unwrap();
    assert_eq!(
        (ended.status, code(&ended)),
        (ExecutionStatus::Cancelled, "cancelled")
    );
    assert!(ended.finished_at.is_some());
    let missing = f.store.cancel_execution(f.id(), ExecutionId::new()).await;
    assert_error!(missing, StoreError::NotFound);
}

pub(crate) async fn what_ended_badly_is_replayed(f: Fixture) {
    let tool = f.tool("t").await;
    for status in [
        ExecutionStatus::Failed,
        ExecutionStatus::Cancelled,
        ExecutionStatus::Dead,
        ExecutionStatus::OutcomeUnknown,
    ] {
        let new = NewExecution {
            deadline: Some(after(60)),
            ..waited_for(&tool)
        };
        f.execution(&new).await;
        cancel(&f, new.id).await;
        let end = End::Final(&failed(status));
        f.store.end_attempt(new.id, FIRST_TOKEN, end).await.unwrap();
        let by = ApiKeyId::new();
        let again = f.store.replay_execution(f.id(), new.id, by, 2, true, "d2").await;
        let again = again.unwrap();
        assert_eq!(again, f.get(new.id).await);
        assert_eq!(
            (again.key_id, again.approved_by),
            (by, None),
            "who replays asks for it"
        );
        assert_eq!(
            (again.id, again.status, again.attempts, again.digest.as_str()),
            (new.id, ExecutionStatus::Queued, 1, "d2")
        );
        assert!(again.error.is_none() && again.finished_at.is_none() && again.deadline.is_none());
        assert!(!again.cancel_requested && again.run_at.is_some());
        let refused = f
            .store
            .replay_execution(f.id(), new.id, ApiKeyId::new(), 2, true, "d2")
            .await;
        assert_error!(refused, StoreError::Conflict);
        let leased = f.lease_one().await;
        assert_eq!(
            (
                leased.token,
                leased.execution.attempts,
                leased.max_attempts,
                leased.idempotent
            ),
            (FIRST_TOKEN + 1, 2, 3, true)
        );
        f.succeed(&leased).await;
        let refused = f
            .store
            .replay_execution(f.id(), new.id, ApiKeyId::new(), 2, true, "d2")
            .await;
        assert_error!(refused, StoreError::Conflict);
        let attempts = f.store.list_attempts(f.id(), new.id).await.unwrap();
        assert_eq!(
            attempts.iter().map(|a| a.outcome.as_str()).collect::<Vec<_>>(),
            [status.as_str(), "succeeded"]
        );
    }
    let missing = f
        .store
        .replay_execution(f.id(), ExecutionId::new(), ApiKeyId::new(), 1, true, "d")
        .await;
    assert_error!(missing, StoreError::NotFound);
}

pub(crate) async fn an_approval_is_for_what_was_shown(f: Fixture) {
    let tool = f.tool("t").await;
    let new = awaiting(&tool);
    f.execution(&new).await;
    assert!(f.lease_at(now(), 10).await.is_empty(), "nothing runs before");
    let by = ApiKeyId::new();
    let other = f.store.approve_execution(f.id(), new.id, by, "d2").await;
    assert_error!(other, StoreError::Conflict);
    let approved = f.store.approve_execution(f.id(), new.id, by, "d1").await.unwrap();
    assert_eq!(
        (approved.status, approved.approved_by),
        (ExecutionStatus::Queued, Some(by))
    );
    let again = f.store.approve_execution(f.id(), new.id, by, "d1").await;
    assert_error!(again, StoreError::Conflict);
    let leased = f.lease_one().await;
    assert_eq!(leased.execution.id, new.id);
    assert_eq!(
        Some(leased.due),
        approved.run_at,
        "the person's time is not the queue's"
    );
    let missing = f
        .store
        .approve_execution(f.id(), ExecutionId::new(), by, "d1")
        .await;
    assert_error!(missing, StoreError::NotFound);
}

pub(crate) async fn lost_leases_end_as_is_safe(f: Fixture) {
    let tool = f.tool("t").await;
    let waited = |seconds, idempotent| NewExecution {
        start: Start::Leased {
            owner: "replica-1".into(),
            expires_at: after(seconds),
        },
        idempotent,
        ..waited_for(&tool)
    };
    let (safe, not_safe, alive) = (waited(-40, true), waited(-30, false), waited(300, true));
    let (wished, doubtful) = (waited(-20, true), waited(-10, false));
    for new in [&safe, &not_safe, &alive, &wished, &doubtful] {
        f.execution(new).await;
    }
    cancel(&f, wished.id).await;
    cancel(&f, doubtful.id).await;
    let one = f.store.reap_executions(now(), 1).await.unwrap();
    let created_at = f.get(safe.id).await.created_at;
    assert_eq!(
        one,
        [Reaped {
            id: safe.id,
            tool: "t".into(),
            status: ExecutionStatus::Queued,
            created_at,
            error_code: Some("worker_lost".into()),
        }]
    );
    assert_eq!(f.store.reap_executions(now(), 10).await.unwrap().len(), 3);
    assert!(f.store.reap_executions(now(), 10).await.unwrap().is_empty());
    for (new, status, why) in [
        (&safe, ExecutionStatus::Queued, "worker_lost"),
        (&not_safe, ExecutionStatus::OutcomeUnknown, "worker_lost"),
        (&alive, ExecutionStatus::Running, ""),
        (&wished, ExecutionStatus::Cancelled, "cancelled"),
        (&doubtful, ExecutionStatus::OutcomeUnknown, "worker_lost"),
    ] {
        let execution = f.get(new.id).await;
        assert_eq!((execution.status, code(&execution)), (status, why));
        assert_eq!(execution.finished_at.is_some(), status.is_final());
        let attempts = f.store.list_attempts(f.id(), new.id).await.unwrap();
        let lost = usize::from(status != ExecutionStatus::Running);
        assert_eq!(attempts.len(), lost);
        assert!(
            attempts
                .iter()
                .all(|a| a.outcome == "lost" && a.owner == "replica-1")
        );
    }
    assert_eq!(f.lease_one().await.execution.id, safe.id, "at once");
}

/// What was safe to repeat when it was asked for is not when the tool has become another since.
pub(crate) async fn a_tool_that_may_not_run_twice_any_more_does_not(f: Fixture) {
    let tool = f.tool("t").await;
    let new = NewExecution {
        idempotent: true,
        ..queued(&tool)
    };
    f.execution(&new).await;
    let changed = ToolSpec {
        idempotent: false,
        read_only: false,
        ..tool.spec.clone()
    };
    f.store
        .update_tool(f.id(), &changed, &CredentialsChange::Keep, None)
        .await
        .unwrap();
    let leased = f.lease_one().await;
    assert!(!leased.idempotent, "it runs as the tool is now");
    let held = f.store.leased_execution(new.id, leased.token).await.unwrap();
    assert!(!held.idempotent, "and a retry is decided by that");
    let reaped = f.store.reap_executions(after(120), 10).await.unwrap();
    assert_eq!(reaped[0].status, ExecutionStatus::OutcomeUnknown);
}

pub(crate) async fn what_loses_every_worker_is_given_up(f: Fixture) {
    let tool = f.tool("t").await;
    let new = queued(&tool);
    f.execution(&new).await;
    for lost in 1..=MAX_LOST {
        assert_eq!(f.lease_one().await.execution.attempts, lost);
        let reaped = f.store.reap_executions(after(100), 10).await.unwrap();
        let status = if lost < MAX_LOST {
            ExecutionStatus::Queued
        } else {
            ExecutionStatus::Dead
        };
        assert_eq!(reaped.iter().map(|r| r.status).collect::<Vec<_>>(), [status]);
    }
    let dead = f.get(new.id).await;
    assert_eq!((code(&dead), dead.attempts), ("worker_lost", MAX_LOST));
    f.store
        .replay_execution(f.id(), new.id, ApiKeyId::new(), 1, true, "d1")
        .await
        .unwrap();
    f.lease_one().await;
    let reaped = f.store.reap_executions(after(100), 10).await.unwrap();
    assert_eq!(reaped[0].status, ExecutionStatus::Queued, "it counts anew");
}

pub(crate) async fn what_does_not_begin_in_time_has_failed(f: Fixture) {
    let tool = f.tool("t").await;
    let (late, unapproved) = (
        NewExecution {
            deadline: Some(after(600)),
            ..queued(&tool)
        },
        awaiting(&tool),
    );
    let running = NewExecution {
        deadline: Some(after(600)),
        ..waited_for(&tool)
    };
    let patient = queued(&tool);
    for new in [&late, &unapproved, &patient] {
        f.execution(new).await;
    }
    f.execution(&running).await;
    let held = [rest_api::store::HeldLease {
        id: running.id,
        token: FIRST_TOKEN,
        progress: None,
    }];
    f.store.renew_leases(&held, after(5000)).await.unwrap();
    assert!(f.store.reap_executions(after(60), 10).await.unwrap().is_empty());
    let reaped = f.store.reap_executions(after(700), 10).await.unwrap();
    assert_eq!(reaped.len(), 2);
    assert!(reaped.iter().all(|r| r.status == ExecutionStatus::Failed));
    for (new, why) in [(&late, "deadline_exceeded"), (&unapproved, "approval_expired")] {
        let execution = f.get(new.id).await;
        assert_eq!(
            (execution.status, code(&execution)),
            (ExecutionStatus::Failed, why)
        );
        assert!(f.store.list_attempts(f.id(), new.id).await.unwrap().is_empty());
    }
    assert_eq!(f.get(running.id).await.status, ExecutionStatus::Running);
    assert_eq!(f.get(patient.id).await.status, ExecutionStatus::Queued);
}

pub(crate) async fn what_there_is_to_do_is_counted(f: Fixture) {
    assert_eq!(f.store.queue_state(now()).await.unwrap(), Default::default());
    let tool = f.tool("t").await;
    let due = after(-60);
    let waiting = |run_at| NewExecution {
        start: Start::Queued { run_at },
        ..queued(&tool)
    };
    f.execution(&waiting(due)).await;
    f.execution(&waiting(after(-30))).await;
    f.execution(&waiting(after(600))).await;
    f.execution(&awaiting(&tool)).await;
    let (dead, done) = (waited_for(&tool), waited_for(&tool));
    for (new, outcome) in [(&dead, failed(ExecutionStatus::Dead)), (&done, succeeded())] {
        f.execution(new).await;
        let end = End::Final(&outcome);
        f.store.end_attempt(new.id, FIRST_TOKEN, end).await.unwrap();
    }
    f.execution(&waited_for(&tool)).await;
    let state = f.store.queue_state(now()).await.unwrap();
    let acme = |status, n| ("acme".to_owned(), status, n);
    assert_eq!(
        state.by_status,
        [
            acme(ExecutionStatus::AwaitingApproval, 1),
            acme(ExecutionStatus::Dead, 1),
            acme(ExecutionStatus::Queued, 3),
            acme(ExecutionStatus::Running, 1),
        ]
    );
    assert_eq!(state.oldest_queued, Some(due));
    f.lease_at(now(), 10).await;
    assert_eq!(f.store.queue_state(now()).await.unwrap().oldest_queued, None);
    let later = f.store.queue_state(after(700)).await.unwrap();
    assert!(later.oldest_queued.is_some(), "the third one is due by then");
}
