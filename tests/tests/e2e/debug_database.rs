//! The pages that show what is wrong with the database and with Redis, and the way from a slow statement to its trace.

use crate::{Outcome, text};
use anyhow::Context as _;
use e2e::{
    Backend, Json, Proxy, Redis, Sink, Stack,
    rest::{Answer, Rest},
    stack::{ADMIN_TOKEN, MCP_SERVER, REST_API},
    trace::Trace,
    wait_for,
};
use http::Method;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const SLOW_QUERIES: &str = "/debug/database/slow-queries";
const POOL: &str = "/debug/database/pool";
const REDIS: &str = "/debug/redis";
/// The pages give up after 5 s; this machine may be busy.
const TOLD: Duration = Duration::from_secs(20);

/// Somebody with the admin token.
fn admin(stack: &Stack, service: &str) -> Rest {
    Rest::new(&stack.http(service), Some(ADMIN_TOKEN))
}

fn array<'a>(value: &'a Json, member: &str) -> &'a [Json] {
    value[member].as_array().map_or(&[], Vec::as_slice)
}

#[tokio::test]
async fn a_slow_statement_leads_to_its_trace() -> Outcome {
    for backend in Backend::available() {
        let sink = Sink::start().await?;
        let stack = Stack::builder(backend)
            .services(&[REST_API])
            .sink(&sink)
            .set(REST_API, "TEST_FAULTS", "slow_query")
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let answer = rest.get("/api/v1/contexts").await?;
        answer.expect(200)?;
        let (trace, request) = (answer.header("x-trace-id"), answer.header("x-request-id"));

        let admin = admin(&stack, REST_API);
        let page = admin.get(SLOW_QUERIES).await?;
        // PostgreSQL without its extension says how to come by it, and is no reason to say nothing.
        let counted = page.status == 200;
        if !counted {
            let problem = page.problem(409, "statistics_not_kept")?;
            assert!(text(&problem, "remedy").contains("CREATE EXTENSION"), "{problem}");
        }
        let page = page.json();
        assert!(counted || backend == Backend::Postgres, "{page}");
        let slow = &array(&page, "slow_statements")[0];
        assert_eq!(
            (text(slow, "trace_id"), text(slow, "request_id"), &slow["sampled"]),
            (trace, request, &json!(true)),
            "{backend:?}: {page:#}"
        );
        assert!(slow["duration_ms"].as_f64() > Some(500.0), "{slow}");
        sink.wait(trace, |spans| {
            spans.iter().any(|span| span.name == text(slow, "operation"))
        })
        .await?;

        let line = stack
            .wait_log(REST_API, |line| {
                text(line, "message") == "slow statement" && line["trace_id"] == json!(trace)
            })
            .await?;
        assert_eq!(line["operation"], slow["operation"], "{line}");

        let queries = array(&page, "queries");
        if counted {
            let from = if backend == Backend::Sqlite {
                "rest-api"
            } else {
                "pg_stat_statements"
            };
            assert_eq!(
                (text(&page, "source"), page["since"].is_string()),
                (from, true),
                "{page:#}"
            );
            let planted = if backend == Backend::Sqlite {
                "RECURSIVE"
            } else {
                "pg_sleep"
            };
            let planted = queries
                .iter()
                .find(|query| text(query, "query").contains(planted));
            let planted = planted.with_context(|| format!("not among the slow ones: {page:#}"))?;
            for field in ["calls", "mean_exec_time", "max_exec_time", "total_exec_time"] {
                assert!(planted[field].as_f64() >= Some(1.0), "{field} in {planted}");
            }
            assert!(
                !text(planted, "query").contains("/*"),
                "comments are taken out: {planted}"
            );
            let all = admin
                .get(&format!("{SLOW_QUERIES}?min_mean_ms=0&limit=2&order=calls"))
                .await?;
            let all = all.expect(200)?;
            let calls: Vec<_> = array(&all, "queries")
                .iter()
                .map(|query| query["calls"].as_u64())
                .collect();
            assert!(calls.len() == 2 && calls[0] >= calls[1], "{all:#}");
        }
        refuses_what_it_does_not_know(&admin).await?;
    }
    Ok(())
}

async fn refuses_what_it_does_not_know(admin: &Rest) -> Outcome {
    for query in [
        "order=sideways",
        "limit=0",
        "limit=many",
        "limit=1000000",
        "min_mean_ms=-1",
        "min_mean_ms=NaN",
        "mean=5",
    ] {
        let refused = admin.get(&format!("{SLOW_QUERIES}?{query}")).await?;
        let problem = refused.problem(400, "invalid_query")?;
        assert_eq!(problem["allowed"]["order"][0], "mean", "{query}: {problem}");
    }
    for page in [SLOW_QUERIES, POOL, REDIS] {
        let stranger = admin.with_key(Some("not-the-admin-token-0123456789"));
        stranger.get(page).await?.problem(401, "unauthenticated")?;
    }
    Ok(())
}

/// The server's own log line is looked for where it can be seen: a server that is told so sends it to the client, too,
/// whose driver logs it.
#[tokio::test]
async fn postgresqls_log_names_the_trace_of_a_sampled_request_and_no_other() -> Outcome {
    if !Backend::available().contains(&Backend::Postgres) {
        return Ok(());
    }
    let url = Backend::Postgres.database_url(std::path::Path::new("")).await?;
    let name = url.rsplit('/').next().unwrap_or_default();
    let name = name.split('?').next().unwrap_or_default();
    let mut superuser = PgConnection::connect(&url).await?;
    for setting in ["log_min_duration_statement = 0", "client_min_messages = log"] {
        let alter = format!("ALTER DATABASE {name} SET {setting}");
        superuser.execute(sqlx::AssertSqlSafe(alter)).await?;
    }
    let sink = Sink::start().await?;
    let stack = Stack::builder(Backend::Postgres)
        .services(&[REST_API])
        .sink(&sink)
        .set(REST_API, "DATABASE__URL", &url)
        .set(
            REST_API,
            "MONITORING__LOGGING__LEVEL",
            "info,sqlx::postgres::notice=trace",
        )
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let body = json!({"name": "a context of hunter2"});
    let (sampled, unsampled) = (Trace::start(), Trace::start());
    for (trace, flags) in [(&sampled, "01"), (&unsampled, "00")] {
        let parent = format!("00-{}-{}-{flags}", trace.trace_id, trace.span_id);
        let headers = [("traceparent", parent.as_str())];
        let made = rest
            .send(Method::POST, "/api/v1/contexts", &headers, Some(&body))
            .await?;
        made.expect(201)?;
    }

    let spans = sink
        .wait(&sampled.trace_id, |spans| {
            spans.iter().any(|span| span.name == "contexts.insert")
        })
        .await?;
    let span = spans
        .iter()
        .find(|span| span.name == "contexts.insert")
        .context("waited for")?;
    assert!(
        !span.attribute("db.query.text").contains("traceparent"),
        "{span:?}"
    );
    let comment = format!(
        "/*db_operation='contexts.insert',traceparent='00-{}-{}-01'*/",
        sampled.trace_id, span.span_id
    );
    let line = stack
        .wait_log(REST_API, |line| line.to_string().contains(&comment))
        .await?;
    let message = text(&line, "message");
    assert!(
        message.starts_with("duration: ") && message.lines().count() == 1,
        "{line}"
    );
    let lines = stack.logs(REST_API);
    let logged = |text: &str| lines.iter().any(|line| text_of(line).contains(text));
    assert!(
        logged("db_operation='transaction.begin'"),
        "the whole transaction is the trace's"
    );
    let of_unsampled = lines.iter().filter(|line| {
        line["trace_id"] == unsampled.trace_id && text_of(line).contains("INSERT INTO contexts")
    });
    let of_unsampled: Vec<_> = of_unsampled.collect();
    assert!(
        !of_unsampled.is_empty() && of_unsampled.iter().all(|line| !text_of(line).contains("/*")),
        "as it stands in the program: {of_unsampled:?}"
    );
    Ok(())
}

fn text_of(line: &Json) -> String {
    line.to_string()
}

#[tokio::test]
async fn the_pages_answer_while_the_pool_is_used_up() -> Outcome {
    if !Backend::available().contains(&Backend::Postgres) {
        return Ok(());
    }
    let stack = Stack::builder(Backend::Postgres)
        .services(&[REST_API])
        .set(REST_API, "DATABASE__MAX_CONNECTIONS", "2")
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    rest.get("/api/v1/contexts").await?.expect(200)?;
    let url = stack.process(REST_API).variable("DEVOPS_MCP__DATABASE__URL");
    let mut holder = PgConnection::connect(url.context("it has a database")?).await?;
    let mut held = holder.begin().await?;
    held.execute("LOCK TABLE contexts IN ACCESS EXCLUSIVE MODE")
        .await?;
    let blocked: Vec<_> = (0..4)
        .map(|_| {
            let rest = rest.clone();
            tokio::spawn(async move { rest.get("/api/v1/contexts").await })
        })
        .collect();

    let admin = admin(&stack, REST_API);
    let page = wait_for("the pool to be used up", async || {
        let page = admin.get(POOL).await.ok()?.expect(200).ok()?;
        (page["pools"][0]["waiting"].as_u64() >= Some(2)).then_some(page)
    })
    .await?;
    assert_eq!(
        (&page["pools"][0]["in_use"], &page["pools"][0]["max"]),
        (&json!(2), &json!(2)),
        "{page:#}"
    );
    assert!(
        page["server"]["waiting_for_locks"].as_u64() >= Some(1),
        "{page:#}"
    );
    let answer = admin.get(SLOW_QUERIES).await?;
    assert!(matches!(answer.status.as_u16(), 200 | 409), "{}", answer.text);

    held.rollback().await?;
    for one in blocked {
        one.await??.expect(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_pool_page_tells_of_pools_server_and_settings() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest) = crate::rest_api(backend).await?;
        rest.post("/api/v1/contexts", &json!({"name": "c"}))
            .await?
            .expect(201)?;
        let page = admin(&stack, REST_API).get(POOL).await?.expect(200)?;
        let names: Vec<_> = array(&page, "pools")
            .iter()
            .map(|pool| text(pool, "name"))
            .collect();
        let server = &page["server"];
        if backend == Backend::Sqlite {
            assert_eq!(names, ["read", "write"], "{page:#}");
            assert_eq!(server["journal_mode"], "wal", "{page:#}");
            assert!(
                server["wal_bytes"].is_u64() && server["page_count"].as_u64() > Some(0),
                "{page:#}"
            );
        } else {
            assert_eq!(names, ["all"], "{page:#}");
            assert_eq!(server["is_replica"], json!(false), "{page:#}");
            assert!(
                server["version"].is_string() && server["oldest_connection_seconds"].is_number(),
                "{page:#}"
            );
        }
        assert!(
            page["pools"][0]["acquired"]["count"].as_u64() > Some(0),
            "{page:#}"
        );
        assert_eq!(page["settings"]["slow_statement"], "500ms", "{page:#}");
    }
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_away_is_told_soon_and_with_what_is_known() -> Outcome {
    if !Backend::available().contains(&Backend::Postgres) {
        return Ok(());
    }
    let (url, proxy) = Backend::database_behind_proxy().await?;
    let stack = Stack::builder(Backend::Postgres)
        .services(&[REST_API])
        .set(REST_API, "DATABASE__URL", &url)
        .start()
        .await?;
    let admin = admin(&stack, REST_API);
    for lose in [Proxy::cut, Proxy::silence] {
        lose(&proxy);
        for page in [SLOW_QUERIES, POOL] {
            let started = Instant::now();
            let problem = admin.get(page).await?.problem(503, "unavailable")?;
            assert!(
                started.elapsed() < TOLD,
                "{page}: told after {:?}",
                started.elapsed()
            );
            assert!(
                text(&problem, "detail").contains("the database does not answer: "),
                "{problem}"
            );
            let known = if page == POOL { "pools" } else { "slow_statements" };
            assert!(problem[known].is_array(), "{problem:#}");
        }
        proxy.restore();
    }
    wait_for("the database to be asked again", async || {
        admin.get(POOL).await.ok()?.expect(200).ok()
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn redis_tells_how_it_is_and_no_secret() -> Outcome {
    let Some(redis) = Redis::start(e2e::process::free_port()) else {
        return Ok(());
    };
    let stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, MCP_SERVER])
        .redis(&redis.url())
        .start()
        .await?;
    say(&redis, "CONFIG SET slowlog-log-slower-than 0").await?;
    say(&redis, "SET hunter1 hunter2").await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    rest.get("/api/v1/contexts").await?.expect(200)?;

    for service in [REST_API, MCP_SERVER] {
        let answer = admin(&stack, service).get(REDIS).await?;
        let page = answer.expect(200)?;
        assert_eq!(page["circuit"]["state"], "closed", "{service}: {page:#}");
        assert_eq!(page["role"], "master", "{page:#}");
        for number in [
            "instantaneous_ops_per_sec",
            "connected_clients",
            "blocked_clients",
            "maxmemory",
            "evicted_keys",
            "keyspace_hits",
            "uptime_in_seconds",
            "ping_ms",
        ] {
            assert!(page[number].is_number(), "{service}: {number} in {page:#}");
        }
        assert!(page["used_memory_human"].is_string(), "{page:#}");
        let log = array(&page, "slowlog");
        assert!(!log.is_empty() && log.len() <= 10, "{page:#}");
        assert!(!answer.text.contains("hunter"), "{service}: {}", answer.text);
    }
    // Of the limiter's, the key.
    let limiter = wait_for("a command of ours in the slow log", async || {
        rest.get("/api/v1/contexts").await.ok()?;
        let page = admin(&stack, REST_API).get(REDIS).await.ok()?.json();
        let ours = |one: &&Json| text(one, "command") == "EVAL" && text(one, "key").contains("limit:rest:");
        array(&page, "slowlog").iter().find(ours).cloned()
    });
    limiter.await?;

    drop(redis);
    for service in [REST_API, MCP_SERVER] {
        let admin = admin(&stack, service);
        let away = wait_for("the circuit to open", async || {
            let started = Instant::now();
            let page: Answer = admin.get(REDIS).await.ok()?;
            assert!(started.elapsed() < TOLD, "told after {:?}", started.elapsed());
            let problem = page.problem(503, "unavailable").ok()?;
            (problem["circuit"]["state"] == "open").then_some(problem)
        })
        .await?;
        let failure = &away["circuit"]["last_failure"];
        assert!(
            failure["reason"].is_string() && failure["at"].is_string(),
            "{away:#}"
        );
    }
    Ok(())
}

/// Says one command, and takes what Redis answers.
async fn say(redis: &Redis, command: &str) -> Outcome {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).await?;
    anyhow::ensure!(answer[..read].starts_with(b"+OK"), "{command}: {answer:?}");
    Ok(())
}

#[tokio::test]
async fn without_redis_the_page_says_so() -> Outcome {
    let (stack, _) = crate::rest_api(Backend::Sqlite).await?;
    let page = admin(&stack, REST_API).get(REDIS).await?;
    page.problem(404, "not_configured")?;
    Ok(())
}

/// What a comment costs a statement: it is planned anew. Run by hand, with nothing beside it:
/// `cargo xtask test --test e2e -- --ignored --nocapture what_a_trace_comment_costs`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_trace_comment_costs() -> Outcome {
    let sink = Sink::start().await?;
    let mut stacks = Vec::new();
    for comments in ["false", "true"] {
        let stack = Stack::builder(Backend::Postgres)
            .services(&[REST_API])
            .sink(&sink)
            .set(REST_API, "DATABASE__TRACE_COMMENTS", comments)
            .set(REST_API, "RATE_LIMIT__PER_SECOND", "0")
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let made = rest
            .post("/api/v1/contexts", &json!({"name": "c"}))
            .await?
            .expect(201)?;
        stacks.push((format!("/api/v1/contexts/{}", text(&made, "id")), rest, stack));
    }
    // By turns, so that what else goes on meets both.
    for _ in 0..20 {
        for (path, rest, _) in &stacks {
            for _ in 0..100 {
                rest.get(path).await?.expect(200)?;
                rest.get("/api/v1/contexts").await?.expect(200)?;
            }
        }
    }
    let mut means = Vec::new();
    for (_, _, stack) in &stacks {
        let path = format!("{SLOW_QUERIES}?min_mean_ms=0&limit=5000");
        let page = admin(stack, REST_API).get(&path).await?.json();
        let own = array(&page["services_view"], "queries");
        let mean = |operation: &str| {
            let found = own.iter().find(|query| text(query, "operation") == operation);
            found
                .and_then(|query| query["mean_exec_time"].as_f64())
                .unwrap_or(f64::NAN)
        };
        means.push([mean("contexts.get"), mean("contexts.list")]);
    }
    for (i, operation) in ["contexts.get", "contexts.list"].iter().enumerate() {
        let (plain, commented) = (means[0][i], means[1][i]);
        println!(
            "{operation}: {plain:.3} ms prepared, {commented:.3} ms with a comment: {:.2}",
            commented / plain
        );
    }
    Ok(())
}
