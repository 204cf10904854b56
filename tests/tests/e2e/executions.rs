//! Durable executions over REST: asynchronous calls, retries, replays, cancels.

mod losses;
mod permissions;

use crate::{Outcome, text};
use e2e::{
    Backend, Json, Stack, Target,
    rest::{Answer, Rest},
    stack::{REST_API, WORKER},
    wait_for,
};
use http::Method;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

const ASYNC: (&str, &str) = ("prefer", "respond-async");

/// rest-api and a worker, a tenant's caller, and an endpoint for tools.
async fn world(backend: Backend, settings: &[(&str, &str)]) -> anyhow::Result<(Stack, Rest, Target)> {
    let target = Target::start().await?;
    let mut builder = Stack::builder(backend)
        .services(&[REST_API, WORKER])
        .allow_private();
    for (key, value) in settings {
        builder = builder.set(REST_API, key, value);
    }
    let stack = builder.start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    Ok((stack, rest, target))
}

async fn register(rest: &Rest, name: &str, url: &str, more: &Json) -> anyhow::Result<Json> {
    let mut tool = json!({"name": name, "description": "d", "url": url});
    for (field, value) in more.as_object().into_iter().flatten() {
        tool[field] = value.clone();
    }
    rest.post("/api/v1/tools", &tool).await?.expect(201)
}

async fn execute(
    rest: &Rest,
    name: &str,
    headers: &[(&'static str, &str)],
    body: &Json,
) -> anyhow::Result<Answer> {
    let path = format!("/api/v1/tools/{name}/execute");
    rest.send(Method::POST, &path, headers, Some(body)).await
}

/// Queues a call; answers its path.
async fn enqueue(rest: &Rest, name: &str, body: &Json) -> anyhow::Result<String> {
    let answer = execute(rest, name, &[ASYNC], body).await?;
    let queued = answer.expect(202)?;
    assert_eq!(answer.header("preference-applied"), "respond-async");
    assert_eq!(queued["status"], "queued", "{queued}");
    let path = format!("/api/v1/executions/{}", text(&queued, "id"));
    assert_eq!(answer.header("location"), path);
    assert!(!answer.header("retry-after").is_empty());
    Ok(path)
}

async fn until(rest: &Rest, path: &str, status: &str) -> anyhow::Result<Json> {
    let last = std::sync::Mutex::new(Json::Null);
    let what = format!("{path} to be {status}");
    let found = wait_for(&what, async || {
        let execution = rest.get(path).await.ok()?.json();
        *last.lock().ok()? = execution.clone();
        (execution["status"] == status).then_some(execution)
    });
    found
        .await
        .map_err(|error| error.context(format!("{:?}", last.lock())))
}

/// The attempts, as what each came to.
async fn attempts(rest: &Rest, path: &str) -> anyhow::Result<Vec<String>> {
    let listed = rest.get(&format!("{path}/attempts")).await?.expect(200)?;
    let items = listed["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .iter()
        .map(|attempt| text(attempt, "outcome").to_owned())
        .collect())
}

#[tokio::test]
async fn a_call_that_does_not_wait_is_queued_run_and_kept() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest, target) = world(backend, &[]).await?;
        register(&rest, "echo", &target.url("/echo/{n}"), &json!({})).await?;
        let path = enqueue(&rest, "echo", &json!({"arguments": {"n": 7}, "priority": 5})).await?;
        let done = until(&rest, &path, "succeeded").await?;
        assert_eq!(done["result"]["body"]["uri"], "/echo/7", "{backend:?}: {done}");
        assert_eq!((&done["attempts"], &done["priority"]), (&json!(1), &json!(5)));
        assert_eq!(attempts(&rest, &path).await?, ["succeeded"]);
        let seen = target.seen();
        assert_eq!(seen.len(), 1, "{backend:?}");
        assert_eq!(seen[0].header("idempotency-key"), text(&done, "id"));
        let since = text(&done, "created_at");
        let listed = rest
            .get(&format!(
                "/api/v1/executions?status=succeeded&created_since={since}"
            ))
            .await?
            .expect(200)?;
        assert_eq!(listed["items"][0]["id"], done["id"]);
        let before = rest
            .get(&format!("/api/v1/executions?created_until={since}"))
            .await?
            .expect(200)?;
        assert_eq!(before["items"], json!([]));

        let bad = json!({"arguments": {"n": 1}, "priority": 101});
        let refused = execute(&rest, "echo", &[ASYNC], &bad).await?;
        assert_eq!(refused.problem(400, "invalid_argument")?["field"], "priority");
        let tool = [("tool", "echo")];
        stack
            .wait_metric(REST_API, "mcp_executions_enqueued_total", &tool, |n| n == 1.0)
            .await?;
        stack
            .wait_metric(REST_API, "mcp_execution_queue_wait_seconds_count", &[], |n| {
                n == 1.0
            })
            .await?;
        stack
            .wait_metric(REST_API, "rest_api_lease_streams", &[], |n| n == 1.0)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_same_idempotency_key_gives_the_same_execution() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest, target) = world(backend, &[]).await?;
        register(&rest, "echo", &target.url("/echo/{n}"), &json!({})).await?;
        let headers = [("idempotency-key", "once-1"), ASYNC];
        let body = json!({"arguments": {"n": 1}});
        let first = execute(&rest, "echo", &headers, &body).await?;
        assert_eq!(first.header("idempotency-replayed"), "");
        let id = text(&first.expect(202)?, "id").to_owned();
        until(&rest, &format!("/api/v1/executions/{id}"), "succeeded").await?;
        // It is final by now, whether the caller waits or not.
        for headers in [&headers[..], &headers[..1]] {
            let again = execute(&rest, "echo", headers, &body).await?;
            assert_eq!(again.header("idempotency-replayed"), "true");
            let again = again.expect(200)?;
            assert_eq!(
                (text(&again, "id"), &again["status"]),
                (id.as_str(), &json!("succeeded"))
            );
        }
        let other = json!({"arguments": {"n": 2}});
        execute(&rest, "echo", &headers, &other)
            .await?
            .problem(422, "idempotency_key_reused")?;
        assert_eq!(target.seen().len(), 1, "{backend:?}");

        // Who calls again while it runs waits for the same end.
        register(&rest, "held", &target.url("/held"), &json!({})).await?;
        let (waiting, nothing) = ([("idempotency-key", "once-2")], json!({}));
        let (one, two, ()) = tokio::join!(
            execute(&rest, "held", &waiting, &nothing),
            execute(&rest, "held", &waiting, &nothing),
            async {
                let _ = wait_for("the call to arrive", async || {
                    (target.seen().len() == 2).then_some(())
                })
                .await;
                target.release();
            }
        );
        assert_eq!(one?.expect(200)?["id"], two?.expect(200)?["id"]);
        assert_eq!(target.seen().len(), 2, "{backend:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_fails_transiently_is_tried_again_until_it_succeeds() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest, target) = world(backend, &[]).await?;
        let policy = json!({"retry": {"max_attempts": 4, "initial_backoff_ms": 10, "max_backoff_ms": 50}});
        register(&rest, "later", &target.url("/flaky/2?a"), &policy).await?;
        let path = enqueue(&rest, "later", &json!({})).await?;
        let done = until(&rest, &path, "succeeded").await?;
        assert_eq!(
            (&done["attempts"], &done["error"]),
            (&json!(3), &Json::Null),
            "{done}"
        );
        assert_eq!(attempts(&rest, &path).await?, ["retried", "retried", "succeeded"]);
        let keys: Vec<_> = target
            .seen()
            .iter()
            .map(|seen| seen.header("idempotency-key").to_owned())
            .collect();
        assert_eq!(
            keys,
            vec![text(&done, "id"); 3],
            "{backend:?}: one key for all attempts"
        );

        register(&rest, "now", &target.url("/flaky/3"), &policy).await?;
        let waited = execute(&rest, "now", &[], &json!({})).await?.expect(200)?;
        assert_eq!(
            (&waited["status"], &waited["attempts"]),
            (&json!("succeeded"), &json!(4))
        );

        // Without a policy, and without being safe to repeat, it fails at once.
        register(&rest, "plain", &target.url("/status/503"), &json!({})).await?;
        let failed = execute(&rest, "plain", &[], &json!({})).await?.expect(200)?;
        assert_eq!(
            (&failed["status"], &failed["attempts"]),
            (&json!("failed"), &json!(1))
        );
        let mut once = policy.clone();
        once["method"] = json!("POST");
        register(&rest, "once", &target.url("/status/503?b"), &once).await?;
        let failed = execute(&rest, "once", &[], &json!({})).await?.expect(200)?;
        assert_eq!(
            (&failed["status"], &failed["attempts"]),
            (&json!("failed"), &json!(1))
        );
        for (tool, retries) in [("later", 2.0), ("now", 3.0), ("once", 0.0)] {
            let counted = stack.metrics(REST_API).await?;
            assert_eq!(
                counted.sum("mcp_execution_retries_total", &[("tool", tool)]),
                retries,
                "{tool}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_dead_is_listed_and_replayed() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest, target) = world(backend, &[]).await?;
        let policy = json!({"retry": {"max_attempts": 2, "initial_backoff_ms": 10, "max_backoff_ms": 10}});
        register(&rest, "ill", &target.url("/flaky/3"), &policy).await?;
        let path = enqueue(&rest, "ill", &json!({})).await?;
        let dead = until(&rest, &path, "dead").await?;
        assert_eq!(
            (&dead["attempts"], &dead["error"]["code"]),
            (&json!(2), &json!("http_status"))
        );
        let listed = rest.get("/api/v1/executions?status=dead").await?.expect(200)?;
        assert_eq!(listed["items"][0]["id"], dead["id"]);
        let labels = [("tenant_id", "acme"), ("status", "dead")];
        stack
            .wait_metric(REST_API, "mcp_executions", &labels, |n| n == 1.0)
            .await?;

        let replayed = rest
            .send(Method::POST, &format!("{path}/replay"), &[], None)
            .await?;
        assert_eq!(replayed.expect(202)?["id"], dead["id"]);
        let done = until(&rest, &path, "succeeded").await?;
        assert_eq!(done["attempts"], 4, "two more attempts were granted: {done}");
        assert_eq!(
            attempts(&rest, &path).await?,
            ["retried", "dead", "retried", "succeeded"],
            "{backend:?}"
        );
        rest.post(&format!("{path}/replay"), &json!({}))
            .await?
            .problem(409, "wrong_status")?;
    }
    Ok(())
}

#[tokio::test]
async fn an_execution_is_cancelled_at_every_stage() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest, target) = world(backend, &[("QUEUE__RUNNING_PER_TENANT", "1")]).await?;
        register(&rest, "held", &target.url("/held"), &json!({})).await?;
        let running = enqueue(&rest, "held", &json!({})).await?;
        wait_for("the call to arrive", async || {
            (target.seen().len() == 1).then_some(())
        })
        .await?;
        until(&rest, &running, "running").await?;

        // The tenant's only slot is taken.
        let queued = enqueue(&rest, "held", &json!({})).await?;
        let cancelled = rest
            .post(&format!("{queued}/cancel"), &json!({}))
            .await?
            .expect(200)?;
        assert_eq!(
            (&cancelled["status"], &cancelled["attempts"]),
            (&json!("cancelled"), &json!(0))
        );

        let late = enqueue(&rest, "held", &json!({"deadline_in": 1})).await?;
        let missed = until(&rest, &late, "failed").await?;
        assert_eq!(missed["error"]["code"], "deadline_exceeded", "{missed}");

        let asked = rest
            .send(Method::POST, &format!("{running}/cancel"), &[], None)
            .await?
            .expect(202)?;
        assert_eq!(asked["cancel_requested"], true, "{asked}");
        let ended = until(&rest, &running, "cancelled").await?;
        assert!(ended["finished_at"].is_string(), "{ended}");
        assert_eq!(attempts(&rest, &running).await?, ["cancelled"], "{backend:?}");
        let still = rest
            .post(&format!("{running}/cancel"), &json!({}))
            .await?
            .expect(200)?;
        assert_eq!(still, ended, "what is over stays as it is");

        // Of a call that waits, its caller is told.
        let nothing = json!({});
        let (waited, ()) = tokio::join!(execute(&rest, "held", &[], &nothing), async {
            let found = wait_for("the waiting call", async || {
                let listed = rest.get("/api/v1/executions?status=running").await.ok()?.json();
                listed["items"][0]["id"].as_str().map(str::to_owned)
            });
            if let Ok(id) = found.await {
                let _ = rest
                    .post(&format!("/api/v1/executions/{id}/cancel"), &json!({}))
                    .await;
            }
        });
        assert_eq!(waited?.expect(200)?["status"], "cancelled", "{backend:?}");
        assert_eq!(target.seen().iter().filter(|seen| seen.answered).count(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_full_queue_is_refused_clearly() -> Outcome {
    let settings = [
        ("QUEUE__RUNNING_PER_TENANT", "1"),
        ("QUEUE__QUEUED_PER_TENANT", "3"),
    ];
    let (stack, rest, target) = world(Backend::Sqlite, &settings).await?;
    register(&rest, "held", &target.url("/held"), &json!({})).await?;
    enqueue(&rest, "held", &json!({})).await?;
    wait_for("the call to arrive", async || {
        (target.seen().len() == 1).then_some(())
    })
    .await?;
    // The first one counts among those that wait until it is counted anew.
    let accepted = AtomicUsize::new(1);
    let refused = wait_for("a refusal", async || {
        let answer = execute(&rest, "held", &[ASYNC], &json!({})).await.ok()?;
        if answer.status == 202 {
            accepted.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(answer)
    });
    let refused = refused.await?;
    refused.problem(429, "queue_full")?;
    assert!(!refused.header("retry-after").is_empty());
    let accepted = accepted.into_inner();
    assert!((3..=4).contains(&accepted), "{accepted} were accepted");
    let labels = [("tenant_id", "acme"), ("status", "queued")];
    stack
        .wait_metric(REST_API, "mcp_executions", &labels, |n| {
            n == accepted as f64 - 1.0
        })
        .await?;
    stack
        .wait_metric(REST_API, "mcp_execution_queue_age_seconds", &[], |age| age > 0.0)
        .await?;
    target.release();
    wait_for("the queue to empty", async || {
        let done = rest.get("/api/v1/executions?status=succeeded").await.ok()?.json();
        (done["items"].as_array()?.len() == accepted).then_some(())
    })
    .await?;
    Ok(())
}
