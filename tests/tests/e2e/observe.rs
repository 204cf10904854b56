//! The product's own tools over telemetry: for whom they are there, and how calls of them travel. What each of them answers
//! is tested beside it in the worker.

use crate::{Outcome, text};
use axum::{
    Json as Body, Router,
    extract::{RawQuery, State},
    routing::any,
};
use e2e::{
    Backend, Era, Json, Stack, mcp,
    raw::{Raw, response},
    rest::Rest,
    stack::{MCP_SERVER, REST_API, WORKER},
    wait_for,
};
use rmcp::ServiceError;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{net::TcpListener, task::JoinHandle};

/// The most that listing all of the product's own tools may cost, bytes of JSON: about 6,000 tokens.
const MAX_LISTING: usize = 24_000;
const UP: &str = r#"{"query": "up"}"#;

type Asked = Arc<Mutex<Vec<String>>>;

/// Answers every query with one sample, and keeps the queries. Stops when dropped.
struct Prometheus {
    asked: Asked,
    url: String,
    server: JoinHandle<()>,
}

impl Prometheus {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked = Asked::default();
        let routes = Router::new()
            .route("/api/v1/query", any(answer))
            .with_state(asked.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the source ended: {error}");
            }
        });
        Ok(Self { asked, url, server })
    }

    /// The last query.
    fn last(&self) -> String {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.last().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What is asked comes in the URL or in a form.
async fn answer(State(asked): State<Asked>, RawQuery(query): RawQuery, form: String) -> Body<Json> {
    let pairs = format!("http://source/?{}&{form}", query.unwrap_or_default());
    let pairs = pairs.parse::<reqwest::Url>().ok();
    let asked_for = pairs.iter().flat_map(reqwest::Url::query_pairs);
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.extend(
        asked_for
            .filter(|(name, _)| name == "query")
            .map(|(_, query)| query.into_owned()),
    );
    let sample = json!({"metric": {"__name__": "up", "job": "api"}, "value": [1_700_000_000, "1"]});
    Body(json!({"status": "success", "data": {"resultType": "vector", "result": [sample]}}))
}

/// All services, with a source of metrics that `acme` was granted a part of.
async fn observed(backend: Backend) -> anyhow::Result<(Stack, Prometheus)> {
    let prometheus = Prometheus::start().await?;
    let grants = json!({"acme": {"matchers": {"tenant_id": "acme"}}});
    let sources = json!({"metrics": {"kind": "prometheus", "url": prometheus.url, "grants": grants}});
    let stack = Stack::builder(backend)
        .set(WORKER, "SOURCES", &sources.to_string())
        .set(REST_API, "WORKER__TOOLS_KEPT", "2s")
        .allow_private()
        .start()
        .await?;
    Ok((stack, prometheus))
}

fn up() -> Json {
    serde_json::from_str(UP).unwrap_or_default()
}

async fn names(client: &mcp::Client) -> anyhow::Result<Vec<String>> {
    let tools = client.list_all_tools().await?;
    Ok(tools.into_iter().map(|tool| tool.name.into_owned()).collect())
}

/// The stable code of a call that fails: told to the agent in a result, to the client where there is no such tool.
async fn refused(client: &mcp::Client, tool: &str, arguments: &Json) -> anyhow::Result<String> {
    let error = match client.call(tool, arguments).await {
        Err(ServiceError::McpError(error)) => error.data.unwrap_or_default(),
        other => {
            let result = other?;
            anyhow::ensure!(result.is_error == Some(true), "{result:?}");
            result.structured_content.unwrap_or_default()["error"].clone()
        }
    };
    Ok(text(&error, "code").to_owned())
}

async fn execute(rest: &Rest, arguments: &Json) -> anyhow::Result<e2e::rest::Answer> {
    let body = json!({"arguments": arguments});
    rest.post("/api/v1/tools/query_metrics/execute", &body).await
}

#[tokio::test]
async fn they_are_there_for_whom_a_source_is_granted_and_who_has_the_scope() -> Outcome {
    for backend in Backend::available() {
        let (stack, prometheus) = observed(backend).await?;
        let observer = stack.tenant("acme", "observe:read").await?;
        let blind = stack
            .key("acme", "contexts:read,tools:read,tools:execute")
            .await?;
        let stranger = stack.tenant("globex", "observe:read,tools:execute").await?;
        let platform = stack.key("globex", "observe:read,platform:observe").await?;
        for era in Era::ALL {
            let client = stack.mcp(&observer, era).await?;
            let tool = client.wait_for_tool("query_metrics").await?;
            let hints = tool.annotations.unwrap_or_default();
            assert_eq!(
                (hints.read_only_hint, hints.open_world_hint),
                (Some(true), Some(false))
            );
            // No source of logs is set, and no other scope is held.
            let listed = names(&client).await?;
            assert!(!listed.contains(&"query_logs".to_owned()), "{listed:?}");
            assert!(
                !listed.iter().any(|name| name.starts_with("context_")),
                "{listed:?}"
            );

            let answer = client.structured("query_metrics", &up()).await?;
            assert_eq!(answer["source"], "metrics", "{era:?}: {answer}");
            assert!(
                prometheus.last().contains(r#"tenant_id="acme""#),
                "{}",
                prometheus.last()
            );
            assert_eq!(
                refused(&client, "query_metrics", &json!({"query": 1})).await?,
                "invalid_arguments"
            );
            client.close().await;

            let client = stack.mcp(&blind, era).await?;
            assert!(!names(&client).await?.contains(&"query_metrics".to_owned()));
            assert_eq!(refused(&client, "query_metrics", &up()).await?, "missing_scope");
            client.close().await;

            let client = stack.mcp(&stranger, era).await?;
            assert_eq!(names(&client).await?, Vec::<String>::new(), "{era:?}");
            assert_eq!(
                refused(&client, "query_metrics", &up()).await?,
                "unknown_tool",
                "{era:?}"
            );
            client.close().await;

            let client = stack.mcp(&platform, era).await?;
            assert!(names(&client).await?.contains(&"query_metrics".to_owned()));
            client.structured("query_metrics", &up()).await?;
            assert!(!prometheus.last().contains("tenant_id"), "{}", prometheus.last());
            client.close().await;
        }

        let own = async |key: &str| -> anyhow::Result<Vec<String>> {
            let listed = stack.rest(key).get("/api/v1/built-in-tools").await?.expect(200)?;
            let items = listed["items"].as_array().cloned().unwrap_or_default();
            let set = items.iter().find(|tool| tool["name"] == "query_metrics");
            assert!(set.is_none_or(|tool| tool["toolset"] == "metrics"), "{listed}");
            Ok(items.iter().map(|tool| text(tool, "name").to_owned()).collect())
        };
        assert!(own(&observer).await?.contains(&"query_metrics".to_owned()));
        assert_eq!(own(&platform).await?, own(&observer).await?);
        assert!(own(&blind).await?.is_empty() && own(&stranger).await?.is_empty());
        let registered = stack.rest(&blind).get("/api/v1/tools").await?.expect(200)?;
        assert_eq!(registered["items"], json!([]));
        execute(&stack.rest(&blind), &up())
            .await?
            .problem(403, "missing_scope")?;
        execute(&stack.rest(&stranger), &up())
            .await?
            .problem(404, "not_found")?;
        let taken = json!({"name": "query_metrics", "description": "d", "url": "https://example.com/"});
        let manager = stack.key("acme", "tools:manage").await?;
        let taken = stack.rest(&manager).post("/api/v1/tools", &taken).await?;
        taken.problem(400, "invalid_argument")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_and_a_key_choose_sets_of_them() -> Outcome {
    let (stack, _prometheus) = observed(Backend::Sqlite).await?;
    let key = stack
        .tenant("acme", "contexts:read,observe:read,keys:manage")
        .await?;
    for era in Era::ALL {
        let connect = async |toolsets: &str| {
            let url = format!("{}?toolsets={toolsets}", stack.mcp_url());
            mcp::connect(&url, &key, era).await
        };
        let metrics = connect("metrics,logs").await?;
        metrics.wait_for_tool("query_metrics").await?;
        let listed = names(&metrics).await?;
        assert!(
            !listed.iter().any(|name| name.starts_with("context_")),
            "{listed:?}"
        );
        assert_eq!(
            refused(&metrics, "context_list", &json!({})).await?,
            "unknown_tool"
        );
        metrics.close().await;

        let contexts = connect("contexts").await?;
        let listed = names(&contexts).await?;
        assert!(listed.iter().all(|name| name.starts_with("context_")) && !listed.is_empty());
        assert_eq!(refused(&contexts, "query_metrics", &up()).await?, "unknown_tool");
        contexts.structured("context_list", &json!({})).await?;
        contexts.close().await;
    }
    let unknown = Raw::new(&format!("{}?toolsets=everything", stack.mcp_url()), Some(&key));
    let answer = unknown.call("tools/list", json!({})).await?;
    answer.problem(400, "unknown_toolset")?;
    assert!(answer.text.contains("metrics, logs"), "{}", answer.text);

    let ask = json!({"name": "logs only", "scopes": ["observe:read"], "tools": [{"tools": "@logs"}]});
    let made = stack.rest(&key).post("/api/v1/keys", &ask).await?.expect(201)?;
    let limited = text(&made, "secret");
    let client = stack.mcp(limited, Era::Modern).await?;
    assert_eq!(names(&client).await?, Vec::<String>::new());
    assert_eq!(refused(&client, "query_metrics", &up()).await?, "unknown_tool");
    execute(&stack.rest(limited), &up())
        .await?
        .problem(404, "not_found")?;
    Ok(())
}

#[tokio::test]
async fn what_one_of_them_answered_is_seen_by_whom_it_may_be() -> Outcome {
    for backend in Backend::available() {
        let (stack, prometheus) = observed(backend).await?;
        let observer = stack.rest(&stack.tenant("acme", "observe:read").await?);
        let colleague = stack.rest(&stack.key("acme", "observe:read").await?);
        let runner = stack.rest(&stack.key("acme", "tools:read,tools:execute").await?);
        let platform = stack.rest(&stack.key("acme", "observe:read,platform:observe").await?);
        let client = stack
            .mcp(&stack.key("acme", "observe:read").await?, Era::Modern)
            .await?;
        client.wait_for_tool("query_metrics").await?;

        let path = |run: &Json| format!("/api/v1/executions/{}", text(run, "id"));
        let done = execute(&observer, &up()).await?.expect(200)?;
        assert_eq!(
            (text(&done, "status"), text(&done, "tool")),
            ("succeeded", "query_metrics")
        );
        assert_eq!(done["result"]["source"], "metrics", "{done}");
        for (who, sees) in [
            (&observer, true),
            (&colleague, true),
            (&platform, true),
            (&runner, false),
        ] {
            let status = if sees { 200 } else { 404 };
            let answer = who.get(&path(&done)).await?;
            assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
            let listed = who.get("/api/v1/executions").await?.expect(200)?;
            let count = listed["items"].as_array().map_or(0, Vec::len);
            assert_eq!(count, usize::from(sees), "{listed}");
        }

        let spent = stack.metrics(REST_API).await?;
        let reads =
            |operation: &str| spent.sum("db_query_duration_seconds_count", &[("operation", operation)]);
        assert!(reads("api_keys.get_some") >= 1.0);
        assert!(
            reads("api_keys.get") < 1.0,
            "a key is read for each run that is listed"
        );

        // Through the queue, too, it is asked with what the key may: here everything, which others must not read.
        let later = [("prefer", "respond-async")];
        let ask = json!({"arguments": {"query": "up"}});
        let execute_path = "/api/v1/tools/query_metrics/execute";
        let queued = platform
            .send(http::Method::POST, execute_path, &later, Some(&ask))
            .await?;
        let queued = queued.expect(202)?;
        let ended = ended(&platform, &path(&queued)).await?;
        assert_eq!(text(&ended, "status"), "succeeded", "{ended}");
        assert!(!prometheus.last().contains("tenant_id"), "{}", prometheus.last());
        observer.get(&path(&queued)).await?.problem(404, "not_found")?;
        let listed = observer.get("/api/v1/executions").await?.expect(200)?;
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");

        let queued = observer
            .send(http::Method::POST, execute_path, &later, Some(&ask))
            .await?;
        let queued = queued.expect(202)?;
        let ended = self::ended(&observer, &path(&queued)).await?;
        assert_eq!(text(&ended, "status"), "succeeded", "{ended}");
        assert!(
            prometheus.last().contains(r#"tenant_id="acme""#),
            "{}",
            prometheus.last()
        );

        let scheduler = stack.rest(&stack.key("acme", "observe:read,schedules:manage").await?);
        let mut schedule = json!({
            "name": "hourly", "tool": "query_metrics", "arguments": {"query": "up"},
            "cron": "0 * * * *", "timezone": "UTC",
        });
        scheduler
            .post("/api/v1/schedules", &schedule)
            .await?
            .expect(201)?;
        schedule["arguments"] = json!({"query": 1});
        let bad = scheduler.post("/api/v1/schedules", &schedule).await?;
        bad.problem(400, "invalid_arguments")?;
    }
    Ok(())
}

async fn ended(rest: &Rest, path: &str) -> anyhow::Result<Json> {
    wait_for("the run to be over", async || {
        let run = rest.get(path).await.ok()?.expect(200).ok()?;
        let open = ["queued", "running"].contains(&text(&run, "status"));
        (!open).then_some(run)
    })
    .await
}

#[tokio::test]
async fn while_the_worker_is_away_they_are_listed_and_wait() -> Outcome {
    let (mut stack, _prometheus) = observed(Backend::Sqlite).await?;
    let key = stack.tenant("acme", "observe:read").await?;
    let (rest, client) = (stack.rest(&key), stack.mcp(&key, Era::Modern).await?);
    client.wait_for_tool("query_metrics").await?;
    stack.process_mut(WORKER).kill();
    assert_eq!(refused(&client, "query_metrics", &up()).await?, "unavailable");
    assert!(names(&client).await?.contains(&"query_metrics".to_owned()));
    let later = [("prefer", "respond-async")];
    let ask = json!({"arguments": {"query": "up"}});
    let execute_path = "/api/v1/tools/query_metrics/execute";
    let queued = rest
        .send(http::Method::POST, execute_path, &later, Some(&ask))
        .await?
        .expect(202)?;
    stack.process_mut(WORKER).start().await?;
    let path = format!("/api/v1/executions/{}", text(&queued, "id"));
    let ended = ended(&rest, &path).await?;
    assert_eq!(text(&ended, "status"), "succeeded", "{ended}");

    // Another worker without the source: the tool is gone for clients that were told of it, but no run ends for that.
    stack.process_mut(WORKER).kill();
    let queued = rest
        .send(http::Method::POST, execute_path, &later, Some(&ask))
        .await?
        .expect(202)?;
    let path = format!("/api/v1/executions/{}", text(&queued, "id"));
    let sources = stack.process(WORKER).variable("DEVOPS_MCP__SOURCES");
    let sources = sources.unwrap_or_default().to_owned();
    stack.process_mut(WORKER).set("DEVOPS_MCP__SOURCES", "{}");
    stack.process_mut(WORKER).start().await?;
    wait_for("the tool to be gone", async || {
        names(&client).await.ok()?.is_empty().then_some(())
    })
    .await?;
    execute(&rest, &up()).await?.problem(404, "not_found")?;
    let run = rest.get(&path).await?.expect(200)?;
    assert!(["queued", "running"].contains(&text(&run, "status")), "{run}");
    stack.process_mut(WORKER).kill();
    stack.process_mut(WORKER).set("DEVOPS_MCP__SOURCES", &sources);
    stack.process_mut(WORKER).start().await?;
    let ended = self::ended(&rest, &path).await?;
    assert_eq!(text(&ended, "status"), "succeeded", "{ended}");
    client.wait_for_tool("query_metrics").await?;
    Ok(())
}

#[tokio::test]
async fn a_tenants_own_tool_of_such_a_name_stays_for_whom_the_products_is_not() -> Outcome {
    let (mut stack, prometheus) = observed(Backend::Sqlite).await?;
    let observer = stack.tenant("acme", "observe:read,tools:execute").await?;
    let runner = stack.key("acme", "tools:read,tools:execute").await?;
    let manager = stack.rest(&stack.key("acme", "tools:manage").await?);
    let url = format!("{}/api/v1/query?query=own", prometheus.url);
    let tool = json!({"name": "own", "description": "d", "method": "GET", "url": url});
    manager.post("/api/v1/tools", &tool).await?.expect(201)?;
    // From before the product had the name, which cannot be registered any more.
    stack.process_mut(REST_API).kill();
    let database = Backend::Sqlite.database_url(stack.directory()).await?;
    let mut connection = sqlx::SqliteConnection::connect(&database).await?;
    connection
        .execute("UPDATE tools SET name = 'query_metrics' WHERE name = 'own'")
        .await?;
    connection.close().await?;
    stack.process_mut(REST_API).start().await?;
    let rest = stack.rest(&observer);
    wait_for("rest-api to know the product's tools", async || {
        let listed = rest.get("/api/v1/built-in-tools").await.ok()?.expect(200).ok()?;
        listed["items"].as_array().filter(|items| !items.is_empty())?;
        Some(())
    })
    .await?;

    let done = execute(&stack.rest(&runner), &json!({})).await?.expect(200)?;
    assert_eq!(text(&done, "status"), "succeeded", "{done}");
    assert_eq!(prometheus.last(), "own");
    let done = execute(&rest, &up()).await?.expect(200)?;
    assert_eq!(done["result"]["source"], "metrics", "{done}");
    for era in Era::ALL {
        for (key, own) in [(&runner, true), (&observer, false)] {
            let client = stack.mcp(key, era).await?;
            wait_for("its own kind of tool to be listed", async || {
                let tools = client.list_all_tools().await.ok()?;
                let mut of_name = tools.iter().filter(|tool| tool.name == "query_metrics");
                let open = of_name.next()?.annotations.as_ref()?.open_world_hint;
                (open == Some(own) && of_name.next().is_none()).then_some(())
            })
            .await?;
            let arguments = if own { json!({}) } else { up() };
            let answer = client.structured("query_metrics", &arguments).await?;
            assert_eq!(answer.get("source").is_none(), own, "{era:?}: {answer}");
            client.close().await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn listing_all_of_them_costs_little() -> Outcome {
    let source = |kind: &str, url: &str| json!({"kind": kind, "url": url});
    let sources = json!({
        "metrics": source("prometheus", "http://127.0.0.1:9"),
        "logs": source("loki", "http://127.0.0.1:9"),
        "traces": source("jaeger", "http://127.0.0.1:9"),
        "alerts": source("alertmanager", "http://127.0.0.1:9"),
        "database": source("postgresql", "postgres://nobody@127.0.0.1:9/none"),
        "cache": source("redis", "redis://127.0.0.1:9"),
    });
    let stack = Stack::builder(Backend::Sqlite)
        .set(WORKER, "SOURCES", &sources.to_string())
        .start()
        .await?;
    let key = stack.tenant("acme", "all").await?;
    let listed = wait_for("the tools to be listed", async || {
        let answer = stack.raw(&key).call("tools/list", json!({})).await.ok()?;
        let tools = response(&answer).ok()?["result"]["tools"].clone();
        let all = tools.as_array()?.len() > 7;
        all.then_some(tools)
    })
    .await?;
    for tool in listed.as_array().into_iter().flatten() {
        println!("{:>6}  {}", tool.to_string().len(), text(tool, "name"));
    }
    let (count, bytes) = (listed.as_array().map_or(0, Vec::len), listed.to_string().len());
    println!("{bytes} bytes of JSON list {count} tools");
    assert!(bytes <= MAX_LISTING, "{bytes} bytes");
    assert!(stack.has(MCP_SERVER));
    Ok(())
}
