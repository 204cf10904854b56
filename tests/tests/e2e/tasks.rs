//! Long and destructive calls over MCP: tasks that outlive every service, and a person's agreement, in both eras.

use crate::{Outcome, text};
use e2e::{
    Backend, Era, Json, PATIENCE, Stack, Target,
    raw::{META, Raw, response},
    rest::{Answer, Rest},
    stack::{MCP_SERVER, REST_API},
    wait_for,
};
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt as _, ErrorData, RoleClient,
    model::{
        CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
        ElicitationAction, ProtocolVersion,
    },
    service::RequestContext,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::json;
use std::sync::{Arc, Mutex};

/// All services, a tenant's key and caller, and an endpoint for tools: `held` answers when it is let, `drop` cannot be
/// taken back.
async fn world(backend: Backend) -> anyhow::Result<(Stack, String, Rest, Target)> {
    let target = Target::start().await?;
    let builder = Stack::builder(backend).allow_private();
    let stack = builder.set(MCP_SERVER, "TASKS__AFTER", "200ms").start().await?;
    let key = stack.tenant("acme", "all").await?;
    let rest = stack.rest(&key);
    for (name, path, destructive) in [("held", "/held", false), ("drop", "/echo", true)] {
        let method = if destructive { "DELETE" } else { "GET" };
        let tool = json!({
            "name": name, "description": "d", "url": target.url(path), "method": method, "destructive": destructive,
        });
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        wait_listed(&stack.raw(&key), name).await?;
    }
    Ok((stack, key, rest, target))
}

/// Waits until a replica of mcp-server lists the tool.
async fn wait_listed(raw: &Raw, tool: &str) -> Outcome {
    wait_for(&format!("{tool} to be listed"), async || {
        let listed = response(&raw.call("tools/list", json!({})).await.ok()?).ok()?;
        let tools = listed["result"]["tools"].as_array()?.clone();
        tools.iter().any(|listed| listed["name"] == tool).then_some(())
    })
    .await
}

/// A key of the tenant that may run tools, and not without being asked.
async fn agent(rest: &Rest) -> anyhow::Result<String> {
    let ask = json!({"name": "agent", "scopes": ["tools:read", "tools:execute"]});
    let made = rest.post("/api/v1/keys", &ask).await?.expect(201)?;
    Ok(text(&made, "secret").to_owned())
}

/// A client that does tasks.
struct Tasks {
    raw: Raw,
    era: Era,
    session: String,
}

impl Tasks {
    async fn connect(url: &str, key: &str, era: Era) -> anyhow::Result<Self> {
        let raw = Raw::new(url, Some(key));
        let mut client = Self {
            raw,
            era,
            session: String::new(),
        };
        if era == Era::Legacy {
            let hello = json!({
                "protocolVersion": era.version(), "capabilities": {}, "clientInfo": {"name": "e2e", "version": "0"},
            });
            let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
            let answer = client.raw.post().json(&body).send().await?;
            client.session = answer.headers()["mcp-session-id"].to_str()?.to_owned();
            answer.text().await?;
            client
                .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
                .await?;
        }
        Ok(client)
    }

    async fn send(&self, message: &Json) -> anyhow::Result<Answer> {
        let request = self.raw.post().header("mcp-session-id", &self.session);
        let request = request.header("mcp-protocol-version", self.era.version());
        Answer::read(request.json(message).send().await?).await
    }

    async fn ask(&self, method: &str, mut params: Json) -> anyhow::Result<Json> {
        let answer = if self.era == Era::Modern {
            let capabilities = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
            params["_meta"] = json!({format!("{META}clientCapabilities"): capabilities});
            self.raw.call(method, params).await?
        } else {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
            self.send(&message).await?
        };
        response(&answer)
    }

    /// Calls a tool, which must become a task; answers its id.
    async fn start(&self, tool: &str) -> anyhow::Result<String> {
        let mut params = json!({"name": tool, "arguments": {}});
        if self.era == Era::Legacy {
            params["task"] = json!({});
        }
        let answer = self.ask("tools/call", params).await?;
        let result = &answer["result"];
        let task = if self.era == Era::Legacy {
            &result["task"]
        } else {
            result
        };
        assert_eq!(task["status"], "working", "{answer}");
        Ok(text(task, "taskId").to_owned())
    }

    /// How the task stands; nothing when that cannot be told now.
    async fn get(&self, task: &str) -> Option<Json> {
        let answer = self.ask("tasks/get", json!({"taskId": task})).await.ok()?;
        answer.get("result").cloned()
    }

    async fn until(&self, task: &str, status: &str) -> anyhow::Result<Json> {
        wait_for(&format!("the task to be {status}"), async || {
            self.get(task).await.filter(|task| task["status"] == status)
        })
        .await
    }

    /// The result of a task that is over.
    async fn result(&self, task: &str) -> anyhow::Result<Json> {
        if self.era == Era::Modern {
            return Ok(self.until(task, "completed").await?["result"].clone());
        }
        let answer = self.ask("tasks/result", json!({"taskId": task})).await?;
        let related = &answer["result"]["_meta"]["io.modelcontextprotocol/related-task"];
        assert_eq!(related["taskId"], task, "{answer}");
        Ok(answer["result"].clone())
    }
}

#[tokio::test]
async fn a_task_outlives_every_service_and_is_finished_on_another_replica() -> Outcome {
    for backend in Backend::available() {
        for era in Era::ALL {
            let (mut stack, key, rest, target) = world(backend).await?;
            let client = Tasks::connect(&stack.mcp_url(), &key, era).await?;
            let task = client.start("held").await?;
            wait_for("the tool to run", async || {
                (!target.seen().is_empty()).then_some(())
            })
            .await?;
            let shown = client.until(&task, "working").await?;
            assert!(!text(&shown, "statusMessage").is_empty(), "{shown}");
            let execution = rest
                .get(&format!("/api/v1/executions/{task}"))
                .await?
                .expect(200)?;
            assert_eq!(execution["tool"], "held", "the task is the execution");

            for service in [MCP_SERVER, REST_API] {
                stack.process_mut(service).kill();
            }
            for service in [REST_API, MCP_SERVER] {
                stack.process_mut(service).start().await?;
            }
            let (_second, url) = stack.replica(MCP_SERVER).await?;
            target.release();
            let client = Tasks::connect(&format!("{url}/mcp"), &key, era).await?;
            let over = client.until(&task, "completed").await?;
            assert!(
                over["pollInterval"].is_u64() || over["pollIntervalMs"].is_u64(),
                "{over}"
            );
            let result = client.result(&task).await?;
            assert_eq!(result["isError"], false, "{backend:?} {era:?}: {result}");
            assert_eq!(
                result["structuredContent"]["status"], 200,
                "{backend:?} {era:?}: {result}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_task_is_cancelled_and_a_destructive_one_waits_for_approval() -> Outcome {
    let (stack, key, rest, target) = world(Backend::Sqlite).await?;
    for era in Era::ALL {
        let client = Tasks::connect(&stack.mcp_url(), &key, era).await?;
        let before = target.seen().len();
        let task = client.start("held").await?;
        wait_for("the tool to run", async || {
            (target.seen().len() > before).then_some(())
        })
        .await?;
        client.ask("tasks/cancel", json!({"taskId": task})).await?;
        client.until(&task, "cancelled").await?;

        // Nobody can be asked here, so another key approves.
        let agent = Tasks::connect(&stack.mcp_url(), &agent(&rest).await?, era).await?;
        let task = agent.start("drop").await?;
        let waits = agent.until(&task, "working").await?;
        assert!(text(&waits, "statusMessage").contains("/approve"), "{waits}");
        let path = format!("/api/v1/executions/{task}");
        let digest = rest.get(&path).await?.expect(200)?["digest"].clone();
        rest.post(&format!("{path}/approve"), &json!({"digest": digest}))
            .await?
            .expect(202)?;
        let result = agent.result(&task).await?;
        assert_eq!(
            result["structuredContent"]["body"]["method"], "DELETE",
            "{era:?}: {result}"
        );
        // Other tenants' tasks are not there.
        let foreign = stack
            .tenant(&format!("other-{era:?}").to_lowercase(), "all")
            .await?;
        let foreign = Tasks::connect(&stack.mcp_url(), &foreign, era).await?;
        let answer = foreign.ask("tasks/get", json!({"taskId": task})).await?;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    Ok(())
}

/// A client with somebody in front of it.
#[derive(Clone)]
struct Person {
    agrees: bool,
    read: Arc<Mutex<Vec<String>>>,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.capabilities = ClientCapabilities::builder().enable_elicitation().build();
        config
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        if let (ElicitRequestParams::FormElicitationParams { message, .. }, Ok(mut read)) =
            (request, self.read.lock())
        {
            read.push(message);
        }
        let said = if self.agrees {
            ElicitationAction::Accept
        } else {
            ElicitationAction::Decline
        };
        Ok(ElicitResult::new(said).with_content(json!({"confirm": self.agrees})))
    }
}

/// Has a person's client call `drop`; answers what came of it and what the person read.
async fn with_person(
    url: &str,
    key: &str,
    era: Era,
    agrees: bool,
) -> anyhow::Result<(CallToolResult, String)> {
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(key);
    let transport = StreamableHttpClientTransport::with_client(e2e::http_client(), config);
    let lifecycle = match era {
        Era::Legacy => ClientLifecycleMode::Initialize,
        Era::Modern => ClientLifecycleMode::Discover {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        },
    };
    let read = Arc::default();
    let person = Person { agrees, read };
    let client = person.clone().serve_with_lifecycle(transport, lifecycle).await?;
    let call = client.call_tool(e2e::mcp::params("drop", &json!({"env": "production"})));
    let result = tokio::time::timeout(PATIENCE, call).await??;
    client.cancel().await?;
    let read = person.read.lock().map(|read| read.join("\n")).unwrap_or_default();
    Ok((result, read))
}

#[tokio::test]
async fn a_person_at_the_client_decides_on_a_destructive_tool() -> Outcome {
    let (stack, _key, rest, target) = world(Backend::Sqlite).await?;
    let agent = agent(&rest).await?;
    for (runs, era) in [(1, Era::Modern), (2, Era::Legacy)] {
        let (declined, read) = with_person(&stack.mcp_url(), &agent, era, false).await?;
        let error = declined.structured_content.unwrap_or_default();
        assert_eq!(error["error"]["code"], "declined", "{era:?}: {error}");
        assert!(read.contains("drop") && read.contains("production"), "{read}");
        let (ran, _) = with_person(&stack.mcp_url(), &agent, era, true).await?;
        assert_eq!(ran.is_error, Some(false), "{era:?}: {ran:?}");
        assert_eq!(
            target.seen().len(),
            runs,
            "{era:?}: what was declined has not run"
        );
    }
    let listed = rest.get("/api/v1/executions?tool=drop").await?.expect(200)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "{listed}");
    Ok(())
}
