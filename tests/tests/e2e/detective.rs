//! A leak, a blocking call, a call that keeps a core busy and a slow query are planted in the real service, and found as an
//! engineer on call would: with the debugging pages, metrics and log lines, and nothing else.

use crate::{Outcome, text};
use e2e::{
    Backend, Json, Stack,
    pprof::{Profile, grown, top},
    rest::{Answer, Rest},
    stack::{ADMIN_TOKEN, REST_API},
    wait_for,
};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::task::JoinSet;

/// How long the planted faults hold a request up, milliseconds.
const HELD_UP_MS: f64 = 600.0;
/// The planted functions, as profiles name them.
const LEAK: &str = "chassis::faults::planted_leak";
const BUSY: &str = "chassis::faults::planted_busy_call";
/// The operation that the planted statement runs under.
const SLOW_STATEMENT: &str = "contexts.planted_slow";

/// A rest-api with a fault, a tenant that uses it, and somebody with the admin token and questions.
struct Scene {
    stack: Stack,
    rest: Rest,
    client: reqwest::Client,
    context: String,
}

impl Scene {
    async fn of(fault: &str, backend: Backend) -> anyhow::Result<Self> {
        let stack = Stack::builder(backend)
            .services(&[REST_API])
            .set(REST_API, "TEST_FAULTS", fault)
            .set(REST_API, "RATE_LIMIT__PER_SECOND", "10000")
            .set(REST_API, "RATE_LIMIT__BURST", "10000")
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let made = rest
            .post("/api/v1/contexts", &json!({"name": "incident"}))
            .await?
            .expect(201)?;
        Ok(Self {
            context: text(&made, "id").to_owned(),
            client: e2e::http_client(),
            stack,
            rest,
        })
    }

    async fn ask(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let url = format!("{}{path}", self.stack.http(REST_API));
        Ok(self.client.get(url).bearer_auth(ADMIN_TOKEN).send().await?)
    }

    async fn page(&self, path: &str) -> anyhow::Result<Answer> {
        Answer::read(self.ask(path).await?).await
    }

    async fn profile(&self, path: &str) -> anyhow::Result<Profile> {
        let response = self.ask(path).await?.error_for_status()?;
        Profile::read(&response.bytes().await?)
    }

    /// The requests that are kept because they were slow, newest first.
    async fn slow_requests(&self) -> anyhow::Result<Vec<Json>> {
        let page = self.page("/debug/traces?reason=slow").await?.expect(200)?;
        Ok(page["requests"].as_array().cloned().unwrap_or_default())
    }

    /// The slow request of that name; it is kept once its response has begun.
    async fn slow_request(&self, name: &str) -> anyhow::Result<Json> {
        wait_for(&format!("{name} to be kept as slow"), async || {
            let requests = self.slow_requests().await.ok()?;
            requests.into_iter().find(|request| request["name"] == name)
        })
        .await
    }

    /// Asks the same again and again, `at_once` at a time, until it is told to stop.
    fn traffic(&self, path: &str, at_once: usize) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..at_once {
            let (rest, path, stop) = (self.rest.clone(), path.to_owned(), stop.clone());
            callers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    rest.get(&path).await?.expect(200)?;
                }
                anyhow::Ok(())
            });
        }
        Traffic { stop, callers }
    }
}

/// Callers in the background.
struct Traffic {
    stop: Arc<AtomicBool>,
    callers: JoinSet<anyhow::Result<()>>,
}

impl Traffic {
    async fn end(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended??;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_leak_is_found_in_the_heap_profile() -> Outcome {
    let scene = Scene::of("leak", Backend::Sqlite).await?;
    let requests = async || -> Outcome {
        for _ in 0..400 {
            scene.rest.get("/api/v1/contexts").await?.expect(200)?;
        }
        Ok(())
    };
    requests().await?;
    let first = scene.profile("/debug/pprof/heap").await?.ours("inuse_space")?;
    requests().await?;
    let second = scene.profile("/debug/pprof/heap").await?.ours("inuse_space")?;

    let (function, bytes) = top(&second).expect("something is allocated");
    assert_eq!(function, LEAK, "holds the most memory: {second:#?}");
    // 800 times 64 KiB, of which a sample is taken each 512 KiB on average.
    let leaked = 800 * (64 << 10);
    assert!((leaked / 2..leaked * 2).contains(&bytes), "{bytes} of {leaked}");
    let growth = grown(&first, &second);
    let (function, bytes) = top(&growth).expect("something has grown");
    assert_eq!(function, LEAK, "grows the most: {growth:#?}");
    assert!(
        bytes > leaked / 8,
        "{bytes} between the profiles, of {}",
        leaked / 2
    );

    let warned = scene
        .stack
        .wait_log(REST_API, |line| line.to_string().contains("test_faults"))
        .await?;
    assert_eq!(warned["level"], "WARN", "{warned}");
    Ok(())
}

#[tokio::test]
async fn a_blocking_call_is_found_by_its_long_polls() -> Outcome {
    let scene = Scene::of("blocking_call", Backend::Sqlite).await?;
    scene.rest.get("/api/v1/contexts").await?.expect(200)?;
    let path = format!("/api/v1/contexts/{}", scene.context);

    // What the alert sees, and the task page while it happens.
    let traffic = scene.traffic(&path, 1);
    wait_for("a request that is being polled for long", async || {
        let page = scene.page("/debug/pprof/tasks?debug=1").await.ok()?.text;
        let polled = page.split_once("requests being polled:")?.1;
        let long = |line: &str| {
            let millis = line.rsplit_once(", for ")?.1.strip_suffix("ms")?;
            Some(millis.parse::<u32>().ok()? >= 100)
        };
        polled
            .lines()
            .any(|line| line.contains("http") && long(line) == Some(true))
            .then_some(())
    })
    .await?;
    wait_for("the longest poll in progress to be measured", async || {
        let metrics = scene.stack.metrics(REST_API).await.ok()?;
        (metrics.sum("runtime_longest_poll_seconds", &[]) >= 0.1).then_some(())
    })
    .await?;
    traffic.end().await?;
    let task = [("task", "http")];
    scene
        .stack
        .wait_metric(REST_API, "runtime_long_polls_total", &task, |polls| polls >= 1.0)
        .await?;

    // The log line names the request, whose record says what it was, and that nothing it waited for explains its time.
    let line = scene
        .stack
        .wait_log(REST_API, |line| {
            text(line, "message").contains("a poll took too long") && line["request_id"].is_string()
        })
        .await?;
    assert_eq!(line["level"], "WARN", "{line}");
    assert!(line["poll_ms"].as_f64() >= Some(HELD_UP_MS), "{line}");
    let name = "GET /api/v1/contexts/{id}";
    let request = scene.slow_request(name).await?;
    assert!(request["own_ms"].as_f64() >= Some(HELD_UP_MS), "{request}");
    let id = text(&line, "request_id");
    let found = scene
        .page(&format!("/debug/traces/{id}?format=json"))
        .await?
        .expect(200)?;
    assert_eq!(found["requests"][0]["name"], name, "{found}");
    Ok(())
}

#[tokio::test]
async fn a_busy_call_is_found_in_the_cpu_profile() -> Outcome {
    let scene = Scene::of("busy_call", Backend::Sqlite).await?;
    let traffic = scene.traffic("/api/v1/tools", 1);
    let profile = scene.profile("/debug/pprof/profile?seconds=2").await?;
    let svg = scene.page("/debug/pprof/profile?seconds=2&format=svg").await?;
    traffic.end().await?;

    let cpu = profile.ours("cpu")?;
    let (function, nanos) = top(&cpu).expect("something was computed");
    assert_eq!(function, BUSY, "takes the most CPU: {cpu:#?}");
    let all: i64 = cpu.values().sum();
    assert!(nanos * 2 > all, "more than all else: {cpu:#?}");
    svg.expect(200)?;
    assert!(
        svg.header("content-type").starts_with("image/svg+xml"),
        "{:?}",
        svg.headers
    );
    assert!(
        svg.text.contains("planted_busy_call"),
        "the flame graph names it as well"
    );
    // The request is slow for no reason but itself.
    let request = scene.slow_request("GET /api/v1/tools").await?;
    assert!(request["own_ms"].as_f64() >= Some(HELD_UP_MS), "{request}");
    Ok(())
}

#[tokio::test]
async fn a_slow_query_is_found_and_leads_to_its_requests() -> Outcome {
    for backend in Backend::available() {
        let scene = Scene::of("slow_query", backend).await?;
        let one = format!("/api/v1/contexts/{}", scene.context);
        for path in [
            one.as_str(),
            "/api/v1/contexts",
            "/api/v1/contexts",
            "/api/v1/tools",
        ] {
            scene.rest.get(path).await?.expect(200)?;
        }
        // Where PostgreSQL does not count statements the page says so, and shows what the service has timed.
        let page = scene.page("/debug/database/slow-queries").await?;
        let counted = page.status == 200;
        let page = page.expect(if counted { 200 } else { 409 })?;
        let own = match &page["services_view"] {
            Json::Null => &page["queries"],
            view => &view["queries"],
        };
        let worst = &own[0];
        assert_eq!(worst["operation"], SLOW_STATEMENT, "{backend:?}: {page:#}");
        assert_eq!(worst["calls"], 2, "{backend:?}: {worst}");
        if counted && backend == Backend::Postgres {
            let known = page["queries"].as_array().cloned().unwrap_or_default();
            assert!(
                known
                    .iter()
                    .any(|statement| text(statement, "query").contains("pg_sleep")),
                "{page:#}"
            );
        }

        // One run of it, the request that it ran for, and what that waited for.
        let run = &page["slow_statements"][0];
        assert_eq!(run["operation"], SLOW_STATEMENT, "{backend:?}: {page:#}");
        let request = scene.slow_request("GET /api/v1/contexts").await?;
        for id in ["trace_id", "request_id"] {
            let path = format!("/debug/traces/{}?format=json", text(run, id));
            let found = scene.page(&path).await?.expect(200)?;
            assert_eq!(found["requests"][0]["name"], request["name"], "{found}");
        }
        let children = request["children"].as_array().cloned().unwrap_or_default();
        let took = |child: &Json| child["duration_ms"].as_f64().unwrap_or_default();
        let longest = children.iter().max_by(|a, b| took(a).total_cmp(&took(b)));
        let longest = longest.expect("it waited for something");
        assert_eq!(
            (text(longest, "kind"), text(longest, "name")),
            ("db", SLOW_STATEMENT),
            "{backend:?}: {request}"
        );
    }
    Ok(())
}
