//! What is measured with contexts: servers, and the requests they are driven with.

use crate::{
    subject::{self, Subject},
    swallow::Swallow,
};
use anyhow::Context;
use e2e::{
    Backend, Era, Json, Stack,
    process::{Process, free_port},
    raw::{self, Raw},
    stack::{MCP_SERVER, REST_API, WORKER},
};
use http::Method;
use prost::Message;
use proto::v1::{ListItemsRequest, contexts_client::ContextsClient};
use reqwest::RequestBuilder;
use serde_json::json;
use std::{collections::BTreeMap, fs, path::Path};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    /// `GET /api/v1/contexts/{id}`.
    Rest,
    /// `tools/call` of context_get, each request for itself.
    Modern,
    /// `tools/call` of context_get, a session on each connection.
    Legacy,
}

impl Workload {
    /// All.
    pub(crate) const ALL: [Self; 3] = [Self::Rest, Self::Modern, Self::Legacy];

    /// What to call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rest => "GET /api/v1/contexts/{id}",
            Self::Modern => "tools/call context_get, 2026-07-28",
            Self::Legacy => "tools/call context_get, 2025-11-25",
        }
    }

    /// The services that serve it, the one that is called first.
    pub(crate) fn services(self) -> &'static [&'static str] {
        match self {
            Self::Rest => &[REST_API],
            Self::Modern | Self::Legacy => &[MCP_SERVER, REST_API],
        }
    }
}

/// What serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    /// axum or rmcp with the answer in memory.
    Bare,
    /// The same rmcp, but it makes the RPC that mcp-server makes, to a tonic with the answer in memory.
    BareCall,
    /// The services without metrics, spans and access log.
    Off,
    /// With metrics and access log, no request sampled.
    Unsampled,
    /// With metrics and access log, every request sampled and sent.
    Sampled,
}

impl Variant {
    /// Those that serve `workload`.
    pub(crate) fn of(workload: Workload) -> &'static [Self] {
        match workload {
            Workload::Rest => &[Self::Bare, Self::Off, Self::Unsampled, Self::Sampled],
            _ => &[
                Self::Bare,
                Self::BareCall,
                Self::Off,
                Self::Unsampled,
                Self::Sampled,
            ],
        }
    }

    /// What to call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareCall => "bare, with a bare RPC",
            Self::Off => "telemetry off",
            Self::Unsampled => "unsampled, access log",
            Self::Sampled => "100 % sampled, access log",
        }
    }

    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bare | Self::BareCall => &[],
            // Metrics are turned off later: the stack looks at them to see that it has started.
            Self::Off => &[
                ("MONITORING__TRACING__ENABLED", "false"),
                ("MONITORING__LOGGING__LEVEL", "warn"),
            ],
            Self::Unsampled => &[("MONITORING__TRACING__SAMPLE_RATIO", "0")],
            Self::Sampled => &[("MONITORING__TRACING__SAMPLE_RATIO", "1")],
        }
    }
}

/// All servers, running.
pub(crate) struct Subjects {
    collector: Swallow,
    stacks: BTreeMap<Variant, Stack>,
    /// The one that answers by itself, and the one that asks it.
    bare: Option<(Bare, Bare)>,
    subjects: BTreeMap<(Workload, Variant), Subject>,
    concurrency: usize,
}

impl Subjects {
    /// Starts the services in every variant.
    pub(crate) async fn start(concurrency: usize) -> anyhow::Result<Self> {
        let collector = Swallow::start().await?;
        let mut stacks = BTreeMap::new();
        for variant in [Variant::Off, Variant::Unsampled, Variant::Sampled] {
            let mut builder = Stack::builder(Backend::Sqlite).otlp(&collector.url());
            for service in [REST_API, MCP_SERVER, WORKER] {
                for (key, value) in variant.settings() {
                    builder = builder.set(service, key, value);
                }
            }
            for service in [REST_API, MCP_SERVER] {
                // Limits are checked as ever, and never reached.
                builder = builder.set(service, "RATE_LIMIT__PER_SECOND", "10000000");
                builder = builder.set(service, "RATE_LIMIT__BURST", "10000000");
            }
            stacks.insert(variant, builder.start().await?);
        }
        for service in [REST_API, MCP_SERVER, WORKER] {
            let process = stacks
                .get_mut(&Variant::Off)
                .expect("just started")
                .process_mut(service);
            process.set("DEVOPS_MCP__MONITORING__METRICS__ENABLED", "false");
            process.kill();
            process.start().await?;
        }
        Ok(Self {
            collector,
            stacks,
            bare: None,
            subjects: BTreeMap::new(),
            concurrency,
        })
    }

    /// Makes what is asked for, and the bare servers that answer the same.
    pub(crate) async fn prepare(&mut self) -> anyhow::Result<()> {
        for (variant, stack) in &self.stacks {
            connected(stack).await?;
            let key = stack.tenant("load", "all").await?;
            let (context, mcp) = (context(stack, &key).await?, stack.raw(&key));
            let rest = stack
                .rest(&key)
                .request(Method::GET, &format!("/api/v1/contexts/{context}"));
            for workload in Workload::ALL {
                let pids = workload
                    .services()
                    .iter()
                    .map(|service| stack.process(service).pid());
                let processes = pids.collect::<anyhow::Result<Vec<_>>>()?;
                let requests = requests(workload, &rest, &mcp, &context, self.concurrency).await?;
                let subject = subject(workload, *variant, requests, processes).await?;
                self.subjects.insert((workload, *variant), subject);
            }
            if self.bare.is_none() {
                let body = rest.send().await?.error_for_status()?.text().await?;
                let called = raw::response(&mcp.call("tools/call", call(&context)).await?)?;
                let result = called["result"].to_string();
                let items = items(stack, &key, context).await?;
                let directory = stack.directory();
                for (name, content) in [
                    ("context", body.as_bytes()),
                    ("result", result.as_bytes()),
                    ("items", &items),
                ] {
                    fs::write(directory.join(name), content)?;
                }
                let bare = Bare::start(directory, None).await?;
                let asking = Bare::start(directory, Some(&bare)).await?;
                self.bare = Some((bare, asking));
            }
        }
        self.prepare_bare().await
    }

    async fn prepare_bare(&mut self) -> anyhow::Result<()> {
        let (bare, asking) = self.bare.as_ref().context("the bare servers run")?;
        let (pid, asking_pid) = (bare.process.pid()?, asking.process.pid()?);
        let servers = [
            (Variant::Bare, bare, vec![pid]),
            (Variant::BareCall, asking, vec![asking_pid, pid]),
        ];
        for (variant, server, processes) in servers {
            let mcp = Raw::new(&format!("http://{}/mcp", server.http), None);
            let rest = e2e::http_client().get(format!("http://{}/api/v1/contexts/any", server.http));
            for workload in Workload::ALL {
                if Variant::of(workload).contains(&variant) {
                    let requests = requests(workload, &rest, &mcp, "any", self.concurrency).await?;
                    let subject = subject(workload, variant, requests, processes.clone()).await?;
                    self.subjects.insert((workload, variant), subject);
                }
            }
        }
        Ok(())
    }

    /// One of them; after [`Self::prepare`].
    pub(crate) fn subject(&self, workload: Workload, variant: Variant) -> &Subject {
        &self.subjects[&(workload, variant)]
    }

    /// A variant's services.
    pub(crate) fn stack_mut(&mut self, variant: Variant) -> &mut Stack {
        self.stacks
            .get_mut(&variant)
            .expect("every variant but the bare one has a stack")
    }

    /// How many spans the services had to drop.
    pub(crate) async fn spans_lost(&self) -> anyhow::Result<f64> {
        let stack = &self.stacks[&Variant::Sampled];
        let mut lost = 0.0;
        for service in [REST_API, MCP_SERVER] {
            lost += stack
                .metrics(service)
                .await?
                .sum("telemetry_spans_dropped_total", &[]);
        }
        Ok(lost)
    }

    /// What the collector was sent, megabytes.
    pub(crate) fn exported_mb(&self) -> f64 {
        self.collector.bytes() as f64 / 1e6
    }
}

/// Waits until mcp-server sees rest-api, which has just been started again.
async fn connected(stack: &Stack) -> anyhow::Result<()> {
    e2e::wait_for("mcp-server's connection", async || {
        let state = stack.readyz(MCP_SERVER).await.ok()?;
        (state["dependencies"]["rest-api"]["up"] == true).then_some(())
    })
    .await
}

/// A context as agents keep them: some metadata, a few items.
pub(crate) async fn context(stack: &Stack, key: &str) -> anyhow::Result<String> {
    let items = [
        (
            "user",
            "Checkout latency has doubled since 14:05. Find out what changed and whether to roll back.",
        ),
        (
            "tool",
            "{\"metric\": \"http_request_duration_seconds\", \"p99_before\": 0.212, \"p99_after\": 0.466}",
        ),
        (
            "assistant",
            "p99 rose with release 2026.11.3 of payments; its connection pool is exhausted at peak.",
        ),
    ];
    let body = json!({
        "name": "checkout latency, 22 November",
        "type": "incident",
        "agent_id": "sre-agent",
        "metadata": {"severity": "high", "service": "checkout", "labels": ["latency", "payments"]},
        "items": items.map(|(role, content)| json!({"role": role, "content": content})),
    });
    let made = stack
        .rest(key)
        .post("/api/v1/contexts", &body)
        .await?
        .expect(201)?;
    Ok(made["id"].as_str().context("a context without an id")?.to_owned())
}

/// The same request for each connection.
async fn requests(
    workload: Workload,
    rest: &RequestBuilder,
    mcp: &Raw,
    context: &str,
    count: usize,
) -> anyhow::Result<Vec<RequestBuilder>> {
    match workload {
        Workload::Rest => subject::repeated(rest, count),
        Workload::Modern => subject::calls(mcp, Era::Modern, &call(context), count).await,
        Workload::Legacy => subject::calls(mcp, Era::Legacy, &call(context), count).await,
    }
}

fn call(context: &str) -> Json {
    json!({"name": "context_get", "arguments": {"id": context}})
}

async fn subject(
    workload: Workload,
    variant: Variant,
    requests: Vec<RequestBuilder>,
    processes: Vec<u32>,
) -> anyhow::Result<Subject> {
    let name = format!("{}, {}", workload.name(), variant.name());
    Subject::new(name, requests, processes, |answer| {
        Ok(match workload {
            Workload::Rest => answer.expect(200)?["name"].is_string(),
            _ => raw::response(answer)?["result"]["structuredContent"]["context"]["name"].is_string(),
        })
    })
    .await
}

/// What rest-api answers mcp-server when context_get is called.
async fn items(stack: &Stack, key: &str, context: String) -> anyhow::Result<Vec<u8>> {
    let request = ListItemsRequest {
        id: context,
        with_context: true,
        ..Default::default()
    };
    let request = chassis::grpc::with_bearer(tonic::Request::new(request), key)?;
    let answer = ContextsClient::new(stack.channel(REST_API)?)
        .list_items(request)
        .await?;
    Ok(answer.into_inner().encode_to_vec())
}

/// A bare server; ends when dropped.
struct Bare {
    process: Process,
    http: String,
    grpc: String,
}

impl Bare {
    /// Starts one with the answers in `directory`.
    async fn start(directory: &Path, upstream: Option<&Self>) -> anyhow::Result<Self> {
        let [http, grpc] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let answer = |name: &str| directory.join(name).display().to_string();
        let mut environment = vec![
            ("BARE_ADDRESS", http.clone()),
            ("BARE_GRPC", grpc.clone()),
            ("BARE_CONTEXT", answer("context")),
            ("BARE_RESULT", answer("result")),
            ("BARE_ITEMS", answer("items")),
        ];
        environment.extend(upstream.map(|upstream| ("BARE_UPSTREAM", format!("http://{}", upstream.grpc))));
        let environment = environment
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        // Its ready files are numbered: each server has a directory of its own.
        let home = directory.join(&http);
        fs::create_dir(&home)?;
        let mut process = Process::new("bare", &home, environment.collect())?;
        process.start().await?;
        Ok(Self { process, http, grpc })
    }
}
