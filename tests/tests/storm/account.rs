//! The reckoning.

use crate::{
    Outcome,
    driver::{Asked, Kind},
    endpoint::Endpoint,
};
use anyhow::{Context, ensure};
use e2e::{Json, rest::Rest, wait_at_most};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime},
};

/// How long what was asked for may take to end after the storm: a lost lease, then the longest waits between attempts.
const SETTLES: Duration = Duration::from_secs(180);

/// What became of one execution.
struct Entry {
    asked: Asked,
    status: String,
    error: String,
    finished_at: Option<SystemTime>,
    /// How each recorded attempt ended, with the code of its error.
    attempts: Vec<String>,
    arrivals: Vec<SystemTime>,
}

/// What became of all.
pub(crate) struct Account {
    entries: Vec<Entry>,
    total_arrivals: usize,
    keys_arrived: usize,
}

impl Account {
    /// Waits until everything has ended, then reads what is recorded and what was counted.
    pub(crate) async fn settle(rest: &Rest, asked: &[Asked], endpoint: &Endpoint) -> anyhow::Result<Self> {
        for status in ["queued", "running"] {
            let path = format!("/api/v1/executions?status={status}&limit=1");
            let what = format!("no execution to be {status}");
            wait_at_most(SETTLES, &what, async || {
                let answer = rest.get(&path).await.ok()?.expect(200).ok()?;
                answer["items"].as_array()?.is_empty().then_some(())
            })
            .await?;
        }
        let entries = stream::iter(asked.iter().cloned())
            .map(|asked| Entry::read(rest, asked, endpoint))
            .buffer_unordered(8)
            .try_collect()
            .await?;
        let (total_arrivals, keys_arrived) = endpoint.totals();
        Ok(Self {
            entries,
            total_arrivals,
            keys_arrived,
        })
    }

    /// How many ended in which way, and how often the endpoint was reached.
    pub(crate) fn figures(&self) -> Json {
        let mut ended = BTreeMap::<String, usize>::new();
        let mut attempts = BTreeMap::<String, usize>::new();
        for entry in &self.entries {
            let waited = if entry.asked.waited { "waited" } else { "async" };
            let way = format!(
                "{} {waited} {} {}",
                entry.asked.kind.name(),
                entry.status,
                entry.error
            );
            *ended.entry(way.trim_end().to_owned()).or_default() += 1;
            for outcome in &entry.attempts {
                *attempts.entry(outcome.clone()).or_default() += 1;
            }
        }
        json!({
            "ended": ended, "attempts": attempts, "arrivals": self.total_arrivals,
            "executions": self.entries.len(), "executions_that_arrived": self.keys_arrived,
        })
    }

    /// Holds them to the promise.
    pub(crate) fn check(&self) -> Outcome {
        let ids: HashSet<&str> = self.entries.iter().map(|entry| entry.asked.id.as_str()).collect();
        ensure!(
            ids.len() == self.entries.len(),
            "two calls got the same execution"
        );
        for entry in &self.entries {
            entry
                .check()
                .with_context(|| format!("execution {}: {}", entry.asked.id, entry.describe()))?;
        }
        let arrived: usize = self.entries.iter().map(|entry| entry.arrivals.len()).sum();
        ensure!(
            arrived == self.total_arrivals,
            "the endpoint was reached by executions that nobody asked for"
        );
        Ok(())
    }
}

impl Entry {
    async fn read(rest: &Rest, asked: Asked, endpoint: &Endpoint) -> anyhow::Result<Self> {
        let path = format!("/api/v1/executions/{}", asked.id);
        let stored = rest.get(&path).await?.expect(200)?;
        let attempts = rest.get(&format!("{path}/attempts")).await?.expect(200)?;
        let attempts = attempts["items"].as_array().context("a list of attempts")?;
        let outcome = |attempt: &Json| {
            let part = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            let words = format!(
                "{} {}",
                part(&attempt["outcome"]),
                part(&attempt["error"]["code"])
            );
            words.trim_end().to_owned()
        };
        let finished_at: Option<domain::Time> = stored["finished_at"].as_str().map(str::parse).transpose()?;
        Ok(Self {
            status: stored["status"].as_str().unwrap_or_default().to_owned(),
            error: stored["error"]["code"].as_str().unwrap_or_default().to_owned(),
            finished_at: finished_at.map(Into::into),
            attempts: attempts.iter().map(outcome).collect(),
            arrivals: endpoint.arrivals(&asked.id),
            asked,
        })
    }

    fn describe(&self) -> String {
        let Self {
            asked,
            status,
            error,
            attempts,
            arrivals,
            ..
        } = self;
        format!(
            "{asked:?} {status} {error}, attempts {attempts:?}, {} arrivals",
            arrivals.len()
        )
    }

    fn check(&self) -> Outcome {
        let (arrivals, succeeded) = (self.arrivals.len(), self.status == "succeeded");
        ensure!(self.finished_at.is_some(), "has not ended");
        // A caller that waits is told at once that there is no worker, and may ask again in its own time.
        let refused = self.status == "failed" && self.error == "worker_unavailable" && arrivals == 0;
        match self.asked.kind {
            Kind::Idempotent => ensure!(succeeded || refused, "what may run again must succeed in the end"),
            Kind::Once => {
                ensure!(arrivals <= 1, "reached the endpoint more than once");
                let open = self.status == "outcome_unknown";
                ensure!(
                    succeeded || refused || open,
                    "ended in a way that nothing here leads to"
                );
            }
        }
        ensure!(
            !succeeded || arrivals >= 1,
            "succeeded without reaching the endpoint"
        );
        let recorded = |outcome: &str| self.attempts.iter().filter(|o| *o == outcome).count();
        ensure!(
            recorded("succeeded") == usize::from(succeeded),
            "its attempts do not add up"
        );
        // An attempt reaches the endpoint once, or not at all when it was given up before; one that heard the endpoint's
        // answer has reached it.
        ensure!(
            arrivals <= self.attempts.len(),
            "reached the endpoint without an attempt"
        );
        let answered = recorded("succeeded") + recorded("retried http_status");
        ensure!(
            answered <= arrivals,
            "an attempt heard an answer that nobody gave"
        );
        let late = self
            .arrivals
            .iter()
            .filter(|at| succeeded && self.finished_at.is_some_and(|end| **at > end))
            .count();
        ensure!(late == 0, "ran again after its success was recorded");
        Ok(())
    }
}
