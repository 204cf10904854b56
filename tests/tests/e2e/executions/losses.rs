//! Lost and stopping workers, several replicas, and effects that are not known.

use super::{attempts, enqueue, execute, register, until, world};
use crate::Outcome;
use e2e::{
    Backend, PATIENCE, Stack, Target,
    stack::{REST_API, WORKER},
    wait_for,
};
use serde_json::json;

#[tokio::test]
async fn what_may_have_had_its_effect_is_replayed_only_knowingly() -> Outcome {
    let (_stack, rest, target) = world(Backend::Sqlite, &[]).await?;
    let slow = json!({"method": "POST", "timeout_ms": 300, "retry": {"max_attempts": 3}});
    register(&rest, "charge", &target.url("/slow/60000"), &slow).await?;
    let path = enqueue(&rest, "charge", &json!({})).await?;
    let unknown = until(&rest, &path, "outcome_unknown").await?;
    assert_eq!(
        (&unknown["attempts"], &unknown["error"]["code"]),
        (&json!(1), &json!("timeout"))
    );
    let replay = format!("{path}/replay");
    rest.post(&replay, &json!({}))
        .await?
        .problem(409, "outcome_unknown")?;
    assert_eq!(target.seen().len(), 1);
    let knowing = json!({"acknowledge_unknown": true});
    rest.post(&replay, &knowing).await?.expect(202)?;
    wait_for("the second call", async || {
        (target.seen().len() == 2).then_some(())
    })
    .await?;
    let again = until(&rest, &path, "outcome_unknown").await?;
    assert_eq!(again["attempts"], 2);
    Ok(())
}

#[tokio::test]
async fn a_lost_worker_s_runs_are_run_again_where_that_is_safe() -> Outcome {
    for backend in Backend::available() {
        let (mut stack, rest, target) = world(backend, &[("QUEUE__LEASE", "2s")]).await?;
        register(&rest, "safe", &target.url("/held?safe"), &json!({})).await?;
        let once = json!({"method": "POST"});
        register(&rest, "once", &target.url("/held?once"), &once).await?;
        let (safe, once) = (
            enqueue(&rest, "safe", &json!({})).await?,
            enqueue(&rest, "once", &json!({})).await?,
        );
        wait_for("both calls to arrive", async || {
            (target.seen().len() == 2).then_some(())
        })
        .await?;
        stack.process_mut(WORKER).kill();
        let unknown = until(&rest, &once, "outcome_unknown").await?;
        assert_eq!(unknown["error"]["code"], "worker_lost", "{backend:?}");
        until(&rest, &safe, "queued").await?;
        stack.process_mut(WORKER).start().await?;
        wait_for("the safe call to be made again", async || {
            (target.seen().len() == 3).then_some(())
        })
        .await?;
        target.release();
        let done = until(&rest, &safe, "succeeded").await?;
        assert_eq!(done["attempts"], 2);
        assert_eq!(
            attempts(&rest, &safe).await?,
            ["lost", "succeeded"],
            "{backend:?}"
        );
        assert_eq!(target.seen().len(), 3, "{backend:?}");
        let lost = [("tool", "safe"), ("status", "queued")];
        stack
            .wait_metric(REST_API, "mcp_executions_reaped_total", &lost, |n| n == 1.0)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stopping_worker_gives_back_what_it_cannot_end() -> Outcome {
    let target = Target::start().await?;
    let builder = Stack::builder(Backend::Sqlite).services(&[REST_API, WORKER]);
    let builder = builder.allow_private().set(WORKER, "SHUTDOWN__TIMEOUT", "4s");
    let mut stack = builder.start().await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let patient = json!({"timeout_ms": 300_000});
    register(&rest, "held", &target.url("/held"), &patient).await?;
    let queued = enqueue(&rest, "held", &json!({})).await?;
    let waiting = tokio::spawn({
        let rest = rest.clone();
        async move { execute(&rest, "held", &[], &json!({})).await }
    });
    wait_for("both calls to arrive", async || {
        (target.seen().len() == 2).then_some(())
    })
    .await?;
    let worker = stack.process_mut(WORKER);
    worker.signal("-TERM")?;
    let code = worker.ended(PATIENCE).await?;
    assert!(code.success(), "{code}");
    let listed = rest.get("/api/v1/executions?status=queued").await?.expect(200)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "{listed}");
    target.release();
    stack.process_mut(WORKER).start().await?;
    let waited = waiting.await??.expect(200)?;
    let queued = until(&rest, &queued, "succeeded").await?;
    for done in [waited, queued] {
        assert_eq!(
            (&done["status"], &done["attempts"]),
            (&json!("succeeded"), &json!(1))
        );
    }
    assert_eq!(target.seen().len(), 4);
    Ok(())
}

#[tokio::test]
async fn replicas_wake_each_other_s_workers_and_callers() -> Outcome {
    for backend in Backend::available() {
        if backend == Backend::Sqlite {
            continue;
        }
        let (stack, rest, target) = world(backend, &[]).await?;
        register(&rest, "held", &target.url("/held"), &json!({})).await?;
        let (_replica, url) = stack.replica(REST_API).await?;
        let other = rest.at(&url);
        let waits = [("idempotency-key", "w-1")];
        let nothing = json!({});
        // Each asks its own replica, and both wait for one execution.
        let (here, there, ()) = tokio::join!(
            execute(&rest, "held", &waits, &nothing),
            execute(&other, "held", &waits, &nothing),
            async {
                let arrived = async || (target.seen().len() == 1).then_some(());
                let _ = wait_for("the call to arrive", arrived).await;
                target.release();
            }
        );
        assert_eq!(here?.expect(200)?["id"], there?.expect(200)?["id"]);

        register(
            &rest,
            "slow",
            &target.url("/slow/60000"),
            &json!({"timeout_ms": 60_000}),
        )
        .await?;
        let path = enqueue(&other, "slow", &json!({})).await?;
        wait_for("the call to arrive", async || {
            (target.seen().len() == 2).then_some(())
        })
        .await?;
        other
            .post(&format!("{path}/cancel"), &json!({}))
            .await?
            .expect(202)?;
        until(&rest, &path, "cancelled").await?;
    }
    Ok(())
}
