use crate::harness::{Fixture, after, assert_error, error, failed, now, queued, spec, succeeded, waited_for};
use domain::{
    ExecutionId, TenantId, ToolId,
    execution::ExecutionStatus,
    tenant::TenantStatus,
    tool::{Tool, built_in},
};
use rest_api::store::{
    CredentialsChange, End, FIRST_TOKEN, HeldLease, LeaseAsk, Made, NewExecution, Renewed, SealedCredentials,
    Start, StoreError,
};
use std::{collections::BTreeMap, time::Duration};

fn at(priority: i32, tool: &Tool) -> NewExecution {
    NewExecution {
        priority,
        ..queued(tool)
    }
}

pub(crate) async fn a_lease_brings_all_that_running_needs(f: Fixture) {
    let sealed = SealedCredentials {
        key_id: "k1".into(),
        sealed: vec![1, 2, 3],
    };
    let tool = f
        .store
        .create_tool(f.id(), &spec("t"), Some(&sealed))
        .await
        .unwrap();
    let (key, _) = f.key(f.id(), now()).await;
    let new = NewExecution {
        key_id: key.id,
        max_attempts: 4,
        ..queued(&tool)
    };
    f.execution(&new).await;
    let leased = f.lease_one().await;
    assert_eq!(leased.execution, f.get(new.id).await);
    assert_eq!(
        (leased.execution.status, leased.execution.attempts, leased.token),
        (ExecutionStatus::Running, 1, FIRST_TOKEN)
    );
    assert_eq!(
        (leased.tenant.as_str(), &leased.tool, &leased.credentials),
        ("acme", &Some(tool.clone()), &Some(sealed))
    );
    assert_eq!(
        (
            leased.key_active,
            &leased.traceparent,
            leased.max_attempts,
            leased.idempotent
        ),
        (true, &new.traceparent, 4, true)
    );
    let held = f.store.leased_execution(new.id, leased.token).await.unwrap();
    assert_eq!((held.execution, held.tool), (leased.execution, leased.tool));
    let other = f.store.leased_execution(new.id, leased.token + 1).await;
    assert_error!(other, StoreError::LeaseLost);
    assert!(f.lease_at(now(), 10).await.is_empty(), "it is leased once");

    // What has changed by the time of the next lease.
    let hand_back = End::HandBack { run_at: now() };
    f.store
        .end_attempt(new.id, leased.token, hand_back)
        .await
        .unwrap();
    f.store.revoke_key(f.id(), key.id, now()).await.unwrap();
    let keep = CredentialsChange::Remove;
    f.store
        .update_tool(f.id(), &spec("t"), &keep, None)
        .await
        .unwrap();
    let leased = f.lease_one().await;
    assert!(!leased.key_active && leased.credentials.is_none() && leased.token == FIRST_TOKEN + 1);
    assert_eq!(leased.tool.map(|tool| tool.version), Some(2));
    let hand_back = End::HandBack { run_at: now() };
    f.store
        .end_attempt(new.id, leased.token, hand_back)
        .await
        .unwrap();
    f.store.delete_tool(f.id(), "t").await.unwrap();
    assert_eq!(f.lease_one().await.tool, None);
}

/// A tool that is in no table.
fn unregistered(name: &str) -> Tool {
    Tool {
        id: ToolId::new(),
        tenant_id: TenantId::new(),
        spec: spec(name),
        has_credentials: false,
        version: 1,
        created_at: now(),
        updated_at: now(),
    }
}

pub(crate) async fn the_products_own_tools_are_queued_without_a_registration(f: Fixture) {
    let (key, _) = f.key(f.id(), now()).await;
    let own = |name: &str| NewExecution {
        id: ExecutionId::new(),
        tool_id: built_in::id("query_logs"),
        tool: name.into(),
        key_id: key.id,
        idempotency: Some(("once".into(), [7; 32])),
        ..queued(&unregistered(name))
    };
    // Neither another tool's name nor a name alone stands for one of them.
    let named = f.store.create_execution(f.id(), &own("weather")).await;
    assert_error!(named, StoreError::NotFound);
    let stranger = NewExecution {
        tool_id: ToolId::new(),
        ..own("query_logs")
    };
    let stranger = f.store.create_execution(f.id(), &stranger).await;
    assert_error!(stranger, StoreError::NotFound);

    let new = own("query_logs");
    let made = f.execution(&new).await;
    assert_eq!(made.tool_id, Some(new.tool_id));
    assert_eq!(f.get(new.id).await, made);
    let again = NewExecution {
        id: ExecutionId::new(),
        ..new.clone()
    };
    let again = f.store.create_execution(f.id(), &again).await.unwrap();
    assert_eq!(again, Made::Before(made));

    let leased = f.lease_one().await;
    assert_eq!(leased.execution.tool_id, Some(new.tool_id));
    assert_eq!(
        (&leased.tool, leased.idempotent, leased.key_active),
        (&None, true, true)
    );
    assert_eq!(
        (leased.key_name.as_str(), &leased.key_scopes),
        ("a key", &key.scopes)
    );
    let held = f.store.leased_execution(new.id, leased.token).await.unwrap();
    assert_eq!(
        (held.key_name, held.key_scopes),
        (leased.key_name, leased.key_scopes)
    );
}

pub(crate) async fn a_suspended_tenants_keys_are_not_active(f: Fixture) {
    let tool = f.tool("t").await;
    let (key, _) = f.key(f.id(), now()).await;
    let new = NewExecution {
        key_id: key.id,
        ..queued(&tool)
    };
    f.execution(&new).await;
    f.store
        .set_tenant_status("acme", TenantStatus::Suspended)
        .await
        .unwrap();
    assert!(!f.lease_one().await.key_active);
    f.store
        .set_tenant_status("acme", TenantStatus::Active)
        .await
        .unwrap();
    f.execution(&queued(&tool)).await;
    assert!(!f.lease_one().await.key_active, "a key that nobody knows");
}

pub(crate) async fn the_best_of_a_tenant_comes_first(f: Fixture) {
    let tool = f.tool("t").await;
    let late = NewExecution {
        start: Start::Queued { run_at: after(-10) },
        ..queued(&tool)
    };
    let news = [at(0, &tool), late, at(-1, &tool), at(5, &tool), at(5, &tool)];
    for new in &news {
        f.execution(new).await;
    }
    let mut order = Vec::new();
    while let Some(leased) = f.lease_at(now(), 1).await.pop() {
        order.push(leased.execution.id);
    }
    assert_eq!(order, [3, 4, 1, 0, 2].map(|i: usize| news[i].id));
}

/// Makes `count` executions of a tenant of that name, which is made.
async fn tenant_with(f: &Fixture, name: &str, count: usize) {
    let tenant = f.store.create_tenant(name).await.unwrap();
    let tool = f.store.create_tool(tenant.id, &spec("t"), None).await.unwrap();
    for _ in 0..count {
        f.store.create_execution(tenant.id, &queued(&tool)).await.unwrap();
    }
}

async fn lease_by_tenant(f: &Fixture, limit: u32, per_tenant: u32) -> BTreeMap<String, usize> {
    let ask = LeaseAsk {
        owner: "w",
        limit,
        per_tenant,
        now: now(),
        expires_at: after(60),
    };
    let mut by_tenant = BTreeMap::new();
    for leased in f.store.lease_executions(&ask).await.unwrap() {
        *by_tenant.entry(leased.tenant).or_default() += 1;
    }
    by_tenant
}

pub(crate) async fn tenants_take_turns(f: Fixture) {
    let counts = |pairs: &[(&str, usize)]| {
        pairs
            .iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect::<BTreeMap<_, _>>()
    };
    for (name, count) in [("a", 40), ("b", 3), ("c", 2), ("d", 40)] {
        tenant_with(&f, name, count).await;
    }
    assert_eq!(
        lease_by_tenant(&f, 8, 1000).await,
        counts(&[("a", 2), ("b", 2), ("c", 2), ("d", 2)])
    );
    assert_eq!(
        lease_by_tenant(&f, 9, 1000).await,
        counts(&[("a", 4), ("b", 1), ("d", 4)])
    );
    // One at a time, nobody is served twice before the other one was.
    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.extend(lease_by_tenant(&f, 1, 1000).await.into_keys());
    }
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    assert_eq!(
        lease_by_tenant(&f, 100, 1000).await,
        counts(&[("a", 31), ("d", 31)])
    );
    assert!(lease_by_tenant(&f, 100, 1000).await.is_empty());
}

pub(crate) async fn a_tenant_runs_no_more_than_its_share(f: Fixture) {
    tenant_with(&f, "greedy", 30).await;
    tenant_with(&f, "modest", 3).await;
    let greedy = f.store.tenant_by_name("greedy").await.unwrap().id;
    let tool = f.store.get_tool(greedy, "t").await.unwrap();
    // A caller that waits takes of the share, too.
    f.store
        .create_execution(greedy, &waited_for(&tool))
        .await
        .unwrap();
    let of = |name: &str, n: usize| BTreeMap::from([(name.to_owned(), n)]);
    let both = lease_by_tenant(&f, 100, 5).await;
    assert_eq!((both["greedy"], both["modest"]), (4, 3));
    assert!(
        lease_by_tenant(&f, 100, 5).await.is_empty(),
        "the share is used up"
    );
    assert_eq!(lease_by_tenant(&f, 100, 7).await, of("greedy", 2));
    // Tenants without room are passed over, not waited for.
    for name in ["e", "f"] {
        tenant_with(&f, name, 1).await;
        assert_eq!(lease_by_tenant(&f, 1, 7).await, of(name, 1));
    }
    assert!(f.lease_at(now(), 0).await.is_empty());
    assert!(lease_by_tenant(&f, 10, 0).await.is_empty());
}

pub(crate) async fn a_retry_waits_for_its_time(f: Fixture) {
    let tool = f.tool("t").await;
    let new = NewExecution {
        max_attempts: 3,
        priority: 9,
        ..queued(&tool)
    };
    f.execution(&new).await;
    let leased = f.lease_one().await;
    let run_at = after(60);
    let retry = End::Retry {
        run_at,
        error: &error("http_status"),
    };
    let waiting = f.store.end_attempt(new.id, leased.token, retry).await.unwrap();
    assert_eq!(
        (waiting.status, waiting.attempts, waiting.run_at),
        (ExecutionStatus::Queued, 1, Some(run_at))
    );
    assert_eq!(
        waiting.error.clone().map(|e| (e.code, e.message)),
        Some(("http_status".into(), "it answered 503".into()))
    );
    assert_eq!(f.get(new.id).await, waiting);
    f.execution(&queued(&tool)).await;
    let due = f.lease_at(after(30), 10).await;
    assert_eq!(due.len(), 1, "the other one");
    assert_ne!(due[0].execution.id, new.id);
    let again = f.lease_at(run_at, 10).await;
    assert_eq!(again.len(), 1);
    assert_eq!(
        (
            again[0].token,
            again[0].execution.attempts,
            &again[0].execution.error
        ),
        (FIRST_TOKEN + 1, 2, &None)
    );
    assert_eq!(
        again[0].execution.started_at, waiting.started_at,
        "the first start"
    );
    let run_at = after(1000);
    let later = NewExecution {
        start: Start::Queued { run_at },
        ..queued(&tool)
    };
    f.execution(&later).await;
    let moment = Duration::from_micros(1);
    assert!(f.lease_at(run_at - moment, 10).await.is_empty());
    assert_eq!(f.lease_at(run_at, 10).await.len(), 1);
}

pub(crate) async fn what_is_too_late_is_not_begun(f: Fixture) {
    let tool = f.tool("t").await;
    let new = NewExecution {
        deadline: Some(after(60)),
        ..queued(&tool)
    };
    f.execution(&new).await;
    assert!(f.lease_at(after(61), 10).await.is_empty());
    assert_eq!(f.lease_at(after(5), 10).await.len(), 1);
}

pub(crate) async fn every_attempt_is_written_down(f: Fixture) {
    let tool = f.tool("t").await;
    let new = NewExecution {
        max_attempts: 3,
        ..waited_for(&tool)
    };
    f.execution(&new).await;
    assert!(f.store.list_attempts(f.id(), new.id).await.unwrap().is_empty());
    let retry = End::Retry {
        run_at: now(),
        error: &error("http_status"),
    };
    f.store.end_attempt(new.id, FIRST_TOKEN, retry).await.unwrap();
    let second = f.lease_one().await;
    let handed = f
        .store
        .end_attempt(new.id, second.token, End::HandBack { run_at: now() })
        .await
        .unwrap();
    assert_eq!((handed.attempts, handed.error), (1, None), "it was none");
    let third = f.lease_one().await;
    let dead = failed(ExecutionStatus::Dead);
    let dead = f
        .store
        .end_attempt(new.id, third.token, End::Final(&dead))
        .await
        .unwrap();
    assert_eq!((dead.status, dead.attempts), (ExecutionStatus::Dead, 2));
    let attempts = f.store.list_attempts(f.id(), new.id).await.unwrap();
    let told: Vec<_> = attempts
        .iter()
        .map(|a| (a.number, a.owner.as_str(), a.outcome.as_str(), a.error.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (1, "replica-1", "retried", true),
            (2, "worker-1", "handed_back", false),
            (3, "worker-1", "dead", true),
        ]
    );
    assert!(attempts.iter().all(|a| a.started_at <= a.finished_at));
    assert_eq!(attempts[2].finished_at, dead.finished_at.unwrap());
    let none = f.store.list_attempts(f.id(), ExecutionId::new()).await;
    assert_error!(none, StoreError::NotFound);
}

pub(crate) async fn leases_are_renewed_together(f: Fixture) {
    let tool = f.tool("t").await;
    for _ in 0..3 {
        f.execution(&queued(&tool)).await;
    }
    let leased = f.lease_at(now(), 3).await;
    let held: Vec<_> = leased
        .iter()
        .enumerate()
        .map(|(i, leased)| HeldLease {
            id: leased.execution.id,
            token: leased.token + i64::from(i == 2),
            progress: (i == 0).then(|| "3 of\u{0} 7 'parts'".into()),
        })
        .collect();
    let asked = f.store.cancel_execution(f.id(), held[1].id).await.unwrap();
    assert!(asked.cancel_requested && asked.status == ExecutionStatus::Running);
    let renewed = f.store.renew_leases(&held, after(300)).await.unwrap();
    let told = |i: usize, lost, cancel| Renewed {
        id: held[i].id,
        lost,
        cancel,
    };
    assert_eq!(
        renewed,
        [told(0, false, false), told(1, false, true), told(2, true, false)]
    );
    assert_eq!(
        f.get(held[0].id).await.progress.as_deref(),
        Some("3 of 7 'parts'")
    );
    let quiet = HeldLease {
        progress: None,
        ..held[0].clone()
    };
    f.store.renew_leases(&[quiet], after(300)).await.unwrap();
    assert!(
        f.get(held[0].id).await.progress.is_some(),
        "it stays until there is news"
    );
    let lost = f.store.reap_executions(after(200), 10).await.unwrap();
    assert_eq!(lost.len(), 1, "the one that was not renewed");
    assert_eq!(f.succeed(&leased[0]).await.progress, None);
    assert!(f.store.renew_leases(&[], after(1)).await.unwrap().is_empty());
    let late = f.store.renew_leases(&held[..1], after(300)).await.unwrap();
    assert!(late[0].lost, "it is over");
}

pub(crate) async fn a_late_report_is_refused(f: Fixture) {
    let tool = f.tool("t").await;
    let new = queued(&tool);
    f.execution(&new).await;
    let first = f.lease_one().await;
    let reaped = f.store.reap_executions(after(61), 10).await.unwrap();
    assert_eq!(reaped.len(), 1);
    let end = End::Final(&succeeded());
    let late = f.store.end_attempt(new.id, first.token, end).await;
    assert_error!(late, StoreError::LeaseLost);
    let second = f.lease_at(after(62), 10).await.remove(0);
    let late = f.store.end_attempt(new.id, first.token, end).await;
    assert_error!(late, StoreError::LeaseLost);
    let unknown = f.store.end_attempt(ExecutionId::new(), 1, end).await;
    assert_error!(unknown, StoreError::LeaseLost);
    f.succeed(&second).await;
    let twice = f.store.end_attempt(new.id, second.token, end).await;
    assert_error!(twice, StoreError::LeaseLost);
    let outcomes: Vec<_> = f.store.list_attempts(f.id(), new.id).await.unwrap();
    let outcomes: Vec<_> = outcomes.into_iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, ["lost", "succeeded"]);
}
