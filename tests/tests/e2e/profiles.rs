//! Profiles of memory and CPU, and how the pages that give them hold up.

use crate::{Outcome, world};
use anyhow::Context;
use e2e::{
    Backend, Json, PATIENCE, Stack,
    pprof::Profile,
    stack::{ADMIN_TOKEN, MCP_SERVER, REST_API, WORKER},
    wait_at_most, wait_for,
};
use futures_util::future::join_all;
use reqwest::{RequestBuilder, Response};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

const SERVICES: [&str; 3] = [REST_API, MCP_SERVER, WORKER];

fn get(stack: &Stack, service: &str, path: &str) -> RequestBuilder {
    e2e::http_client()
        .get(stack.http(service) + path)
        .bearer_auth(ADMIN_TOKEN)
}

async fn profile(stack: &Stack, service: &str, path: &str) -> anyhow::Result<Profile> {
    let answer = get(stack, service, path).send().await?.error_for_status()?;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("content-type"), Some("application/octet-stream"));
    assert!(header("content-disposition").is_some_and(|name| name.ends_with(".pb.gz\"")));
    let bytes = answer.bytes().await?;
    read_by_go(&bytes).with_context(|| format!("{service} {path}"))?;
    Profile::read(&bytes)
}

/// Go's own tool reads it, where there is one.
fn read_by_go(profile: &[u8]) -> anyhow::Result<()> {
    let file = std::env::temp_dir().join(format!("{}.pb.gz", uuid::Uuid::now_v7()));
    std::fs::write(&file, profile)?;
    let output = std::process::Command::new("go")
        .args(["tool", "pprof", "-top"])
        .arg(&file)
        .output();
    std::fs::remove_file(&file)?;
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            anyhow::ensure!(
                output.status.success() && said.contains("flat%"),
                "go tool pprof: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Err(error) => eprintln!("left out: `go tool pprof` is not on this machine ({error})"),
    }
    Ok(())
}

/// The sum of `kind` over all stacks with a function that has `name` in its name.
fn sum(profile: &Profile, kind: &str, name: &str) -> i64 {
    let at = profile
        .types
        .iter()
        .position(|(of, _)| of == kind)
        .expect("the type");
    let named = profile
        .samples
        .iter()
        .filter(|sample| sample.stack.iter().any(|function| function.contains(name)));
    named.map(|sample| sample.values[at]).sum()
}

async fn problem(answer: Response, status: u16, code: &str) -> anyhow::Result<Json> {
    let (got, text) = (answer.status().as_u16(), answer.text().await?);
    let problem: Json = serde_json::from_str(&text).with_context(|| text.clone())?;
    assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{text}");
    Ok(problem)
}

/// The number of profiles of `kind` that ended so.
async fn counted(stack: &Stack, service: &str, kind: &str, outcome: &str) -> anyhow::Result<f64> {
    let scrape = stack.metrics(service).await?;
    let labels = [("kind", kind), ("outcome", outcome)];
    Ok(scrape
        .all("profiles_total", &labels)
        .map(|sample| sample.value)
        .sum())
}

/// Starts a CPU profile and waits until it is being taken.
async fn running(
    stack: &Stack,
    service: &'static str,
    query: &str,
) -> anyhow::Result<tokio::task::JoinHandle<reqwest::Result<Response>>> {
    let request = get(stack, service, &format!("/debug/pprof/profile?{query}"));
    let profile = tokio::spawn(request.send());
    wait_for("a profile to be taken", async || {
        let page = get(stack, service, "/debug/pprof/")
            .send()
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        page.contains("one is being taken").then_some(())
    })
    .await?;
    Ok(profile)
}

#[tokio::test]
async fn memory_is_shown_by_the_code_that_holds_it_in_all_services() -> Outcome {
    let services = [
        (REST_API, "rest_api::"),
        (MCP_SERVER, "mcp_server::"),
        (WORKER, "worker::"),
    ];
    let mut builder = Stack::builder(Backend::Sqlite);
    for (service, _) in services {
        // Idle services hold few of the samples that are taken by default; now and then, none.
        builder = builder.set(service, "MONITORING__PROFILING__HEAP_SAMPLE_BYTES", "8192");
    }
    let stack = builder.start().await?;
    for (service, ours) in services {
        // Which of its own functions are in samples is chance; work makes more of them.
        let named =
            |profile: &Profile| sum(profile, "alloc_space", ours) + sum(profile, "alloc_space", "chassis::");
        let seen = wait_at_most(PATIENCE * 2, "samples of the service's own code", async || {
            join_all((0..100).map(|_| get(&stack, service, "/nothing").send())).await;
            let allocs = profile(&stack, service, "/debug/pprof/allocs").await.ok()?;
            let heap = profile(&stack, service, "/debug/pprof/heap").await.ok()?;
            (named(&allocs) > 0 && named(&heap) > 0).then_some((allocs, heap))
        });
        let (allocs, heap) = seen.await.context(service)?;
        let names: Vec<&str> = allocs.types.iter().map(|(of, _)| of.as_str()).collect();
        assert_eq!(
            names,
            ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]
        );
        let all = sum(&allocs, "alloc_space", "");
        assert!(all > 0 && sum(&allocs, "alloc_objects", "") > 0, "{service}");
        assert!(
            sum(&heap, "inuse_space", "") > 0 && sum(&heap, "inuse_objects", "") > 0,
            "{service}"
        );
        let meanwhile = profile(&stack, service, "/debug/pprof/allocs?seconds=1").await?;
        assert!(
            sum(&meanwhile, "alloc_space", "") < all + sum(&heap, "alloc_space", ""),
            "{service}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn heap_profiles_are_switched_and_say_when_they_know_nothing() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .set(REST_API, "MONITORING__PROFILING__HEAP", "false")
        .set(REST_API, "MONITORING__PROFILING__HEAP_SAMPLE_BYTES", "65000")
        .start()
        .await?;
    let switch = async |body: &str| {
        let request = e2e::http_client().put(stack.http(REST_API) + "/debug/heap");
        let answer = request
            .bearer_auth(ADMIN_TOKEN)
            .body(body.to_owned())
            .send()
            .await;
        answer.context("an answer")
    };
    for page in ["heap", "allocs", "heap?seconds=1"] {
        let answer = get(&stack, REST_API, &format!("/debug/pprof/{page}"))
            .send()
            .await?;
        let problem = problem(answer, 409, "profiling_off").await?;
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("PUT /debug/heap"))
        );
    }
    problem(switch("profiling=true").await?, 400, "invalid_body").await?;
    let statistics: Json = switch(r#"{"profiling": true}"#)
        .await?
        .error_for_status()?
        .json()
        .await?;
    assert_eq!(statistics["profiling"], true);
    assert_eq!(statistics["sample_bytes"], 65536, "the next power of two");
    for member in [
        "allocated_bytes",
        "active_bytes",
        "metadata_bytes",
        "resident_bytes",
        "mapped_bytes",
        "arenas",
    ] {
        assert!(
            statistics[member].as_u64().is_some_and(|value| value > 0),
            "{member}"
        );
    }
    stack
        .wait_log(REST_API, |line| line["message"] == "heap profiling switched")
        .await?;
    // What is allocated from now on is known.
    profile(&stack, REST_API, "/debug/pprof/heap").await?;
    let statistics: Json = switch(r#"{"profiling": false}"#)
        .await?
        .error_for_status()?
        .json()
        .await?;
    assert_eq!(
        (&statistics["profiling"], &statistics["profiling_since"]),
        (&json!(false), &Json::Null)
    );
    let answer = get(&stack, REST_API, "/debug/pprof/heap").send().await?;
    problem(answer, 409, "profiling_off").await?;
    assert_eq!(counted(&stack, REST_API, "heap", "ok").await?, 1.0);
    assert_eq!(counted(&stack, REST_API, "heap", "error").await?, 3.0);
    Ok(())
}

#[tokio::test]
async fn cpu_time_is_shown_by_the_code_that_uses_it_one_profile_at_a_time() -> Outcome {
    let (stack, _, rest, _target) = world(Backend::Sqlite).await?;
    for service in SERVICES {
        let first = running(&stack, service, "seconds=3&frequency=250").await?;
        let second = get(&stack, service, "/debug/pprof/profile?seconds=1")
            .send()
            .await?;
        let retry: u64 = second.headers()["retry-after"].to_str()?.parse()?;
        assert!((1..=5).contains(&retry), "{retry}");
        problem(second, 409, "profile_running").await?;
        // Meanwhile it works, and goes on serving.
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            stack.metrics(service).await?;
            rest.get("/api/v1/contexts").await?.expect(200)?;
        }
        let answer = first.await??.error_for_status()?;
        assert!(!answer.headers().contains_key("x-profile-truncated"));
        let bytes = answer.bytes().await?;
        read_by_go(&bytes)?;
        let profile = Profile::read(&bytes)?;
        let types = [("samples", "count"), ("cpu", "nanoseconds")];
        let types = types.map(|(of, unit)| (of.to_owned(), unit.to_owned()));
        assert_eq!(profile.types, types);
        // What `/metrics` costs.
        assert!(sum(&profile, "samples", "telemetry::") > 0, "{service}");
        let used = Duration::from_nanos(sum(&profile, "cpu", "").try_into()?);
        assert!(
            used > Duration::from_millis(5) && used < Duration::from_secs(12),
            "{service}: {used:?}"
        );
        assert!(
            profile
                .samples
                .iter()
                .any(|sample| sample.labels["thread"] == "tokio-rt-worker")
        );
        for outcome in ["ok", "busy"] {
            assert_eq!(
                counted(&stack, service, "cpu", outcome).await?,
                1.0,
                "{service} {outcome}"
            );
        }
    }
    let answer = get(&stack, REST_API, "/debug/pprof/profile?seconds=1&format=svg")
        .send()
        .await?;
    assert_eq!(answer.headers()["content-type"], "image/svg+xml");
    let policy = answer.headers()["content-security-policy"].to_str()?.to_owned();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("sandbox"),
        "{policy}"
    );
    assert!(answer.text().await?.contains("</svg>"));
    for query in [
        "seconds=0",
        "seconds=100000",
        "frequency=0",
        "frequency=1001",
        "format=png",
        "second=1",
    ] {
        let answer = get(&stack, REST_API, &format!("/debug/pprof/profile?{query}"))
            .send()
            .await?;
        problem(answer, 400, "invalid_query").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_profile_ends_with_its_client_or_with_the_service() -> Outcome {
    let mut stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .set(REST_API, "SHUTDOWN__DRAIN", "5s")
        .start()
        .await?;
    // The client hangs up: the next one need not wait.
    running(&stack, REST_API, "seconds=60").await?.abort();
    wait_for("the profile to be given up", async || {
        (counted(&stack, REST_API, "cpu", "cancelled").await.ok()? > 0.0).then_some(())
    })
    .await?;
    let begun = Instant::now();
    let cpu = running(&stack, REST_API, "seconds=60").await?;
    stack.process(REST_API).signal("-TERM")?;
    wait_for("not ready", async || {
        let readyz = e2e::http_client()
            .get(stack.http(REST_API) + "/readyz")
            .send()
            .await;
        (readyz.ok()?.status() == 503).then_some(())
    })
    .await?;
    for page in ["profile?seconds=1", "heap?seconds=1"] {
        let answer = get(&stack, REST_API, &format!("/debug/pprof/{page}"))
            .send()
            .await?;
        problem(answer, 503, "stopping").await?;
    }
    let answer = cpu.await??.error_for_status()?;
    assert_eq!(answer.headers()["x-profile-truncated"], "shutdown");
    Profile::read(&answer.bytes().await?)?;
    let status = stack.process_mut(REST_API).ended(PATIENCE).await?;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "it did not wait for the profile's end"
    );
    Ok(())
}

#[tokio::test]
async fn only_the_token_opens_the_pages_and_a_flood_of_them_hurts_nobody() -> Outcome {
    let (stack, _, rest, _target) = world(Backend::Sqlite).await?;
    for service in SERVICES {
        let url = stack.http(service) + "/debug/pprof/heap";
        let client = e2e::http_client();
        problem(client.get(&url).send().await?, 401, "unauthenticated").await?;
        let mut refusals = Vec::new();
        for _ in 0..50 {
            refusals.push(client.get(&url).bearer_auth("wrong").send());
        }
        for answer in join_all(refusals).await {
            let answer = answer?;
            assert_eq!(answer.headers()["cache-control"], "no-store");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            problem(answer, 401, "unauthenticated").await?;
        }
        // As `go tool pprof http://admin:…@host/…` and browsers do it.
        let basic = client
            .get(&url)
            .basic_auth("admin", Some(ADMIN_TOKEN))
            .send()
            .await?;
        assert_eq!(basic.status(), 200);
        let foreign = get(&stack, service, "/debug/pprof/profile").header("sec-fetch-site", "cross-site");
        problem(foreign.send().await?, 403, "cross_site").await?;

        let scrape = stack.metrics(service).await?;
        let refused: BTreeMap<_, _> = scrape
            .all("admin_requests_refused_total", &[])
            .map(|sample| (sample.labels["reason"].as_str(), sample.value))
            .collect();
        let expected = [
            ("closed", 0.0),
            ("cross_site", 1.0),
            ("no_token", 1.0),
            ("wrong_token", 50.0),
        ];
        assert_eq!(refused, BTreeMap::from(expected));
        let lines = stack.logs(service);
        let logged = lines
            .iter()
            .filter(|line| line["message"] == "admin access refused")
            .count();
        assert!((1..=10).contains(&logged), "{logged}");

        let index = get(&stack, service, "/debug/").send().await?.error_for_status()?;
        let index = index.text().await?;
        let links = index
            .split("href=\"")
            .skip(1)
            .filter_map(|link| link.split('"').next());
        let links: Vec<_> = links.collect();
        assert!(links.len() > 3, "{index}");
        for link in links
            .into_iter()
            .filter(|link| !link.starts_with("/debug/pprof/profile"))
        {
            let answer = get(&stack, service, link).send().await?;
            // There is a page for what is not configured; it says so.
            if link == "/debug/redis" && answer.status() == 404 {
                problem(answer, 404, "not_configured").await?;
            } else {
                assert!(answer.status().is_success(), "{link}: {}", answer.status());
            }
        }
    }
    flood(&stack, REST_API).await?;
    rest.get("/api/v1/contexts").await?.expect(200)?;
    Ok(())
}

/// Fifty at once: some are answered, the others told why not; probes and scrapes notice nothing.
async fn flood(stack: &Stack, service: &'static str) -> Outcome {
    let asked = (0..50).map(|_| tokio::spawn(get(stack, service, "/debug/pprof/heap?seconds=1").send()));
    let asked: Vec<_> = asked.collect();
    for path in ["/metrics", "/healthz", "/readyz"].repeat(5) {
        let answer = e2e::http_client().get(stack.http(service) + path).send().await?;
        assert_eq!(answer.status(), 200, "{path}");
    }
    let mut answered = 0;
    for answer in asked {
        let answer = answer.await??;
        if answer.status() == 200 {
            answered += 1;
        } else {
            problem(answer, 503, "overloaded").await?;
        }
    }
    assert!((8..50).contains(&answered), "{service}: {answered}");
    Ok(())
}

#[tokio::test]
async fn without_a_token_configured_the_pages_are_closed() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .start()
        .await?;
    let mut command = tokio::process::Command::from(stack.process(REST_API).command());
    let ready = stack.directory().join("closed.ready");
    let (http, grpc) = ("127.0.0.1:0", "127.0.0.1:0");
    let mut child = command
        .env_remove("DEVOPS_MCP__ADMIN_TOKEN")
        .env("DEVOPS_MCP__HTTP__ADDRESS", http)
        .env("DEVOPS_MCP__GRPC__ADDRESS", grpc)
        .env("DEVOPS_MCP__READY_FILE", &ready)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let text = wait_for("it to be ready", async || std::fs::read_to_string(&ready).ok()).await?;
    let addresses: Json = serde_json::from_str(&text)?;
    let address = addresses["http"].as_str().context("an address")?;
    for token in ["", ADMIN_TOKEN] {
        let request = e2e::http_client().get(format!("http://{address}/debug/pprof/heap"));
        problem(request.bearer_auth(token).send().await?, 403, "admin_closed").await?;
    }
    child.kill().await?;
    Ok(())
}
