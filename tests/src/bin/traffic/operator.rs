//! What happens more rarely than reading and writing: runs that do not wait, wait for approval, are tried again, given up
//! or cancelled, and callers who do what they should not.

use crate::{Work, world::Callers};
use anyhow::{Context, ensure};
use e2e::{
    Json,
    rest::{Answer, Rest},
};
use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a run may take that is followed to its end.
const FOLLOWED: Duration = Duration::from_secs(20);
/// How often a caller calls too often: what is refused is not to be most of the traffic.
const BURST_EVERY: Duration = Duration::from_secs(300);
/// When it does so first: not while everybody else connects.
const FIRST_BURST: Duration = Duration::from_secs(20);
/// How long such a caller tries, and how many calls it has under way.
const BURST: (Duration, usize) = (Duration::from_secs(4), 32);

impl Work {
    /// Does one thing after another until the time is over.
    pub(crate) async fn operator(self: Arc<Self>, callers: Callers) {
        let mut turn = 0;
        let mut burst = Instant::now() + FIRST_BURST;
        while self.pause().await {
            let deed = turn % 14;
            turn += 1;
            match deed {
                0 => {
                    self.note("asynchronous run", self.follow("works", "succeeded"))
                        .await
                }
                1 => {
                    self.note("run tried again", self.follow("flaky", "succeeded"))
                        .await
                }
                2 => self.note("run given up", self.follow("dies", "dead")).await,
                3 => self.note("run approved", self.approve(&callers)).await,
                4 => self.note("run cancelled", self.cancel("slow")).await,
                5 => {
                    self.note(
                        "run of unknown outcome",
                        self.follow("breaks-off", "outcome_unknown"),
                    )
                    .await
                }
                6 => {
                    self.note("address refused", self.follow("forbidden", "failed"))
                        .await
                }
                7 => self.note("large result", self.follow("big", "succeeded")).await,
                8 => self.note("mistakes", self.mistakes(&callers)).await,
                9 => self.note("MCP refused", self.intruder()).await,
                10 => self.note("debugged request", self.debugged()).await,
                11 => {
                    self.note(
                        "other server",
                        self.follow_tool("traffic_server_says", "succeeded"),
                    )
                    .await
                }
                12 => {
                    self.note(
                        "other server fails",
                        self.follow_tool("traffic_server_fails", "failed"),
                    )
                    .await
                }
                _ => self.note("run too late", self.late(&callers)).await,
            }
            if Instant::now() >= burst {
                burst += BURST_EVERY;
                self.note("too many calls", hurry(&callers.hasty)).await;
            }
        }
        for what in ["schedules", "keys"] {
            self.note("removed", self.sweep(what)).await;
        }
    }

    async fn note(&self, what: &'static str, deed: impl Future<Output = anyhow::Result<()>>) {
        self.tally.note(what, deed.await);
    }

    /// Queues a run; answers where it is.
    async fn enqueue(&self, tool: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/tools/{tool}/execute");
        let answer = self
            .rest
            .send(
                Method::POST,
                &path,
                &[("prefer", "respond-async")],
                Some(&json!({})),
            )
            .await?;
        answer.expect(202)?;
        Ok(answer.header("location").to_owned())
    }

    async fn follow(&self, tool: &str, expected: &str) -> anyhow::Result<()> {
        self.follow_tool(&format!("traffic-{tool}"), expected).await
    }

    async fn follow_tool(&self, tool: &str, expected: &str) -> anyhow::Result<()> {
        let path = self.enqueue(tool).await?;
        self.until(&path, expected).await
    }

    async fn until(&self, path: &str, expected: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let execution = self.rest.get(path).await?.expect(200)?;
            if execution["finished_at"].is_string() {
                ensure!(
                    execution["status"] == expected,
                    "expected {expected}: {execution}"
                );
                return Ok(());
            }
            ensure!(begun.elapsed() < FOLLOWED, "it does not end: {execution}");
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Somebody asks for something that cannot be taken back; somebody else agrees.
    async fn approve(&self, callers: &Callers) -> anyhow::Result<()> {
        let asked = destroy(&callers.asker, &json!({"arguments": {"name": "old"}})).await?;
        let path = asked.header("location");
        // A person would take longer. Meanwhile it is seen to wait.
        sleep(Duration::from_secs(7)).await;
        let given = json!({"digest": asked.json()["digest"]});
        let approve = format!("{path}/approve");
        callers.approver.post(&approve, &given).await?.expect(202)?;
        self.until(path, "succeeded").await
    }

    /// Nobody agrees in time.
    async fn late(&self, callers: &Callers) -> anyhow::Result<()> {
        let call = json!({"arguments": {"name": "new"}, "deadline_in": "2s"});
        destroy(&callers.asker, &call).await.map(drop)
    }

    async fn cancel(&self, tool: &str) -> anyhow::Result<()> {
        let path = self.enqueue(&format!("traffic-{tool}")).await?;
        sleep(Duration::from_millis(500)).await;
        let answer = self.rest.post(&format!("{path}/cancel"), &json!({})).await?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text);
        self.until(&path, "cancelled").await
    }

    /// What people get wrong, each answered with its own 4xx.
    async fn mistakes(&self, callers: &Callers) -> anyhow::Result<()> {
        let rest = &self.rest;
        rest.post("/api/v1/contexts", &json!({"nmae": "a"}))
            .await?
            .expect(422)?;
        let taken = json!({"name": "traffic-works", "description": "d", "url": "https://example.com/"});
        rest.post("/api/v1/tools", &taken).await?.expect(409)?;
        callers
            .asker
            .post("/api/v1/contexts", &json!({"name": "a"}))
            .await?
            .expect(403)?;
        callers.former.get("/api/v1/contexts").await?.expect(401)?;
        let by_header = rest.with_key(None);
        let headers = [("x-api-key", self.args.api_key.as_str())];
        let seen = by_header
            .send(Method::GET, "/api/v1/contexts?limit=1", &headers, None)
            .await?;
        seen.expect(200)?;
        Ok(())
    }

    /// Somebody wants to see everything of one request.
    async fn debugged(&self) -> anyhow::Result<()> {
        let path = "/api/v1/tools/traffic-works/execute";
        let headers = [("x-debug-trace", "true")];
        let answer = self
            .rest
            .send(Method::POST, path, &headers, Some(&json!({})))
            .await?;
        answer.expect(200).map(drop)
    }
}

async fn destroy(asker: &Rest, call: &Json) -> anyhow::Result<Answer> {
    let asked = asker.post("/api/v1/tools/traffic-destroys/execute", call).await?;
    asked
        .expect(202)
        .context("a destructive tool ran without approval")?;
    Ok(asked)
}

/// Calls until it is told to slow down; for what costs no database anything, or the others would wait. That takes more than the limit allows in the long run, which a busy machine may
/// not manage: then there is no limit to be seen.
async fn hurry(hasty: &Rest) -> anyhow::Result<()> {
    let (limit, at_once) = BURST;
    let begun = Instant::now();
    let caller = async || {
        while begun.elapsed() < limit {
            if hasty.get("/api/v1/contexts/none").await?.status.as_u16() == 429 {
                break;
            }
        }
        anyhow::Ok(())
    };
    join_all((0..at_once).map(|_| caller()))
        .await
        .into_iter()
        .collect()
}
