//! Real faults in the running services, what each must raise, and their end.

use super::expected::{Expected, Protocol};
use crate::stack::Stack;
use anyhow::{Context, ensure};
use e2e::{Json, alerts::sinks::Sinks, rest::Rest, wait_for};
use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use std::{future::Future, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// More than rest-api lets one tenant run at once (`queue.running_per_tenant`, 32): the rest waits in the queue.
const QUEUED: usize = 40;
/// Between two requests of a caller that goes on and on.
const PAUSE: Duration = Duration::from_millis(100);
/// Who asks at the same time while the database is away.
const CALLERS: u32 = 30;

const fn expect(
    fault: &'static str,
    alert: &'static str,
    service: &'static str,
    severity: &'static str,
    says: &'static [&'static str],
) -> Expected {
    Expected {
        fault,
        alert,
        service,
        severity,
        says,
    }
}

const TOOL: &[Expected] = &[expect(
    "a tool fails",
    "ToolFailing",
    "rest-api",
    "warning",
    &["integration-fails", "100%"],
)];
const STRANGERS: &[Expected] = &[expect(
    "wrong API keys",
    "AuthFailuresSpike",
    "rest-api",
    "warning",
    &["rest-api", "a second"],
)];
const DEAD: &[Expected] = &[expect(
    "attempts used up",
    "DeadLetters",
    "rest-api",
    "warning",
    &["integration-dies", "execution"],
)];
const GUARD: &[Expected] = &[expect(
    "a tool asks for metadata",
    "GuardRefusals",
    "worker",
    "warning",
    &["metadata"],
)];
const APPROVAL: &[Expected] = &[expect(
    "nobody approves",
    "ApprovalsWaiting",
    "rest-api",
    "info",
    &["approval"],
)];
const REDIS: &[Expected] = &[
    expect("Redis stopped", "RedisDown", "rest-api", "warning", &["rest-api"]),
    expect(
        "Redis stopped",
        "RedisDown",
        "mcp-server",
        "warning",
        &["mcp-server"],
    ),
];
const QUEUE: &[Expected] = &[expect(
    "all slots taken",
    "ExecutionQueueStalled",
    "rest-api",
    "critical",
    &["has waited for"],
)];
const WORKER: &[Expected] = &[
    expect("worker killed", "TargetDown", "worker", "critical", &["worker"]),
    expect(
        "worker killed",
        "NoWorkers",
        "rest-api",
        "critical",
        &["0 workers"],
    ),
    expect(
        "worker killed",
        "McpToolSuccessBudgetBurn",
        "rest-api",
        "critical",
        &["%"],
    ),
    expect(
        "worker killed",
        "ApiAvailabilityBudgetBurn",
        "rest-api",
        "critical",
        &["%"],
    ),
];
const DATABASE: &[Expected] = &[
    expect(
        "PostgreSQL killed",
        "DatabaseDown",
        "rest-api",
        "critical",
        &["rest-api"],
    ),
    expect(
        "PostgreSQL killed",
        "ApiAvailabilityBudgetBurn",
        "rest-api",
        "critical",
        &["%"],
    ),
];

/// What a cause keeps quiet: alert, service, severity.
const KEPT_QUIET: &[(&str, &str, &str)] = &[
    ("TargetDown", "worker", "warning"),
    ("DependencyDown", "rest-api", "warning"),
];
const KEPT_QUIET_BY_DATABASE: &[(&str, &str, &str)] = &[
    ("HighErrorRate", "rest-api", "critical"),
    ("DatabaseErrors", "rest-api", "warning"),
];

/// Whether an alert of Alertmanager's API is one that is provoked here.
pub(super) fn is_provoked(alert: &Json) -> Option<String> {
    let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default();
    let (name, service) = (label("alertname"), label("service"));
    let all = [
        TOOL, STRANGERS, DEAD, GUARD, APPROVAL, REDIS, QUEUE, WORKER, DATABASE,
    ]
    .concat();
    let mine = all.iter().any(|expected| {
        (expected.alert, expected.service, expected.severity) == (name, service, label("severity"))
    });
    let quiet = KEPT_QUIET.iter().chain(KEPT_QUIET_BY_DATABASE);
    let quiet = quiet
        .into_iter()
        .any(|kept| *kept == (name, service, label("severity")));
    (mine || quiet).then(|| format!("{name} of {service}"))
}

/// Requests again and again until it is dropped.
struct Load(JoinHandle<()>);

impl Load {
    fn start<F: Future<Output: Send> + Send>(request: impl Fn() -> F + Send + 'static) -> Self {
        Self::every(PAUSE, request)
    }

    fn every<F: Future<Output: Send> + Send>(
        pause: Duration,
        request: impl Fn() -> F + Send + 'static,
    ) -> Self {
        Self(tokio::spawn(async move {
            loop {
                // What it is answered shows in the metrics.
                let _answer = request().await;
                sleep(pause).await;
            }
        }))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Provokes and mends.
pub(super) struct Faults<'a> {
    stack: &'a Stack,
    sinks: &'a Sinks,
    /// Executions that are to be cancelled.
    waiting: Vec<String>,
}

impl<'a> Faults<'a> {
    /// Registers the tools whose endpoints the sinks serve.
    ///
    /// # Errors
    /// When rest-api refuses one, or the worker may not call this host.
    pub(super) async fn prepare(stack: &'a Stack, sinks: &'a Sinks) -> anyhow::Result<Self> {
        let faults = Self {
            stack,
            sinks,
            waiting: Vec::new(),
        };
        let here = format!("http://{}:{}/tools", stack.at.target_host, stack.at.sink_port);
        let tools = [
            json!({"name": "integration-works", "url": format!("{here}/works")}),
            json!({"name": "integration-fails", "url": format!("{here}/fails")}),
            json!({"name": "integration-holds", "url": format!("{here}/holds"), "timeout_ms": 120_000}),
            json!({"name": "integration-dies", "url": format!("{here}/fails"),
                "retry": {"max_attempts": 2, "initial_backoff_ms": 100}}),
            json!({"name": "integration-asks", "url": "http://169.254.169.254/latest/meta-data/"}),
            json!({"name": "integration-destroys", "url": format!("{here}/works"), "method": "POST", "destructive": true}),
        ];
        for mut tool in tools {
            let name = tool["name"].as_str().context("a name")?.to_owned();
            tool["description"] = json!("Provokes a fault");
            stack.rest.delete(&format!("/api/v1/tools/{name}")).await?;
            stack
                .rest
                .post("/api/v1/tools", &tool)
                .await?
                .expect(201)
                .with_context(|| name)?;
        }
        let run = execute(&stack.rest, "integration-works", &[]).await?;
        ensure!(
            run["status"] == "succeeded",
            "the worker must be able to call {here}: {run}"
        );
        Ok(faults)
    }

    /// All faults, in groups that do not disturb one another.
    ///
    /// # Errors
    /// When a notification does not come, or one that must not does.
    pub(super) async fn all(&mut self, protocol: &mut Protocol<'_>) -> anyhow::Result<()> {
        let began = Instant::now();
        self.approval(protocol).await?;
        self.callers(protocol).await?;
        self.queue(protocol).await?;
        protocol.raised(APPROVAL).await?;
        self.worker(protocol).await?;
        protocol.silent(began, KEPT_QUIET)?;
        self.database(protocol).await?;
        protocol.resolved(DEAD).await?;
        protocol.silent(began, KEPT_QUIET)?;
        protocol.silent(began, KEPT_QUIET_BY_DATABASE)
    }

    /// A destructive call by a key that a person must approve.
    async fn approval(&mut self, protocol: &mut Protocol<'_>) -> anyhow::Result<()> {
        let key = json!({"name": "integration", "scopes": ["tools:execute"], "expires_in": "1h"});
        let key = self.stack.rest.post("/api/v1/keys", &key).await?.expect(201)?;
        let caller = self.stack.rest.with_key(key["secret"].as_str());
        protocol.expect(Instant::now(), APPROVAL);
        let run = execute(&caller, "integration-destroys", &[]).await?;
        ensure!(
            run["status"] == "awaiting_approval",
            "expected to wait for approval: {run}"
        );
        self.waiting.extend(run["id"].as_str().map(str::to_owned));
        Ok(())
    }

    /// What callers, tools and Redis do, at once.
    async fn callers(&self, protocol: &mut Protocol<'_>) -> anyhow::Result<()> {
        let groups = [TOOL, STRANGERS, DEAD, GUARD, REDIS];
        groups
            .iter()
            .for_each(|group| protocol.expect(Instant::now(), group));
        self.stack.stop("redis").await?;
        self.sinks.fail(true);
        for _ in 0..3 {
            execute(
                &self.stack.rest,
                "integration-dies",
                &[("prefer", "respond-async")],
            )
            .await?;
        }
        execute(&self.stack.rest, "integration-asks", &[]).await?;
        let rest = self.stack.rest.clone();
        let failing = Load::start(move || {
            let rest = rest.clone();
            async move { execute(&rest, "integration-fails", &[]).await }
        });
        let stranger = self.stack.rest.with_key(Some("dmcp_wrong"));
        let strangers = Load::start(move || {
            let stranger = stranger.clone();
            async move { stranger.get("/api/v1/contexts").await }
        });
        let raised = protocol.raised(&groups.concat()).await;
        drop((failing, strangers));
        self.sinks.fail(false);
        self.stack.start("redis").await?;
        protocol.healed(Instant::now(), &groups.concat());
        raised?;
        // Those of dead letters, which takes a minute, may come later.
        protocol.resolved(&[TOOL, STRANGERS, GUARD, REDIS].concat()).await
    }

    /// More slow calls than slots, so that the queue stands still although there is a worker.
    async fn queue(&mut self, protocol: &mut Protocol<'_>) -> anyhow::Result<()> {
        self.sinks.hold(true);
        protocol.expect(Instant::now(), QUEUE);
        let calls = (0..QUEUED).map(|_| {
            execute(
                &self.stack.rest,
                "integration-holds",
                &[("prefer", "respond-async")],
            )
        });
        for run in join_all(calls).await {
            self.waiting.extend(run?["id"].as_str().map(str::to_owned));
        }
        let raised = protocol.raised(QUEUE).await;
        self.sinks.hold(false);
        protocol.healed(Instant::now(), QUEUE);
        raised?;
        protocol.resolved(QUEUE).await
    }

    /// The only worker dies, while callers go on.
    async fn worker(&self, protocol: &mut Protocol<'_>) -> anyhow::Result<()> {
        protocol.expect(Instant::now(), WORKER);
        let rest = self.stack.rest.clone();
        let load = Load::start(move || {
            let rest = rest.clone();
            async move { execute(&rest, "integration-works", &[]).await }
        });
        self.stack.kill("worker").await?;
        let raised = protocol.raised(WORKER).await;
        let quiet = match raised {
            Ok(()) => protocol.kept_quiet("DependencyDown", "rest-api").await,
            Err(error) => Err(error),
        };
        self.stack.start("worker").await?;
        self.wait_for_worker().await?;
        protocol.healed(Instant::now(), WORKER);
        quiet?;
        let resolved = protocol.resolved(WORKER).await;
        drop(load);
        resolved
    }

    /// PostgreSQL dies.
    async fn database(&self, protocol: &mut Protocol<'_>) -> anyhow::Result<()> {
        protocol.expect(Instant::now(), DATABASE);
        // Many, not in step: each waits for the database for a while before it fails.
        let load: Vec<Load> = (1..=CALLERS)
            .map(|caller| {
                let rest = self.stack.rest.clone();
                Load::every(caller * PAUSE, move || {
                    let rest = rest.clone();
                    async move { rest.get("/api/v1/contexts").await }
                })
            })
            .collect();
        self.stack.kill("postgres").await?;
        let raised = protocol.raised(DATABASE).await;
        let quiet = match raised {
            Ok(()) => protocol.kept_quiet("HighErrorRate", "rest-api").await,
            Err(error) => Err(error),
        };
        self.stack.start("postgres").await?;
        self.wait_for_database().await?;
        protocol.healed(Instant::now(), DATABASE);
        quiet?;
        let resolved = protocol.resolved(DATABASE).await;
        drop(load);
        resolved
    }

    /// Ends everything that a failure may have left, and takes away what was made here.
    ///
    /// # Errors
    /// When a service does not come back.
    pub(super) async fn mend(&mut self) -> anyhow::Result<()> {
        self.sinks.fail(false);
        self.sinks.hold(false);
        for service in ["postgres", "redis", "worker"] {
            self.stack.start(service).await?;
        }
        self.wait_for_database().await?;
        self.wait_for_worker().await?;
        for id in self.waiting.drain(..) {
            // 409 for what is over.
            self.stack
                .rest
                .post(&format!("/api/v1/executions/{id}/cancel"), &json!({}))
                .await?;
        }
        for tool in ["works", "fails", "holds", "dies", "asks", "destroys"] {
            self.stack
                .rest
                .delete(&format!("/api/v1/tools/integration-{tool}"))
                .await?;
        }
        let keys = self.stack.rest.get("/api/v1/keys?limit=100").await?.expect(200)?;
        for key in keys["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|key| key["name"] == "integration")
        {
            let id = key["id"].as_str().unwrap_or_default();
            self.stack.rest.delete(&format!("/api/v1/keys/{id}")).await?;
        }
        Ok(())
    }

    async fn wait_for_database(&self) -> anyhow::Result<()> {
        wait_for("rest-api to reach its database", async || {
            let answer = self.stack.rest.get("/api/v1/contexts").await.ok()?;
            answer.status.is_success().then_some(())
        })
        .await
    }

    async fn wait_for_worker(&self) -> anyhow::Result<()> {
        wait_for("a worker to run a tool", async || {
            let run = execute(&self.stack.rest, "integration-works", &[]).await.ok()?;
            (run["status"] == "succeeded").then_some(())
        })
        .await
    }
}

/// Runs a tool; the execution, however it ended.
async fn execute(rest: &Rest, tool: &str, headers: &[(&'static str, &str)]) -> anyhow::Result<Json> {
    let path = format!("/api/v1/tools/{tool}/execute");
    let answer = rest
        .send(Method::POST, &path, headers, Some(&json!({"arguments": {}})))
        .await?;
    ensure!(
        answer.status.is_success(),
        "{tool}: {}: {}",
        answer.status,
        answer.text
    );
    Ok(answer.json())
}
