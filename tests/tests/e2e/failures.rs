//! Losses: what does not need the lost thing goes on, what does fails clearly, all recovers by itself, and the
//! metrics tell.

use crate::{Outcome, text};
use anyhow::Context;
use e2e::{
    Backend, Era, Json, PATIENCE, Proxy, Redis, Sink, Stack, Target,
    process::free_port,
    rest::Rest,
    stack::{MCP_SERVER, REST_API, WORKER},
    trace::Trace,
    wait_at_most, wait_for,
};
use http::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How long a request that needs nothing of what is lost may take on a busy machine. It takes some milliseconds on an
/// idle one, and whoever waited for what is lost would wait longer, each time.
const UNDISTURBED: Duration = Duration::from_secs(5);
/// How long it may take on a busy machine until a loss is told, which would otherwise never be, or only when a call's own
/// time, minutes here, is over. A database that falls silent is told after 30 s at the latest: for so long a statement
/// is waited for on a connection that was just in use.
const TOLD: Duration = Duration::from_secs(60);

/// Contexts over REST and MCP work, and fast.
async fn assert_undisturbed(stack: &Stack, rest: &Rest, key: &str, when: &str) -> Outcome {
    for _ in 0..5 {
        let started = Instant::now();
        rest.post("/api/v1/contexts", &json!({"name": when}))
            .await?
            .expect(201)?;
        assert!(
            started.elapsed() < UNDISTURBED,
            "{when}: REST took {:?}",
            started.elapsed()
        );
        let started = Instant::now();
        let answer = stack
            .raw(key)
            .call("tools/call", json!({"name": "context_list", "arguments": {}}))
            .await?;
        answer.expect(200)?;
        assert!(
            started.elapsed() < UNDISTURBED,
            "{when}: MCP took {:?}",
            started.elapsed()
        );
    }
    Ok(())
}

#[tokio::test]
async fn without_redis_every_request_is_served() -> Outcome {
    let port = free_port();
    let Some(redis) = Redis::start(port) else {
        return Ok(());
    };
    let builder = Stack::builder(Backend::Sqlite).services(&[REST_API, MCP_SERVER]);
    let stack = builder.redis(&redis.url()).start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    let both = [REST_API, MCP_SERVER];
    for service in both {
        stack
            .wait_metric(service, "redis_up", &[], |up| up == 1.0)
            .await?;
    }
    assert_undisturbed(&stack, &rest, &key, "with Redis").await?;
    drop(redis);
    assert_undisturbed(&stack, &rest, &key, "without Redis").await?;
    for service in both {
        stack
            .wait_metric(service, "redis_up", &[], |up| up == 0.0)
            .await?;
        stack
            .wait_metric(service, "redis_commands_total", &[("result", "away")], |n| {
                n > 0.0
            })
            .await?;
    }
    let _again = Redis::start(port).context("it could be started before")?;
    for service in both {
        stack
            .wait_metric(service, "redis_up", &[], |up| up == 1.0)
            .await?;
    }
    assert_undisturbed(&stack, &rest, &key, "with Redis again").await
}

#[tokio::test]
async fn without_a_collector_only_telemetry_is_lost_and_counted() -> Outcome {
    let sink = Sink::start().await?;
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, MCP_SERVER])
        .sink(&sink)
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    let traced = async || -> anyhow::Result<Trace> {
        let trace = Trace::start();
        let headers = [("traceparent", trace.traceparent())];
        let headers = [(headers[0].0, headers[0].1.as_str())];
        rest.send(Method::GET, "/api/v1/contexts", &headers, None)
            .await?
            .expect(200)?;
        Ok(trace)
    };
    sink.wait(&traced().await?.trace_id, |spans| !spans.is_empty())
        .await?;

    let address = sink.address();
    drop(sink);
    // First nobody listens, then somebody does who never answers.
    assert_undisturbed(&stack, &rest, &key, "no collector").await?;
    let lost = wait_for("spans to be counted as dropped", async || {
        let dropped = stack
            .metrics(REST_API)
            .await
            .ok()?
            .sum("telemetry_spans_dropped_total", &[]);
        (dropped > 0.0).then_some(dropped)
    });
    lost.await?;
    let deaf = TcpListener::bind(address)
        .await
        .context("binding where the collector was")?;
    assert_undisturbed(&stack, &rest, &key, "a deaf collector").await?;
    drop(deaf);

    let sink = wait_for("the collector's port", async || {
        Sink::start_at(address).await.ok()
    });
    let sink = sink.await?;
    wait_for("spans to arrive again", async || {
        traced().await.ok()?;
        (!sink.all().is_empty()).then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_that_dies_in_mid_flight() -> Outcome {
    for backend in Backend::available() {
        let target = Target::start().await?;
        let mut stack = Stack::builder(backend).allow_private().start().await?;
        let key = stack.tenant("acme", "all").await?;
        let rest = stack.rest(&key);
        for (name, method, path) in [("safe", "GET", "/held"), ("once", "POST", "/slow/300000")] {
            let tool = json!({
                "name": name, "description": "d", "method": method, "url": target.url(path),
                "timeout_ms": 300_000,
            });
            rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        }
        let run = |name: &'static str| {
            let rest = rest.clone();
            tokio::spawn(async move {
                rest.post(&format!("/api/v1/tools/{name}/execute"), &json!({}))
                    .await
            })
        };
        let runs = [run("safe"), run("once")];
        wait_for("both calls to arrive", async || {
            (target.seen().len() == 2).then_some(())
        })
        .await?;
        stack.process_mut(WORKER).kill();
        let died = Instant::now();
        let [safe, once] = runs;
        let once = once.await??.expect(200)?;
        assert!(
            died.elapsed() < TOLD,
            "{backend:?}: told after {:?}",
            died.elapsed()
        );
        // What is safe waits for another worker, and its caller with it.
        wait_for("the safe call to be queued again", async || {
            let listed = rest
                .get("/api/v1/executions?tool=safe&status=queued")
                .await
                .ok()?;
            (listed.json()["items"].as_array()?.len() == 1).then_some(())
        })
        .await?;
        assert_eq!(
            (&once["status"], &once["error"]["code"]),
            (&json!("outcome_unknown"), &json!("worker_lost")),
            "{once}"
        );
        let stored = rest
            .get(&format!("/api/v1/executions/{}", text(&once, "id")))
            .await?
            .expect(200)?;
        assert_eq!(stored, once);

        // While it is away.
        assert_undisturbed(&stack, &rest, &key, "without a worker").await?;
        let refused = rest.post("/api/v1/tools/once/execute", &json!({})).await?;
        refused.problem(503, "unavailable")?;
        assert_eq!(refused.header("retry-after"), "1");
        for era in Era::ALL {
            let client = stack.mcp(&key, era).await?;
            client.wait_for_tool("once").await?;
            let refused = client.call("once", &json!({})).await?;
            assert_eq!(refused.is_error, Some(true));
            let error = refused.structured_content.unwrap_or_default();
            assert_eq!(
                error["error"]["code"], "unavailable",
                "{backend:?} {era:?}: {error}"
            );
        }
        stack
            .wait_metric(REST_API, "dependency_up", &[("dependency", "worker")], |up| {
                up == 0.0
            })
            .await?;
        let labels = [("tool", "once"), ("status", "failed")];
        stack
            .wait_metric(REST_API, "mcp_tool_executions_total", &labels, |n| n == 3.0)
            .await?;
        let labels = [("tool", "once"), ("code", "worker_unavailable")];
        let failures = "mcp_tool_execution_failures_total";
        stack
            .wait_metric(REST_API, failures, &labels, |n| n == 3.0)
            .await?;
        assert_eq!(
            target.seen().len(),
            2,
            "{backend:?}: what may not run twice did not"
        );

        stack.process_mut(WORKER).start().await?;
        wait_for("the safe call to be made again", async || {
            (target.seen().len() == 3).then_some(())
        })
        .await?;
        target.release();
        let safe = safe.await??.expect(200)?;
        assert_eq!(
            (&safe["status"], &safe["attempts"], &safe["error"]),
            (&json!("succeeded"), &json!(2), &Json::Null),
            "{safe}"
        );
        let quick = json!({"name": "quick", "description": "d", "url": target.url("/quick")});
        rest.post("/api/v1/tools", &quick).await?.expect(201)?;
        wait_for("the worker to be taken up again", async || {
            let answer = rest.post("/api/v1/tools/quick/execute", &json!({})).await.ok()?;
            (answer.status == 200 && answer.json()["status"] == "succeeded").then_some(())
        })
        .await?;
        stack
            .wait_metric(REST_API, "dependency_up", &[("dependency", "worker")], |up| {
                up == 1.0
            })
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_rest_api_mcp_says_so_and_recovers() -> Outcome {
    let target = Target::start().await?;
    let mut stack = Stack::builder(Backend::Sqlite).allow_private().start().await?;
    let key = stack.tenant("acme", "all").await?;
    let tool = json!({"name": "quick", "description": "d", "url": target.url("/quick")});
    stack.rest(&key).post("/api/v1/tools", &tool).await?.expect(201)?;
    let legacy = stack.mcp(&key, Era::Legacy).await?;
    legacy.wait_for_tool("quick").await?;
    let raw = stack.raw(&key);
    stack.process_mut(REST_API).kill();
    let call = async || {
        raw.call("tools/call", json!({"name": "context_list", "arguments": {}}))
            .await
    };
    wait_for("a clear refusal", async || {
        let answer = call().await.ok()?;
        answer.problem(503, "unavailable").ok()
    })
    .await?;
    stack
        .wait_metric(MCP_SERVER, "dependency_up", &[("dependency", "rest-api")], |up| {
            up == 0.0
        })
        .await?;
    let ready = stack.readyz(MCP_SERVER).await?;
    assert!(ready.to_string().contains("rest-api"), "{ready}");
    let labels = [("result", "unavailable")];
    stack
        .wait_metric(MCP_SERVER, "mcp_auth_attempts_total", &labels, |n| n >= 1.0)
        .await?;

    stack.process_mut(REST_API).start().await?;
    wait_for("MCP to work again", async || {
        (call().await.ok()?.status == 200).then_some(())
    })
    .await?;
    // The legacy session is the same, and the catalogue is followed again.
    let result: Json = legacy.structured("quick", &json!({})).await?;
    assert_eq!(result["status"], 200);
    let again = json!({"name": "later", "description": "d", "url": target.url("/later")});
    stack
        .rest(&key)
        .post("/api/v1/tools", &again)
        .await?
        .expect(201)?;
    stack
        .wait_metric(MCP_SERVER, "mcp_catalogue_tools", &[], |tools| tools == 2.0)
        .await?;
    stack
        .wait_metric(MCP_SERVER, "mcp_catalogue_age_seconds", &[], |age| age == 0.0)
        .await?;
    Ok(())
}

#[tokio::test]
async fn executions_whose_rest_api_died_are_ended_by_what_is_known() -> Outcome {
    let target = Target::start().await?;
    let builder = Stack::builder(Backend::Sqlite)
        .allow_private()
        .set(WORKER, "JOBS__REAP_EXECUTIONS", "1s");
    let mut stack = builder.start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    let expected = [
        ("safe", "GET", "succeeded", 2, Json::Null),
        ("once", "POST", "outcome_unknown", 1, json!("worker_lost")),
    ];
    for (name, method, ..) in &expected {
        let tool = json!({
            "name": name, "description": "d", "method": method, "url": target.url("/held"),
            "timeout_ms": 300_000,
        });
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        let (rest, path) = (rest.clone(), format!("/api/v1/tools/{name}/execute"));
        tokio::spawn(async move { rest.post(&path, &json!({})).await });
    }
    wait_for("both calls to arrive", async || {
        (target.seen().len() == 2).then_some(())
    })
    .await?;
    stack.process_mut(REST_API).kill();
    stack.process_mut(REST_API).start().await?;
    // Their leases must run out first; then what is safe is run again.
    wait_at_most(2 * PATIENCE, "the safe call to be made again", async || {
        (target.seen().len() == 3).then_some(())
    })
    .await?;
    target.release();
    for (name, _, status, attempts, code) in expected {
        let path = format!("/api/v1/executions?tool={name}");
        let ended = wait_at_most(2 * PATIENCE, "the execution to be ended", async || {
            let first = rest.get(&path).await.ok()?.json()["items"][0].clone();
            first["finished_at"].is_string().then_some(first)
        });
        let ended = ended.await?;
        assert_eq!(
            (&ended["status"], &ended["attempts"], &ended["error"]["code"]),
            (&json!(status), &json!(attempts), &code),
            "{ended}"
        );
    }
    assert_eq!(target.seen().len(), 3, "what may not run twice did not");
    Ok(())
}

#[tokio::test]
async fn without_the_database_requests_fail_clearly_and_health_does_not() -> Outcome {
    if !Backend::available().contains(&Backend::Postgres) {
        return Ok(());
    }
    let (url, proxy) = Backend::database_behind_proxy().await?;
    let builder = Stack::builder(Backend::Postgres).services(&[REST_API, MCP_SERVER]);
    let stack = builder
        .set(REST_API, "DATABASE__URL", &url)
        .set(REST_API, "DATABASE__ACQUIRE_TIMEOUT", "3s")
        .set(REST_API, "DATABASE__OUTAGE_PATIENCE", "2s")
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    let raw = stack.raw(&key);
    rest.get("/api/v1/contexts").await?.expect(200)?;
    for lose in [Proxy::cut, Proxy::silence] {
        lose(&proxy);
        // What a verified key was remembered for must run out, too.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = Instant::now();
        let refused = rest.get("/api/v1/contexts").await?;
        refused.problem(503, "unavailable")?;
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        assert!(started.elapsed() < TOLD, "told after {:?}", started.elapsed());
        let refused = raw
            .call("tools/call", json!({"name": "context_list", "arguments": {}}))
            .await?;
        refused.problem(503, "unavailable")?;
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = e2e::http_client()
                .get(format!("{}{path}", stack.http(REST_API)))
                .send()
                .await?;
            assert_eq!(answer.status(), 200, "{path}");
        }
        stack
            .wait_metric(REST_API, "dependency_up", &[("dependency", "database")], |up| {
                up == 0.0
            })
            .await?;
        proxy.restore();
        wait_for("the database to be taken up again", async || {
            (rest.get("/api/v1/contexts").await.ok()?.status == 200).then_some(())
        })
        .await?;
        stack
            .wait_metric(REST_API, "dependency_up", &[("dependency", "database")], |up| {
                up == 1.0
            })
            .await?;
    }
    Ok(())
}
