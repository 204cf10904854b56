//! What a rollout and a restart do to those who call meanwhile: nothing that they would notice.

use crate::{Outcome, text};
use anyhow::Context;
use e2e::{
    Backend, Era, Json, PATIENCE, Postgres, Stack, Target,
    process::Process,
    raw::Raw,
    rest::{Answer, Rest},
    stack::{Builder, MCP_SERVER, REST_API},
    wait_at_most, wait_for,
};
use futures_util::StreamExt;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Everything that callers do, again and again; whoever gets no good answer notes why.
struct Load {
    over: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
    done: Arc<AtomicUsize>,
    /// The contexts that were said to be made.
    made: Arc<Mutex<Vec<String>>>,
    callers: JoinSet<()>,
}

impl Load {
    fn start(rest: &Rest, raw: Option<&Raw>) -> Self {
        let mut load = Self {
            over: Arc::default(),
            failures: Arc::default(),
            done: Arc::default(),
            made: Arc::default(),
            callers: JoinSet::new(),
        };
        for caller in 0..3 {
            let (writer, made, turn) = (rest.clone(), load.made.clone(), AtomicUsize::new(0));
            load.again_and_again("a write over REST", move || {
                let name = format!("{caller}-{}", turn.fetch_add(1, Ordering::Relaxed));
                write(writer.clone(), name, made.clone())
            });
            let reader = rest.clone();
            load.again_and_again("a read over REST", move || read(reader.clone()));
        }
        if let Some(raw) = raw {
            for (tool, arguments) in [
                ("context_list", json!({})),
                ("context_create", json!({"name": "over MCP"})),
                ("once", json!({})),
            ] {
                let raw = raw.clone();
                load.again_and_again(tool, move || call(raw.clone(), tool, arguments.clone()));
            }
        }
        load
    }

    fn again_and_again<F>(&mut self, what: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let (over, failures, done) = (self.over.clone(), self.failures.clone(), self.done.clone());
        self.callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                if let Err(error) = make().await {
                    let failed = format!("{what}, after {:?}: {error:#}", asked.elapsed());
                    failures
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(failed);
                }
                done.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    /// Waits for so many more calls.
    async fn more(&self, calls: usize) -> Outcome {
        let enough = self.done.load(Ordering::Relaxed) + calls;
        wait_for("more calls", async || {
            (self.done.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await
    }

    /// Ends it: how many calls there were, and which contexts were made.
    async fn end(mut self) -> anyhow::Result<(usize, Vec<String>)> {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended?;
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        let done = self.done.load(Ordering::Relaxed);
        anyhow::ensure!(
            failures.is_empty(),
            "{} of {done} calls failed: {failures:#?}",
            failures.len()
        );
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((done, made))
    }
}

/// Makes a context, adds to it, changes it.
async fn write(rest: Rest, name: String, made: Arc<Mutex<Vec<String>>>) -> Outcome {
    let context = rest
        .post("/api/v1/contexts", &json!({"name": name}))
        .await?
        .expect(201)?;
    made.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    let path = format!("/api/v1/contexts/{}", text(&context, "id"));
    let items = json!({"items": [{"role": "user", "content": "disk full on node 7"}]});
    rest.post(&format!("{path}/items"), &items).await?.expect(201)?;
    let changed = rest
        .patch(&path, &json!({"status": "archived"}))
        .await?
        .expect(200)?;
    anyhow::ensure!(
        changed["item_count"] == 1,
        "appended once, and not twice: {changed}"
    );
    Ok(())
}

async fn read(rest: Rest) -> Outcome {
    for path in [
        "/api/v1/contexts?limit=5",
        "/api/v1/contexts/search?q=disk",
        "/api/v1/tools",
    ] {
        rest.get(path).await?.expect(200)?;
    }
    Ok(())
}

async fn call(raw: Raw, tool: &str, arguments: Json) -> Outcome {
    let answer = raw
        .call("tools/call", json!({"name": tool, "arguments": arguments}))
        .await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text);
    let response = e2e::raw::response(&answer)?;
    let result = &response["result"];
    anyhow::ensure!(result.is_object() && result["isError"] != true, "{}", answer.text);
    Ok(())
}

fn on(server: &Postgres) -> Builder {
    Stack::builder(Backend::Sqlite)
        .set(REST_API, "DATABASE__URL", &server.url())
        // As in production: other tests wait longer than any outage here.
        .set(REST_API, "DATABASE__ACQUIRE_TIMEOUT", "3s")
}

#[tokio::test]
async fn a_restart_of_postgresql_fails_no_request() -> Outcome {
    let Some(mut server) = Postgres::start().await? else {
        return Ok(());
    };
    let target = Target::start().await?;
    let stack = on(&server).allow_private().start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    let tool = json!({"name": "once", "description": "d", "method": "POST", "url": target.url("/echo/x")});
    rest.post("/api/v1/tools", &tool).await?.expect(201)?;
    let mcp = stack.mcp(&key, Era::Legacy).await?;
    mcp.wait_for_tool("once").await?;
    let load = Load::start(&rest, Some(&stack.raw(&key)));
    load.more(60).await?;
    for away in [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(6)] {
        server.stop().await?;
        tokio::time::sleep(away).await;
        server.begin().await?;
        load.more(60).await?;
    }
    let (calls, made) = load.end().await?;
    println!("{calls} calls");
    let scrape = stack.metrics(REST_API).await?;
    assert!(
        scrape.sum("db_retries_total", &[]) > 0.0,
        "nothing was made again"
    );
    // What was made was made once.
    let mut connection = PgConnection::connect(&server.url()).await?;
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM contexts WHERE name <> 'over MCP'")
        .fetch_all(&mut connection)
        .await?;
    let mut sorted = (names, made);
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.0, sorted.1);
    // Signals between replicas are heard again.
    stack
        .wait_metric(REST_API, "dependency_up", &[("dependency", "database")], |up| {
            up == 1.0
        })
        .await?;
    stack
        .wait_metric(REST_API, "rest_api_leader", &[], |holds| holds == 1.0)
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_old_version_works_on_a_newer_schema_and_survives_a_migration_that_fails() -> Outcome {
    let Some(server) = Postgres::start().await? else {
        return Ok(());
    };
    let mut stack = on(&server).services(&[REST_API]).start().await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let load = Load::start(&rest, None);
    load.more(40).await?;

    let failing = with_fault(&stack, "failing_migration");
    let (log, status) = failed_start(failing?).await?;
    assert_eq!(status, Some(1), "{log}");
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("99990101000001_failing_migration"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("there_is_no_such_table"), "{told:?}");
    let mut connection = PgConnection::connect(&server.url()).await?;
    let left = "SELECT COUNT(*) FROM pg_class WHERE relname IN ('failing_migration', 'next_version')";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(left)
            .fetch_one(&mut connection)
            .await?,
        0
    );

    // Who reads for long holds a lock that the migration waits for: it must not make the others wait with it.
    let mut reader = PgConnection::connect(&server.url()).await?;
    reader.execute("BEGIN; SELECT COUNT(*) FROM contexts").await?;
    let (mut first, mut second) = (
        with_fault(&stack, "next_migration")?,
        with_fault(&stack, "next_migration")?,
    );
    let both = tokio::spawn(async move {
        let started = tokio::join!(first.start(), second.start());
        (started.0.and(started.1), first, second)
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.more(50).await?;
    reader.execute("COMMIT").await?;
    let (started, first, second) = both.await?;
    started.context("both of the next version")?;
    let applied = "SELECT COUNT(*) FROM _sqlx_migrations WHERE version = 99990101000000 AND success";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(applied)
            .fetch_one(&mut connection)
            .await?,
        1
    );

    // Side by side, and the old one begun anew on the newer schema.
    load.more(60).await?;
    let newer = Load::start(&rest.at(&address(&first)), None);
    newer.more(40).await?;
    newer.end().await?;
    let (calls, _) = load.end().await?;
    println!("{calls} calls");
    stack.process(REST_API).signal("-TERM")?;
    stack.process_mut(REST_API).ended(PATIENCE).await?;
    stack.process_mut(REST_API).start().await?;
    let load = Load::start(&rest, None);
    load.more(40).await?;
    load.end().await?;
    drop((first, second));
    Ok(())
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing_on_sqlite_either() -> Outcome {
    let mut stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API])
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let rest_api = stack.process_mut(REST_API);
    rest_api.signal("-TERM")?;
    rest_api.ended(PATIENCE).await?;
    rest_api.set("DEVOPS_MCP__TEST_FAULTS", "failing_migration");
    let Err(error) = rest_api.start().await else {
        anyhow::bail!("it started")
    };
    assert!(
        error.to_string().contains("99990101000001_failing_migration"),
        "{error:#}"
    );
    for fault in ["next_migration", ""] {
        rest_api.kill();
        rest_api.set("DEVOPS_MCP__TEST_FAULTS", fault);
        rest_api.start().await?;
        rest.post("/api/v1/contexts", &json!({"name": "on what there is"}))
            .await?
            .expect(201)?;
        read(rest.clone()).await?;
    }
    Ok(())
}

/// Another rest-api beside the stack's, yet to be started.
fn with_fault(stack: &Stack, fault: &str) -> anyhow::Result<Process> {
    let free = || format!("127.0.0.1:{}", e2e::process::free_port());
    stack.process(REST_API).replica(&[
        ("DEVOPS_MCP__HTTP__ADDRESS", free()),
        ("DEVOPS_MCP__GRPC__ADDRESS", free()),
        ("DEVOPS_MCP__TEST_FAULTS", fault.to_owned()),
    ])
}

fn address(process: &Process) -> String {
    let address = process.variable("DEVOPS_MCP__HTTP__ADDRESS").unwrap_or_default();
    format!("http://{address}")
}

/// Starts what cannot start; its log and its exit code.
async fn failed_start(process: Process) -> anyhow::Result<(String, Option<i32>)> {
    let output = tokio::process::Command::from(process.command()).output().await?;
    let all = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8_lossy(&all).into_owned(), output.status.code()))
}

#[tokio::test]
async fn standing_streams_end_when_a_replica_is_told_to_stop() -> Outcome {
    let builder = Stack::builder(Backend::Sqlite).services(&[REST_API, MCP_SERVER]);
    let mut stack = builder.set(MCP_SERVER, "SHUTDOWN__DRAIN", "10s").start().await?;
    let key = stack.tenant("acme", "all").await?;
    let raw = stack.raw(&key);
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": Era::Legacy.version(), "capabilities": {}, "clientInfo": {"name": "e2e", "version": "0"},
    }});
    let answer = raw.post().json(&initialize).send().await?;
    let session = answer.headers()["mcp-session-id"].to_str()?.to_owned();
    answer.text().await?;
    let standing = e2e::http_client()
        .get(stack.mcp_url())
        .bearer_auth(&key)
        .header("accept", "text/event-stream")
        .header("mcp-session-id", &session)
        .header("mcp-protocol-version", Era::Legacy.version())
        .send()
        .await?;
    assert_eq!(standing.status(), 200);
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let listening = raw.modern("subscriptions/listen", filter).send().await?;
    assert_eq!(listening.status(), 200);

    let told = Instant::now();
    stack.process(MCP_SERVER).signal("-TERM")?;
    for stream in [standing, listening] {
        let mut bytes = stream.bytes_stream();
        // To its end, in order: a stream that breaks off is an error.
        while let Some(part) = bytes.next().await {
            part?;
        }
    }
    assert!(
        told.elapsed() < Duration::from_secs(9),
        "they end with the drain, not after it"
    );
    // Who still comes is served, for the last time on that connection.
    let answer = Answer::read(raw.modern("tools/list", json!({})).send().await?).await?;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (200, "close"),
        "{answer:?}"
    );
    let status = stack.process_mut(MCP_SERVER).ended(PATIENCE).await?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn the_shared_gauges_pass_to_the_next_replica_and_are_never_shown_twice() -> Outcome {
    if !Backend::available().contains(&Backend::Postgres) {
        return Ok(());
    }
    let builder = Stack::builder(Backend::Postgres).services(&[REST_API]);
    let mut stack = builder.set(REST_API, "SHUTDOWN__DRAIN", "20s").start().await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    rest.post("/api/v1/contexts", &json!({"name": "one"}))
        .await?
        .expect(201)?;
    let (_second, url) = stack.replica(REST_API).await?;
    let (first_url, told) = (stack.http(REST_API), async |url: &str| {
        Some(
            e2e::scrape::Scrape::of(url)
                .await
                .ok()?
                .all("mcp_contexts_active", &[])
                .count(),
        )
    });
    wait_for("the first one to tell", async || {
        (told(&first_url).await? == 1).then_some(())
    })
    .await?;
    stack.process(REST_API).signal("-TERM")?;
    // Prometheus goes on showing what the first one told until it asks it again: every 15 s.
    let last_told = Cell::new(Instant::now());
    wait_at_most(Duration::from_secs(60), "the second one to tell", async || {
        let (first, second) = (told(&first_url).await, told(&url).await?);
        if first == Some(1) {
            last_told.set(Instant::now());
        }
        (second == 1).then_some(())
    })
    .await?;
    assert!(
        last_told.get().elapsed() >= Duration::from_secs(15),
        "a sum would count twice"
    );
    stack.process_mut(REST_API).kill();
    Ok(())
}
