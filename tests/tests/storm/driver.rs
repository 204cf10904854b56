//! The caller: asks for executions and does not let go until each has an id.

use crate::{Plan, endpoint::Endpoint};
use anyhow::{Context, bail};
use e2e::{Json, rest::Rest};
use http::Method;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// How many ask at once.
const CALLERS: usize = 16;
/// How long one caller goes on trying: longer than any service is away.
const PERSISTENCE: Duration = Duration::from_secs(120);

/// A kind of tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Twice is as good as once; its endpoint fails now and then.
    Idempotent,
    /// Must reach its endpoint at most once.
    Once,
}

impl Kind {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Idempotent, Self::Once];

    /// The tool's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idempotent => "idempotent",
            Self::Once => "once",
        }
    }

    /// The tool as it is registered.
    pub(crate) fn tool(self, endpoint: &Endpoint) -> Json {
        let (path, idempotent) = match self {
            Self::Idempotent => ("/flaky", true),
            Self::Once => ("/steady", false),
        };
        json!({
            "name": self.name(), "description": "d", "method": "POST", "url": endpoint.url(path),
            "idempotent": idempotent, "timeout_ms": 20_000,
            "retry": {"max_attempts": 20, "initial_backoff_ms": 50, "max_backoff_ms": 500},
        })
    }
}

/// An execution that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Its tool.
    pub(crate) kind: Kind,
    /// Its id.
    pub(crate) id: String,
    /// Whether the caller waited for its end.
    pub(crate) waited: bool,
}

/// What is asked for, in which way, and when.
pub(crate) struct Driver {
    plan: Plan,
    rest: Rest,
}

impl Driver {
    /// Asks through `rest`.
    pub(crate) fn new(plan: Plan, rest: Rest) -> Self {
        Self { plan, rest }
    }

    /// Asks for everything, spread over the plan's time.
    pub(crate) async fn run(self) -> anyhow::Result<Vec<Asked>> {
        let (started, each) = (
            Instant::now(),
            Duration::from_secs(self.plan.seconds) / u32::try_from(self.plan.executions)?,
        );
        let mut random = StdRng::seed_from_u64(self.plan.seed);
        let (mut asking, mut asked) = (JoinSet::new(), Vec::with_capacity(self.plan.executions));
        for number in 0..self.plan.executions {
            tokio::time::sleep_until(started + each * u32::try_from(number)?).await;
            while asking.len() >= CALLERS {
                asked.push(asking.join_next().await.context("somebody asks")???);
            }
            let kind = if random.random_bool(0.5) {
                Kind::Idempotent
            } else {
                Kind::Once
            };
            let waits = random.random_bool(0.2);
            asking.spawn(ask(
                self.rest.clone(),
                kind,
                waits,
                format!("{}-{number}", self.plan.seed),
            ));
        }
        while let Some(done) = asking.join_next().await {
            asked.push(done??);
        }
        Ok(asked)
    }
}

/// Asks under one key again and again until an execution's id comes back.
async fn ask(rest: Rest, kind: Kind, waited: bool, key: String) -> anyhow::Result<Asked> {
    let path = format!("/api/v1/tools/{}/execute", kind.name());
    let mut headers = vec![("idempotency-key", key.as_str())];
    if !waited {
        headers.push(("prefer", "respond-async"));
    }
    let (started, mut last) = (Instant::now(), String::new());
    while started.elapsed() < PERSISTENCE {
        match rest
            .send(Method::POST, &path, &headers, Some(&json!({"arguments": {}})))
            .await
        {
            Ok(answer) if matches!(answer.status.as_u16(), 200 | 202) => {
                let id = answer.json()["id"]
                    .as_str()
                    .context("an execution without an id")?
                    .to_owned();
                return Ok(Asked { kind, id, waited });
            }
            // Away, draining, or at its limits.
            Ok(answer) if answer.status.is_server_error() || answer.status.as_u16() == 429 => {
                last = answer.text
            }
            Ok(answer) => bail!("{key}: {}: {}", answer.status, answer.text),
            Err(error) => last = format!("{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{key} was asked for in vain: {last}")
}
