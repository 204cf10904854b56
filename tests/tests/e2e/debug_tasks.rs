//! The debug page of the runtime's tasks, as Go's tools and people read it.

use crate::Outcome;
use anyhow::Context as _;
use e2e::{
    Backend, Stack,
    pprof::Profile,
    stack::{ADMIN_TOKEN, MCP_SERVER, REST_API, WORKER},
    wait_for,
};
use tokio::net::TcpStream;

const CONNECTION: &str = "http connection";

async fn page(stack: &Stack, service: &str, path: &str) -> anyhow::Result<reqwest::Response> {
    let url = format!("{}{path}", stack.http(service));
    let request = e2e::http_client().get(url).bearer_auth(ADMIN_TOKEN);
    Ok(request.send().await?)
}

async fn profile(stack: &Stack, service: &str, path: &str) -> anyhow::Result<Profile> {
    let response = page(stack, service, path).await?.error_for_status()?;
    Profile::read(&response.bytes().await?).with_context(|| format!("{service}: {path}"))
}

/// The names of tasks, each with the place where it is spawned.
fn named(profile: &Profile) -> Vec<(String, String)> {
    let samples = profile.samples.iter().filter(|sample| sample.stack.len() == 3);
    samples
        .map(|sample| (sample.stack[1].clone(), sample.stack[0].clone()))
        .collect()
}

#[tokio::test]
async fn each_service_names_its_tasks_and_where_they_are_spawned() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite).start().await?;
    // Name, and the file that the reader is led to.
    let expected = [
        (REST_API, "queue-sweep", "crates/rest-api/src/queue/sweep.rs:"),
        (REST_API, "grpc server", "crates/chassis/src/lifecycle.rs:"),
        (MCP_SERVER, "catalogue-watch", "crates/mcp-server/src/watch.rs:"),
        (WORKER, "queue heartbeats", "crates/worker/src/queue.rs:"),
        (WORKER, "job run_schedules", "crates/worker/src/jobs/mod.rs:"),
    ];
    for service in [REST_API, MCP_SERVER, WORKER] {
        for path in ["/debug/pprof/tasks", "/debug/pprof/goroutine"] {
            let profile = profile(&stack, service, path).await?;
            let types: Vec<_> = profile
                .types
                .iter()
                .map(|(name, unit)| (&**name, &**unit))
                .collect();
            assert_eq!(
                types,
                [("busy", "nanoseconds"), ("age", "seconds"), ("tasks", "count")]
            );
            let named = named(&profile);
            let common = [
                (service, CONNECTION, "crates/chassis/src/http/serve.rs:"),
                (service, "telemetry upkeep", "crates/telemetry/src/lib.rs:"),
            ];
            let own = expected.iter().filter(|(of, ..)| *of == service);
            for (_, name, file) in own.chain(&common) {
                let found = named
                    .iter()
                    .any(|(task, place)| task == name && place.starts_with(file));
                assert!(found, "{service}: {name} at {file}…: {named:#?}");
            }
            let labelled = |sample: &e2e::pprof::Sample| sample.labels.get("state") == sample.stack.last();
            let mut tasks = profile.samples.iter().filter(|sample| sample.stack.len() == 3);
            assert!(tasks.all(labelled), "{:?}", profile.samples);
        }
        let text = page(&stack, service, "/debug/pprof/goroutine?debug=1")
            .await?
            .text()
            .await?;
        assert!(text.starts_with("tasks: total "), "{service}: {text}");
        assert!(
            text.contains(" @ crates/chassis/src/http/serve.rs:"),
            "{service}: {text}"
        );
        assert!(text.contains("\nspawned by libraries: "), "{service}: {text}");
        let each = page(&stack, service, "/debug/pprof/tasks?debug=2")
            .await?
            .text()
            .await?;
        assert!(each.contains("\ntask [idle, "), "{service}: {each}");
    }
    Ok(())
}

#[tokio::test]
async fn the_count_follows_the_connections() -> Outcome {
    const MORE: usize = 25;
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .start()
        .await?;
    let connections = async || {
        let profile = profile(&stack, REST_API, "/debug/pprof/tasks").await.ok()?;
        let tasks = profile.types.iter().position(|(name, _)| name == "tasks")?;
        let such = profile
            .samples
            .iter()
            .filter(|sample| sample.labels.get("task").is_some_and(|task| task == CONNECTION));
        usize::try_from(such.map(|sample| sample.values[tasks]).sum::<i64>()).ok()
    };
    // Those of this test's own client may come and go.
    let before = connections().await.context("a profile")?;
    let address = stack.http(REST_API).trim_start_matches("http://").to_owned();
    let mut open = Vec::new();
    for _ in 0..MORE {
        open.push(TcpStream::connect(&address).await?);
    }
    wait_for("a task for each connection", async || {
        (connections().await? >= MORE).then_some(())
    })
    .await?;
    let scrape = stack.metrics(REST_API).await?;
    let live = scrape.sum("runtime_tasks", &[("task", CONNECTION)]);
    assert!(live >= MORE as f64, "the metric tells the same: {live}");
    drop(open);
    wait_for("none when they are closed", async || {
        (connections().await? < before + MORE).then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_told_without_the_token_or_of_what_this_build_cannot() -> Outcome {
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[WORKER])
        .start()
        .await?;
    for path in ["/debug/pprof/tasks", "/debug/pprof/goroutine?debug=1"] {
        let url = format!("{}{path}", stack.http(WORKER));
        let refused = e2e::http_client().get(url).send().await?;
        assert_eq!(refused.status(), 401, "{path}");
    }
    let refused = page(&stack, WORKER, "/debug/pprof/tasks?debug=7").await?;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await?.contains("invalid_query"));
    let refused = page(&stack, WORKER, "/debug/pprof/tasks?dump=1").await?;
    assert_eq!(refused.status(), 501);
    assert!(refused.text().await?.contains("--features chassis/taskdump"));
    Ok(())
}
