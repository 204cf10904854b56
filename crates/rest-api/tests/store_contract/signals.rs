use crate::harness::{Fixture, after, error, now, on_postgres, queued, succeeded, waited_for};
use domain::ExecutionId;
use rest_api::store::{End, FIRST_TOKEN, HeldLease, Made, NewExecution, Signal, Start, connect};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(30);

async fn hear(signals: &mut Receiver<Signal>, wanted: Signal) {
    let heard = async { while signals.recv().await.expect("the store lives") != wanted {} };
    let heard = tokio::time::timeout(LIMIT, heard).await;
    heard.unwrap_or_else(|_| panic!("{wanted:?} did not come"));
}

pub(crate) async fn changes_are_told(f: Fixture) {
    let tool = f.tool("t").await;
    let mut signals = f.store.signals();
    // On PostgreSQL, that others can be heard is told as well.
    let settled = queued(&tool);
    f.execution(&settled).await;
    hear(&mut signals, Signal::Queued).await;
    f.store.cancel_execution(f.id(), settled.id).await.unwrap();
    hear(&mut signals, Signal::Changed(settled.id)).await;

    let new = waited_for(&tool);
    f.execution(&new).await;
    let held = |progress: Option<&str>| HeldLease {
        id: new.id,
        token: FIRST_TOKEN,
        progress: progress.map(Into::into),
    };
    f.store.renew_leases(&[held(None)], after(60)).await.unwrap();
    f.store
        .renew_leases(&[held(Some("1/2"))], after(60))
        .await
        .unwrap();
    hear(&mut signals, Signal::Changed(new.id)).await;
    f.store.cancel_execution(f.id(), new.id).await.unwrap();
    hear(&mut signals, Signal::Cancel(new.id)).await;
    let end = End::Final(&succeeded());
    f.store.end_attempt(new.id, FIRST_TOKEN, end).await.unwrap();
    hear(&mut signals, Signal::Changed(new.id)).await;

    let new = NewExecution {
        start: Start::AwaitingApproval,
        ..queued(&tool)
    };
    f.execution(&new).await;
    f.store
        .approve_execution(f.id(), new.id, new.key_id, "d1")
        .await
        .unwrap();
    hear(&mut signals, Signal::Changed(new.id)).await;
    hear(&mut signals, Signal::Queued).await;
    let leased = f.lease_one().await;
    let retry = End::Retry {
        run_at: now(),
        error: &error("http_status"),
    };
    f.store.end_attempt(new.id, leased.token, retry).await.unwrap();
    hear(&mut signals, Signal::Queued).await;
    let leased = f.lease_one().await;
    f.store.reap_executions(after(100), 10).await.unwrap();
    hear(&mut signals, Signal::Changed(leased.execution.id)).await;
    hear(&mut signals, Signal::Queued).await;
}

/// What another replica hears up to, and without, `Queued`.
async fn until_queued(signals: &mut Receiver<Signal>) -> Vec<Signal> {
    let heard = async {
        let mut heard = Vec::new();
        loop {
            match signals.recv().await.expect("the store lives") {
                Signal::Queued => break heard,
                signal => heard.push(signal),
            }
        }
    };
    tokio::time::timeout(LIMIT, heard).await.expect("it is told of")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_hear_of_each_other() {
    on_postgres(async |f: Fixture| {
        let other = connect(&f.settings).await.unwrap();
        let mut there = other.signals();
        // It listens from here on.
        until_queued(&mut there).await;
        let tool = f.tool("t").await;

        // Nobody else can wait for what a caller here began, so nobody else is told.
        let alone = waited_for(&tool);
        f.execution(&alone).await;
        let end = End::Final(&succeeded());
        f.store.end_attempt(alone.id, FIRST_TOKEN, end).await.unwrap();
        let new = queued(&tool);
        f.execution(&new).await;
        assert_eq!(until_queued(&mut there).await, []);

        // What was queued may be waited for anywhere.
        let leased = f.lease_one().await;
        other.cancel_execution(f.id(), new.id).await.unwrap();
        let mut here = f.store.signals();
        hear(&mut there, Signal::Cancel(new.id)).await;
        f.store
            .end_attempt(new.id, leased.token, End::Final(&succeeded()))
            .await
            .unwrap();
        hear(&mut there, Signal::Changed(new.id)).await;
        hear(&mut here, Signal::Changed(new.id)).await;

        // So may what a second caller asked for with the same key.
        let keyed = |id| NewExecution {
            id,
            idempotency: Some(("k".into(), [1; 32])),
            ..waited_for(&tool)
        };
        let first = f.execution(&keyed(ExecutionId::new())).await;
        let again = other.create_execution(f.id(), &keyed(ExecutionId::new())).await;
        assert!(matches!(again.unwrap(), Made::Before(e) if e.id == first.id));
        f.store.end_attempt(first.id, FIRST_TOKEN, end).await.unwrap();
        hear(&mut there, Signal::Changed(first.id)).await;

        // And what somebody follows there.
        let followed = waited_for(&tool);
        f.execution(&followed).await;
        other.watch_execution(f.tenant.id, followed.id).await.unwrap();
        f.store.end_attempt(followed.id, FIRST_TOKEN, end).await.unwrap();
        hear(&mut there, Signal::Changed(followed.id)).await;

        // A connection that breaks is replaced, and nothing is slept through.
        let mut admin = PgConnection::connect(f.settings.url.expose_secret())
            .await
            .unwrap();
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        admin.execute(cut).await.unwrap();
        until_queued(&mut there).await;
        other.close().await;
    })
    .await;
}
