//! What is done in a soak: each deed is what a person, an agent or a machine would do, and knows what must come of it.

use super::world::World;
use crate::subject::Session;
use anyhow::{Context, bail, ensure};
use e2e::{
    Era, Json, PATIENCE,
    raw::{META, response},
    rest::{Answer, Rest},
};
use http::Method;
use rand::{Rng, RngExt};
use rmcp::model::{ServerNotification, SubscribeRequestParams, SubscriptionFilter};
use serde_json::json;
use std::{rc::Rc, time::Duration};
use tokio::time::timeout;

/// A kind of deed.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Create,
    Append,
    Read,
    Search,
    Delete,
    List,
    Wait,
    Queue,
    Retry,
    Replay,
    Approve,
    Cancel,
    Contexts,
    Tool,
    Task,
    CancelTask,
    Subscribe,
    Connect,
    Reject,
}

/// Out of how many each kind is chosen so many times.
const WEIGHTS: [(Kind, u32); 19] = [
    (Kind::Create, 8),
    (Kind::Append, 10),
    (Kind::Read, 8),
    (Kind::Search, 5),
    (Kind::Delete, 8),
    (Kind::List, 3),
    (Kind::Wait, 8),
    (Kind::Queue, 8),
    (Kind::Retry, 3),
    (Kind::Replay, 1),
    (Kind::Approve, 1),
    (Kind::Cancel, 1),
    (Kind::Contexts, 4),
    (Kind::Tool, 10),
    (Kind::Task, 2),
    (Kind::CancelTask, 1),
    (Kind::Subscribe, 3),
    (Kind::Connect, 2),
    (Kind::Reject, 10),
];

/// Above so many contexts none is made.
const MANY: usize = 300;
/// How long a change may take to be told before there is another.
const HEARD: Duration = Duration::from_secs(2);
/// The header that asks not to be kept waiting.
const ASYNC: (&str, &str) = ("prefer", "respond-async");

/// A deed to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed {
    kind: Kind,
    era: Era,
    lot: u32,
}

impl Deed {
    /// The next one.
    pub(super) fn choose(random: &mut impl Rng) -> Self {
        let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let (mut left, mut kind) = (random.random_range(0..total), Kind::Create);
        for (of, weight) in WEIGHTS {
            kind = of;
            if left < weight {
                break;
            }
            left -= weight;
        }
        let era = Era::ALL[random.random_range(0..2)];
        Self {
            kind,
            era,
            lot: random.random(),
        }
    }

    /// Does it, and notes how it ended.
    pub(super) async fn done_in(self, world: Rc<World>) {
        // Nothing waits longer than a few steps, each with its own patience, may take.
        let result = timeout(3 * PATIENCE, self.act(&world)).await;
        let result = result.unwrap_or_else(|_| bail!("it never ended"));
        world.tally.note(self.name(), result);
    }

    fn name(self) -> &'static str {
        match (self.kind, self.era) {
            (Kind::Create, _) => "REST context create",
            (Kind::Append, _) => "REST items append",
            (Kind::Read, _) => "REST context read",
            (Kind::Search, _) => "REST search",
            (Kind::Delete, _) => "REST context delete",
            (Kind::List, _) => "REST lists",
            (Kind::Wait, _) => "REST call, waiting",
            (Kind::Queue, _) => "REST call, queued",
            (Kind::Retry, _) => "REST call, retried",
            (Kind::Replay, _) => "REST call, failed and replayed",
            (Kind::Approve, _) => "REST call, approved or rejected",
            (Kind::Cancel, _) => "REST call, cancelled",
            (Kind::Contexts, Era::Modern) => "MCP context's life, modern",
            (Kind::Contexts, Era::Legacy) => "MCP context's life, legacy",
            (Kind::Tool, Era::Modern) => "MCP tool, modern",
            (Kind::Tool, Era::Legacy) => "MCP tool, legacy",
            (Kind::Task, Era::Modern) => "MCP task, modern",
            (Kind::Task, Era::Legacy) => "MCP task, legacy",
            (Kind::CancelTask, Era::Modern) => "MCP task cancelled, modern",
            (Kind::CancelTask, Era::Legacy) => "MCP task cancelled, legacy",
            (Kind::Subscribe, Era::Modern) => "MCP subscription, modern",
            (Kind::Subscribe, Era::Legacy) => "MCP subscription, legacy",
            (Kind::Connect, Era::Modern) => "MCP connect and close, modern",
            (Kind::Connect, Era::Legacy) => "MCP connect and close, legacy",
            (Kind::Reject, _) => "rejected as it should be",
        }
    }

    async fn act(self, world: &World) -> anyhow::Result<()> {
        match self.kind {
            Kind::Create | Kind::Append | Kind::Read | Kind::Search | Kind::Delete | Kind::List => {
                self.keep(world).await
            }
            Kind::Wait | Kind::Queue | Kind::Retry | Kind::Replay | Kind::Approve | Kind::Cancel => {
                self.run(world).await
            }
            Kind::Contexts => self.contexts(world).await,
            Kind::Tool => {
                let called = world.client(self.era).structured("works", &json!({})).await?;
                ensure!(called["body"]["done"] == true, "{called}");
                Ok(())
            }
            Kind::Task => self.task(world, 500, "completed").await,
            Kind::CancelTask => self.task(world, 60_000, "cancelled").await,
            Kind::Subscribe => self.subscribe(world).await,
            Kind::Connect => {
                let client = world.connect(self.era).await?;
                ensure!(!client.list_all_tools().await?.is_empty());
                client.close().await;
                Ok(())
            }
            Kind::Reject => self.reject(world).await,
        }
    }

    /// What is done with contexts over REST, and with lists.
    async fn keep(self, world: &World) -> anyhow::Result<()> {
        let rest = &world.rest;
        match self.kind {
            Kind::Create => {
                let id = world.create().await?;
                if world.put_back(id) > MANY {
                    delete(world).await?;
                }
            }
            Kind::Append => {
                let id = world.context().await?;
                append(rest, &id).await?;
                world.put_back(id);
            }
            Kind::Read => {
                let id = world.context().await?;
                let path = format!("/api/v1/contexts/{id}");
                ensure!(rest.get(&path).await?.expect(200)?["name"] == "soak");
                rest.get(&format!("{path}/items?limit=10")).await?.expect(200)?;
                world.put_back(id);
            }
            Kind::Search => {
                let found = rest.get("/api/v1/contexts/search?q=checkout&limit=5").await?;
                ensure!(found.expect(200)?["items"].is_array());
            }
            Kind::Delete => delete(world).await?,
            _ => {
                for path in [
                    "executions?limit=20",
                    "executions?status=failed&limit=5",
                    "contexts?limit=20",
                ] {
                    rest.get(&format!("/api/v1/{path}")).await?.expect(200)?;
                }
            }
        }
        Ok(())
    }

    /// A call of a tool over REST.
    async fn run(self, world: &World) -> anyhow::Result<()> {
        let rest = &world.rest;
        match self.kind {
            Kind::Wait => {
                let ran = execute(rest, "works", &[], &json!({})).await?.expect(200)?;
                ensure!(ran["status"] == "succeeded", "{ran}");
            }
            Kind::Queue => {
                let id = queued(rest, "works", &json!({})).await?;
                world.ended(&id, "succeeded").await?;
            }
            Kind::Retry => {
                let id = queued(rest, "flaky", &json!({})).await?;
                let ended = world.ended(&id, "succeeded").await?;
                ensure!(ended["attempts"] == 2, "{ended}");
            }
            Kind::Replay => replay(world).await?,
            Kind::Approve => self.approve(world).await?,
            _ => {
                let id = queued(rest, "slow", &json!({"ms": 60_000})).await?;
                let path = format!("/api/v1/executions/{id}/cancel");
                let answer = rest.post(&path, &json!({})).await?;
                ensure!(answer.status.is_success(), "{}", answer.text);
                world.ended(&id, "cancelled").await?;
            }
        }
        Ok(())
    }

    /// Somebody else approves, or says no.
    async fn approve(self, world: &World) -> anyhow::Result<()> {
        let waits = execute(&world.agent, "drop", &[], &json!({}))
            .await?
            .expect(202)?;
        ensure!(waits["status"] == "awaiting_approval", "{waits}");
        let id = text(&waits, "id")?;
        let (path, rest) = (format!("/api/v1/executions/{id}"), &world.rest);
        if self.lot.is_multiple_of(3) {
            let answer = rest.post(&format!("{path}/cancel"), &json!({})).await?;
            ensure!(answer.status.is_success(), "{}", answer.text);
            world.ended(&id, "cancelled").await?;
        } else {
            let digest = json!({"digest": waits["digest"]});
            rest.post(&format!("{path}/approve"), &digest)
                .await?
                .expect(202)?;
            world.ended(&id, "succeeded").await?;
        }
        Ok(())
    }

    /// An agent's context from its making to its end.
    async fn contexts(self, world: &World) -> anyhow::Result<()> {
        let client = world.client(self.era);
        let items = json!([{"role": "assistant", "content": "the error began with release 4711"}]);
        let context =
            json!({"name": "notes", "type": "conversation", "items": items, "expires_in_seconds": 3600});
        let made = client.structured("context_create", &context).await?;
        let id = made["id"].as_str().or(made["context"]["id"].as_str());
        let id = id.with_context(|| format!("no id: {made}"))?;
        let more = json!({"id": id, "items": items});
        client.structured("context_append", &more).await?;
        client.structured("context_get", &json!({"id": id})).await?;
        let search = json!({"query": "release", "limit": 3});
        client.structured("context_search", &search).await?;
        client.structured("context_delete", &json!({"id": id})).await?;
        Ok(())
    }

    /// A call that becomes a task, followed to its end.
    async fn task(self, world: &World, ms: u64, end: &str) -> anyhow::Result<()> {
        let session = match self.era {
            Era::Legacy => Some(Session::open(&world.raw).await?),
            Era::Modern => None,
        };
        let ask = async |method: &str, mut params: Json| {
            let request = if let Some(session) = &session {
                session.request(method, &params)
            } else {
                let capabilities = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
                params["_meta"] = json!({format!("{META}clientCapabilities"): capabilities});
                world.raw.modern(method, params)
            };
            let answer = response(&Answer::read(request.send().await?).await?)?;
            ensure!(answer.get("result").is_some(), "{method}: {answer}");
            Ok(answer["result"].clone())
        };
        let mut call = json!({"name": "slow", "arguments": {"ms": ms}});
        if session.is_some() {
            call["task"] = json!({});
        }
        let started = ask("tools/call", call).await?;
        let started = started.get("task").unwrap_or(&started);
        let id = json!({"taskId": text(started, "taskId")?});
        if end == "cancelled" {
            ask("tasks/cancel", id.clone()).await?;
        }
        let what = format!("task {id} to be {end}");
        let over = async || {
            let task = ask("tasks/get", id.clone()).await?;
            let goes_on = task["status"] == "working";
            ensure!(goes_on || task["status"] == end, "{task}");
            Ok((!goes_on).then_some(()))
        };
        world.until(&what, over).await?;
        if let Some(session) = session {
            session.close().await?;
        }
        Ok(())
    }

    /// A client that hears of a change and goes.
    async fn subscribe(self, world: &World) -> anyhow::Result<()> {
        let id = world.context().await?;
        let (uri, client) = (format!("context://{id}"), world.connect(self.era).await?);
        if self.era == Era::Modern {
            let filter = SubscriptionFilter::builder().resource_subscription(&uri).build();
            let mut stream = client.listen(filter).await?;
            // The server follows a resource from a moment after it has agreed to: what changes between is not told.
            let heard = async || {
                append(&world.rest, &id).await?;
                match timeout(HEARD, stream.next()).await {
                    Err(_) => Ok(None),
                    Ok(Ok(Some(ServerNotification::ResourceUpdatedNotification(_)))) => Ok(Some(())),
                    Ok(other) => bail!("{other:?}"),
                }
            };
            world.until("the client to hear", heard).await?;
        } else {
            #[expect(deprecated, reason = "clients of older versions subscribe one by one")]
            client.subscribe(SubscribeRequestParams::new(&uri)).await?;
            // The session's own stream may be opened a moment after it has begun.
            let heard = async || {
                append(&world.rest, &id).await?;
                Ok((!client.heard.updates().is_empty()).then_some(()))
            };
            world.until("the session to hear", heard).await?;
        }
        client.close().await;
        world.put_back(id);
        Ok(())
    }

    /// What must not work.
    async fn reject(self, world: &World) -> anyhow::Result<()> {
        let rest = &world.rest;
        let none = json!({});
        let (status, answer) = match self.lot % 8 {
            0 => (
                401,
                rest.with_key(Some("dmcp_wrong")).get("/api/v1/contexts").await?,
            ),
            1 => (404, rest.get("/api/v1/tools/nobody").await?),
            2 => (422, rest.post("/api/v1/contexts", &json!({"name": 1})).await?),
            3 => (
                400,
                execute(rest, "works", &[], &json!({"arguments": {"n": "one"}})).await?,
            ),
            4 => (403, world.agent.get("/api/v1/contexts").await?),
            5 => (404, execute(rest, "nobody", &[ASYNC], &none).await?),
            6 => (
                400,
                execute(rest, "works", &[ASYNC], &json!({"priority": 101})).await?,
            ),
            _ => {
                let called = world.client(self.era).call("nobody", &none).await;
                ensure!(called.map_or(true, |result| result.is_error == Some(true)));
                return Ok(());
            }
        };
        answer.expect(status)?;
        Ok(())
    }
}

fn text(json: &Json, field: &str) -> anyhow::Result<String> {
    let text = json[field].as_str();
    Ok(text.with_context(|| format!("no {field}: {json}"))?.to_owned())
}

async fn execute(
    rest: &Rest,
    tool: &str,
    headers: &[(&'static str, &str)],
    body: &Json,
) -> anyhow::Result<Answer> {
    let path = format!("/api/v1/tools/{tool}/execute");
    rest.send(Method::POST, &path, headers, Some(body)).await
}

/// Queues a call and gives its id.
async fn queued(rest: &Rest, tool: &str, arguments: &Json) -> anyhow::Result<String> {
    let call = json!({ "arguments": arguments });
    let answer = execute(rest, tool, &[ASYNC], &call).await?;
    text(&answer.expect(202)?, "id")
}

async fn append(rest: &Rest, id: &str) -> anyhow::Result<()> {
    let items = json!({"items": [{"role": "user", "content": "error rate is back to normal"}]});
    let path = format!("/api/v1/contexts/{id}/items");
    rest.post(&path, &items).await?.expect(201)?;
    Ok(())
}

async fn delete(world: &World) -> anyhow::Result<()> {
    let path = format!("/api/v1/contexts/{}", world.context().await?);
    world.rest.delete(&path).await?.expect(204)?;
    Ok(())
}

/// A call that fails is replayed, fails again and is left.
async fn replay(world: &World) -> anyhow::Result<()> {
    let ran = execute(&world.rest, "broken", &[], &json!({}))
        .await?
        .expect(200)?;
    ensure!(ran["status"] == "failed", "{ran}");
    let id = text(&ran, "id")?;
    let path = format!("/api/v1/executions/{id}/replay");
    world.rest.post(&path, &json!({})).await?.expect(202)?;
    let ended = world.ended(&id, "failed").await?;
    ensure!(ended["attempts"] == 2, "{ended}");
    Ok(())
}
