//! Calls of a registered tool: over REST, waited for and queued, and over MCP; with its endpoint called directly, and
//! with a bare rmcp server that calls the same endpoint, beside.

mod report;

pub(crate) use report::{aims, table};

use crate::{
    Only,
    driver::{self, Phase, quantile},
    endpoint::Endpoint,
    subject::{self, Subject},
    swallow::Swallow,
};
use anyhow::{Context, ensure};
use e2e::{
    Backend, Era, PATIENCE, Stack,
    raw::{self, Raw},
    rest::Rest,
    stack::{MCP_SERVER, REST_API, WORKER},
};
use http::Method;
use serde_json::json;
use std::{
    collections::BTreeMap,
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Instant, sleep, sleep_until};

/// The tool's name.
const TOOL: &str = "load";
/// How many executions are queued in a turn.
const BATCH: usize = 1_000;
/// How many calls of each kind are timed from request to arrival in a round, and how far apart.
const TIMED: u32 = 50;
const APART: Duration = Duration::from_millis(20);

/// A way to have the endpoint called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// By the loader itself.
    Direct,
    /// `POST …/execute`, answered when the call is over.
    Waiting,
    /// The same with `Prefer: respond-async`: answered at once, measured until all are recorded.
    Queued,
    /// By a bare rmcp server.
    Bare(Wire),
    /// By mcp-server.
    Mcp(Wire),
}

/// A revision of MCP. The clients' own type has no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wire {
    Modern,
    Legacy,
}

impl Wire {
    fn era(self) -> Era {
        match self {
            Self::Modern => Era::Modern,
            Self::Legacy => Era::Legacy,
        }
    }
}

impl Way {
    const EXECUTIONS: [Self; 3] = [Self::Direct, Self::Waiting, Self::Queued];
    const TOOLS: [Self; 5] = [
        Self::Direct,
        Self::Bare(Wire::Modern),
        Self::Mcp(Wire::Modern),
        Self::Bare(Wire::Legacy),
        Self::Mcp(Wire::Legacy),
    ];

    fn name(self) -> String {
        match self {
            Self::Direct => "endpoint, called directly".to_owned(),
            Self::Waiting => "POST …/execute, waiting".to_owned(),
            Self::Queued => "queued to recorded".to_owned(),
            Self::Bare(wire) => format!("bare rmcp, {}", wire.era().version()),
            Self::Mcp(wire) => format!("tools/call, {}", wire.era().version()),
        }
    }

    /// What takes part beside the loader, the one that is called first.
    fn hops(self) -> &'static [&'static str] {
        match self {
            Self::Direct => &["endpoint"],
            Self::Waiting | Self::Queued => &[REST_API, WORKER, "endpoint"],
            Self::Bare(_) => &["bare rmcp", "endpoint"],
            Self::Mcp(_) => &[MCP_SERVER, REST_API, WORKER, "endpoint"],
        }
    }
}

/// The services on one database, and what is measured with them.
pub(crate) struct Place {
    database: &'static str,
    stack: Stack,
    endpoint: Endpoint,
    rest: Rest,
    subjects: Vec<(Way, Subject)>,
    phases: BTreeMap<Way, Vec<Phase>>,
    /// From the request that asks for a call to its arrival at the endpoint, the shortest first.
    delays: BTreeMap<Way, Vec<Duration>>,
    // After the services: they end first.
    _bare: Endpoint,
}

impl Place {
    /// Starts everything on `backend`; metrics and access log as ever, no request sampled.
    pub(crate) async fn start(
        backend: Backend,
        collector: &Swallow,
        only: &[Only],
        connections: usize,
    ) -> anyhow::Result<Self> {
        let mut builder = Stack::builder(backend).otlp(&collector.url()).allow_private();
        for service in [REST_API, MCP_SERVER, WORKER] {
            builder = builder.set(service, "MONITORING__TRACING__SAMPLE_RATIO", "0");
        }
        for service in [REST_API, MCP_SERVER] {
            // Limits are checked as ever, and never reached.
            builder = builder.set(service, "RATE_LIMIT__PER_SECOND", "10000000");
            builder = builder.set(service, "RATE_LIMIT__BURST", "10000000");
        }
        let stack = builder.start().await?;
        let endpoint = Endpoint::start(stack.directory(), None).await?;
        let bare = Endpoint::start(stack.directory(), Some(&endpoint)).await?;
        let key = stack.tenant("load", "all").await?;
        let rest = stack.rest(&key);
        let tool = json!({
            "name": TOOL, "description": "Answers at once.", "method": "GET", "url": endpoint.url("/work"),
            "input_schema": {"type": "object", "properties": {"sent": {"type": "integer"}}},
        });
        rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        stack.mcp(&key, Era::Modern).await?.wait_for_tool(TOOL).await?;

        let mut ways = Vec::new();
        for (part, own) in [
            (Only::Executions, &Way::EXECUTIONS[..]),
            (Only::Tools, &Way::TOOLS),
        ] {
            ways.extend(own.iter().copied().filter(|_| only.contains(&part)));
        }
        ways.sort_unstable();
        ways.dedup();
        let mcp = [stack.raw(&key), Raw::new(&bare.url("/mcp"), None)];
        let mut subjects = Vec::new();
        for way in ways {
            let mut processes = Vec::new();
            for hop in way.hops() {
                processes.push(match *hop {
                    "endpoint" => endpoint.pid()?,
                    "bare rmcp" => bare.pid()?,
                    service => stack.process(service).pid()?,
                });
            }
            processes.push(process::id());
            let subject = subject(way, &endpoint, &rest, &mcp, processes, connections).await?;
            subjects.push((way, subject));
        }
        let database = match backend {
            Backend::Sqlite => "SQLite",
            Backend::Postgres => "PostgreSQL",
        };
        Ok(Self {
            database,
            stack,
            endpoint,
            rest,
            subjects,
            phases: BTreeMap::new(),
            delays: BTreeMap::new(),
            _bare: bare,
        })
    }

    /// Gives each its turn.
    pub(crate) async fn round(&mut self, turn: Duration) -> anyhow::Result<()> {
        for (way, subject) in &self.subjects {
            let phase = if *way == Way::Queued {
                self.drained().await?;
                self.queue(subject).await?
            } else {
                driver::flat_out(subject, turn / 2).await?
            };
            self.phases.entry(*way).or_default().push(phase);
        }
        for way in [Way::Queued, Way::Waiting] {
            if self.phases.contains_key(&way) {
                self.drained().await?;
                let mut delays = self.timed(way == Way::Queued).await?;
                let all = self.delays.entry(way).or_default();
                all.append(&mut delays);
                all.sort_unstable();
            }
        }
        Ok(())
    }

    /// Queues a batch and measures until all of it has run and is recorded.
    async fn queue(&self, subject: &Subject) -> anyhow::Result<Phase> {
        let (arrived, succeeded) = (self.endpoint.arrived().await?.count, self.succeeded().await?);
        let (before, begin) = (subject.cpu()?, Instant::now());
        let answers = driver::batch(subject, BATCH).await?;
        let count = answers.len();
        while self.endpoint.arrived().await?.count < arrived + count as u64 {
            ensure!(begin.elapsed() < PATIENCE, "{}: not all arrived", subject.name);
            sleep(Duration::from_millis(10)).await;
        }
        self.drained().await?;
        let (took, after) = (begin.elapsed(), subject.cpu()?);
        let recorded = self.succeeded().await? - succeeded;
        ensure!(recorded == count as f64, "{recorded} of {count} have succeeded");
        Ok(Phase {
            rate: count as f64 / took.as_secs_f64(),
            p50: quantile(&answers, 0.5),
            p99: quantile(&answers, 0.99),
            cpu: before
                .iter()
                .zip(&after)
                .map(|(before, after)| (after - before) / count as f64)
                .collect(),
        })
    }

    /// Waits until no execution is queued or runs.
    async fn drained(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        for status in ["queued", "running"] {
            let path = format!("/api/v1/executions?limit=1&status={status}");
            while self.rest.get(&path).await?.expect(200)?["items"] != json!([]) {
                ensure!(begin.elapsed() < PATIENCE, "executions stay {status}");
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    async fn succeeded(&self) -> anyhow::Result<f64> {
        let labels = [("tool", TOOL), ("status", "succeeded")];
        let scrape = self.stack.metrics(REST_API).await?;
        Ok(scrape.sum("mcp_tool_executions_total", &labels))
    }

    /// Calls one by one, each of which says when it was sent; how long they took to the endpoint.
    async fn timed(&self, queued: bool) -> anyhow::Result<Vec<Duration>> {
        self.endpoint.arrived().await?;
        let headers = [("prefer", "respond-async")];
        let (mut due, mut delays) = (Instant::now(), Vec::new());
        for _ in 0..TIMED {
            sleep_until(due).await;
            due += APART;
            let sent = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
            let call = json!({"arguments": {"sent": u64::try_from(sent)?}});
            let path = format!("/api/v1/tools/{TOOL}/execute");
            let headers = if queued { &headers[..] } else { &[] };
            let answer = self.rest.send(Method::POST, &path, headers, Some(&call)).await?;
            answer.expect(if queued { 202 } else { 200 })?;
        }
        let begin = Instant::now();
        while delays.len() < TIMED as usize {
            ensure!(
                begin.elapsed() < PATIENCE,
                "only {} of {TIMED} arrived",
                delays.len()
            );
            sleep(Duration::from_millis(5)).await;
            delays.extend(self.endpoint.arrived().await?.delays);
        }
        Ok(delays)
    }
}

async fn subject(
    way: Way,
    endpoint: &Endpoint,
    rest: &Rest,
    [mcp, bare]: &[Raw; 2],
    processes: Vec<u32>,
    connections: usize,
) -> anyhow::Result<Subject> {
    let call = json!({"name": TOOL, "arguments": {}});
    let execute = rest
        .request(Method::POST, &format!("/api/v1/tools/{TOOL}/execute"))
        .json(&json!({"arguments": {}}));
    let requests = match way {
        Way::Direct => subject::repeated(&e2e::http_client().get(endpoint.url("/work")), connections)?,
        Way::Waiting => subject::repeated(&execute, connections)?,
        Way::Queued => subject::repeated(&execute.header("prefer", "respond-async"), connections)?,
        Way::Bare(wire) => subject::calls(bare, wire.era(), &call, connections).await?,
        Way::Mcp(wire) => subject::calls(mcp, wire.era(), &call, connections).await?,
    };
    let subject = Subject::new(way.name(), requests, processes, |answer| {
        Ok(match way {
            Way::Direct => answer.expect(200)?["done"] == true,
            Way::Waiting => answer.expect(200)?["result"]["body"]["done"] == true,
            Way::Queued => answer.expect(202)?["status"] == "queued",
            Way::Bare(_) | Way::Mcp(_) => {
                raw::response(answer)?["result"]["structuredContent"]["body"]["done"] == true
            }
        })
    });
    subject.await.context("the first answer")
}
