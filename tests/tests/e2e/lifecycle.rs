//! A service's start, its settings and its end.

use crate::{Outcome, rest_api, text};
use e2e::{
    Backend, PATIENCE, Sink, Stack, Target, logs,
    process::Process,
    stack::{ADMIN_TOKEN, MCP_SERVER, REST_API, WORKER},
    trace::Trace,
    wait_for,
};
use http::Method;
use serde_json::json;
use std::collections::BTreeMap;

#[tokio::test]
async fn sigterm_drains_flushes_and_exits_cleanly() -> Outcome {
    let (sink, target) = (Sink::start().await?, Target::start().await?);
    let mut stack = Stack::builder(Backend::Sqlite)
        .sink(&sink)
        .allow_private()
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    let tool = json!({"name": "slow", "description": "d", "url": target.url("/slow/1500")});
    rest.post("/api/v1/tools", &tool).await?.expect(201)?;
    let trace = Trace::start();
    let in_flight = {
        let (raw, parent) = (stack.raw(&key), trace.traceparent());
        tokio::spawn(async move {
            let params = json!({"name": "slow", "arguments": {}, "_meta": {"traceparent": parent}});
            raw.call("tools/call", params).await
        })
    };
    wait_for("the call to arrive", async || {
        (!target.seen().is_empty()).then_some(())
    })
    .await?;
    for service in [MCP_SERVER, REST_API, WORKER] {
        stack.process(service).signal("-TERM")?;
    }
    let answer = in_flight.await??;
    let result = e2e::raw::response(&answer)?;
    assert_eq!(
        result["result"]["structuredContent"]["body"],
        json!({"waited_ms": 1500}),
        "{}",
        answer.text
    );
    for service in [MCP_SERVER, REST_API, WORKER] {
        let status = stack.process_mut(service).ended(PATIENCE).await?;
        assert_eq!(status.code(), Some(0), "{service}: {status}");
    }
    // Flushed before the end, not a batch later.
    let services = |service: &str| {
        sink.trace(&trace.trace_id)
            .iter()
            .any(|span| span.service == service)
    };
    assert!(
        [MCP_SERVER, REST_API, WORKER].into_iter().all(services),
        "{}",
        e2e::sink::tree(&sink.trace(&trace.trace_id))
    );
    Ok(())
}

#[tokio::test]
async fn not_ready_comes_first_and_a_second_signal_ends_it_hard() -> Outcome {
    let builder =
        Stack::builder(Backend::Sqlite)
            .services(&[REST_API])
            .set(REST_API, "SHUTDOWN__DRAIN", "5m");
    let mut stack = builder.start().await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    stack.process(REST_API).signal("-TERM")?;
    let readyz = format!("{}/readyz", stack.http(REST_API));
    wait_for("not ready", async || {
        (e2e::http_client().get(&readyz).send().await.ok()?.status() == 503).then_some(())
    })
    .await?;
    // Whoever has not heard of it yet is still served.
    rest.get("/api/v1/contexts").await?.expect(200)?;
    stack.process(REST_API).signal("-TERM")?;
    let status = stack.process_mut(REST_API).ended(PATIENCE).await?;
    assert_ne!(status.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn settings_are_held_to_their_kind_and_secrets_are_masked() -> Outcome {
    let (stack, _) = rest_api(Backend::Sqlite).await?;
    let run = async |name: &str, value: &str, argument: Option<&str>| -> anyhow::Result<(bool, String)> {
        let mut command = tokio::process::Command::from(stack.process(REST_API).command());
        let output = command.env(name, value).args(argument).output().await?;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    };
    for (name, value, said) in [
        (
            "DEVOPS_MCP__HTTP__ADDRES",
            "127.0.0.1:1",
            ["http.addres", "DEVOPS_MCP__HTTP__ADDRES", "address"],
        ),
        (
            "DEVOPS_MCP__HTTP__ADDRESS",
            "nowhere",
            ["http.address", "DEVOPS_MCP__HTTP__ADDRESS", "127.0.0.1:8080"],
        ),
        (
            "DEVOPS_MCP__LIMITS__ITEM_BYTES",
            "lots",
            ["limits.item_bytes", "DEVOPS_MCP__LIMITS__ITEM_BYTES", "expected"],
        ),
        (
            "DEVOPS_MCP__MONITORING__LOGGING__FORMAT",
            "xml",
            ["monitoring.logging.format", "LOGGING__FORMAT", "json"],
        ),
    ] {
        let (succeeded, text) = run(name, value, None).await?;
        assert!(!succeeded, "{name}={value} was taken");
        assert!(
            said.iter().all(|word| text.contains(word)),
            "{name}={value}: {text}"
        );
    }
    let (succeeded, text) = run("DEVOPS_MCP__LIMITS__ITEM_BYTES", "512KiB", Some("--print-config")).await?;
    assert!(succeeded && text.contains("item_bytes"), "{text}");
    for secret in [ADMIN_TOKEN, "e2e-service-token", "MDEyMzQ1Njc4OWFi"] {
        assert!(!text.contains(secret), "{secret} is printed");
    }
    Ok(())
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_is_over() -> Outcome {
    let sink = Sink::start().await?;
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .start()
        .await?;
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in [
        (
            "HTTP__ADDRESS",
            stack.http(REST_API).trim_start_matches("http://"),
        ),
        ("GRPC__ADDRESS", "127.0.0.1:0"),
        ("DATABASE__URL", "sqlite://:memory:"),
        ("SERVICE_TOKEN", "e2e-service-token-0123456789abcdef"),
        ("MONITORING__LOGGING__FORMAT", "json"),
        ("MONITORING__TRACING__ENDPOINT", &sink.url()),
    ] {
        environment.insert(format!("DEVOPS_MCP__{key}"), value.to_owned());
    }
    let directory = stack.directory().join("second");
    std::fs::create_dir_all(&directory)?;
    let mut second = Process::new(REST_API, &directory, environment)?;
    let Err(error) = second.start().await else {
        anyhow::bail!("two services share one address")
    };
    assert!(error.to_string().contains("ended with"), "{error:#}");
    let (lines, _) = logs::parse(&second.log());
    let port = stack
        .http(REST_API)
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    assert!(
        lines
            .iter()
            .any(|l| l["level"] == "ERROR" && l.to_string().contains(&port)),
        "{}",
        second.log()
    );
    Ok(())
}

#[tokio::test]
async fn admin_pages_need_the_token() -> Outcome {
    let builder = Stack::builder(Backend::Sqlite).services(&[REST_API, MCP_SERVER]);
    let stack = builder.set(MCP_SERVER, "ADMIN_TOKEN", "").start().await?;
    let key = stack.tenant("acme", "all").await?;
    let get = |service: &str, token: Option<&str>| e2e::rest::Rest::new(&stack.http(service), token);
    get(MCP_SERVER, Some(ADMIN_TOKEN))
        .get("/admin/log-level")
        .await?
        .problem(403, "admin_closed")?;
    for token in [None, Some("wrong"), Some(key.as_str())] {
        let answer = get(REST_API, token).get("/admin/log-level").await?;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let admin = get(REST_API, Some(ADMIN_TOKEN));
    assert_eq!(admin.get("/admin/log-level").await?.expect(200)?["level"], "info");
    let change = json!({"level": "debug", "ttl": "1s"});
    let changed = admin
        .send(Method::PUT, "/admin/log-level", &[], Some(&change))
        .await?
        .expect(200)?;
    assert_eq!(text(&changed, "level"), "debug");
    stack
        .rest(&key)
        .get("/api/v1/contexts/0")
        .await?
        .problem(400, "invalid_path")?;
    wait_for("the level to go back", async || {
        (admin.get("/admin/log-level").await.ok()?.json()["level"] == "info").then_some(())
    })
    .await?;
    admin
        .send(
            Method::PUT,
            "/admin/log-level",
            &[],
            Some(&json!({"level": "loud"})),
        )
        .await?
        .problem(400, "invalid_log_level")?;
    Ok(())
}

#[tokio::test]
async fn what_a_service_needs_is_seen_to_go_and_to_come_back_without_traffic() -> Outcome {
    let mut stack = Stack::builder(Backend::Sqlite).start().await?;
    let seen = async |stack: &Stack, service, dependency, up: f64| {
        let labels = [("dependency", dependency)];
        stack
            .wait_metric(service, "dependency_up", &labels, |n| n == up)
            .await
    };
    for (gone, watchers) in [
        (WORKER, &[(REST_API, "worker")][..]),
        (REST_API, &[(MCP_SERVER, "rest-api"), (WORKER, "rest-api")]),
    ] {
        for (service, dependency) in watchers {
            seen(&stack, service, dependency, 1.0).await?;
        }
        stack.process_mut(gone).kill();
        for (service, dependency) in watchers {
            seen(&stack, service, dependency, 0.0).await?;
        }
        stack.process_mut(gone).start().await?;
        for (service, dependency) in watchers {
            seen(&stack, service, dependency, 1.0).await?;
        }
    }
    Ok(())
}
