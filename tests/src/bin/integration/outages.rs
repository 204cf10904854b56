//! The services do not mind the loss of what watches them, and it shows afterwards.

use crate::{
    request::{self, Tool},
    stack::Stack,
};
use anyhow::{Context, ensure};
use e2e::{Json, raw::Raw, scrape::Scrape, trace::Trace, wait_at_most};
use http::Method;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// What is taken away, one after the other.
const PARTS: [&str; 5] = ["loki", "jaeger", "otel-collector", "prometheus", "alertmanager"];
/// Longer than anything here may take: a scrape is 15 s, a batch that could not be sent is sent anew after 15 s at most, an
/// alert is told anew after a minute.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long a part is away at least: longer than a scrape interval.
const AWAY: Duration = Duration::from_secs(20);
/// What no request may take, whatever is away. Nothing here takes a tenth of a second, but the machine stops and starts
/// containers meanwhile.
const SLOWEST: Duration = Duration::from_secs(5);
/// By how much the middle request may be slower than before.
const SLOWER: u32 = 5;
/// What does not count as slower.
const NEGLIGIBLE: Duration = Duration::from_millis(100);
/// Between one round of requests and the next.
const PAUSE: Duration = Duration::from_millis(150);

/// Takes each part away and gives it back.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let tool = Tool::register(stack).await?;
    let result = all(stack, &tool).await;
    tool.remove().await?;
    result
}

async fn all(stack: &Stack, tool: &Tool<'_>) -> anyhow::Result<()> {
    let before = load(stack, tool, sleep(AWAY / 2)).await.0;
    before.check("nothing", None)?;
    println!("   {:<15} {before}", "all there");
    let mut failed = Vec::new();
    for part in PARTS {
        if let Err(error) = outage(stack, tool, part, &before).await {
            println!("   {part:<15} FAILED: {error:#}");
            failed.push(part);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// One part goes and comes back, under load.
async fn outage(stack: &Stack, tool: &Tool<'_>, part: &str, before: &Load) -> anyhow::Result<()> {
    let dropped = spans_dropped(stack).await?;
    let marks = Mutex::new(Vec::new());
    let away = async {
        stack.stop(part).await?;
        let since = Instant::now();
        let seen = async {
            let seen = while_away(stack, part).await?;
            while since.elapsed() < AWAY {
                let mark = mark(stack).await?;
                marks.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
                sleep(10 * PAUSE).await;
            }
            anyhow::Ok(seen)
        };
        let seen = seen.await;
        // Whatever was seen: the next part is not to suffer from it.
        stack.start(part).await?;
        Ok::<_, anyhow::Error>((seen?, since.elapsed()))
    };
    let (load, away) = load(stack, tool, away).await;
    let (seen, lasted) = away?;
    println!("   {part:<15} away {:.0} s: {load}", lasted.as_secs_f32());
    load.check(part, Some(before))?;
    println!("   {part:<15} seen meanwhile: {seen}");
    let marks = marks.into_inner().unwrap_or_else(PoisonError::into_inner);
    let after = afterwards(stack, part, lasted, &marks, dropped).await?;
    println!("   {part:<15} afterwards: {after}");
    Ok(())
}

/// What tells of the loss while it lasts.
async fn while_away(stack: &Stack, part: &str) -> anyhow::Result<String> {
    // Something must be there to wait for it.
    mark(stack).await?;
    if part == "prometheus" {
        let url = format!("{}/-/ready", stack.at.prometheus_url);
        ensure!(
            stack.http.get(url).send().await.is_err(),
            "Prometheus still answers"
        );
        return Ok("nobody else watches, the dead man's switch does".to_owned());
    }
    let mut told = vec![becomes(stack, &format!("up{{job=\"{part}\"}} == 0")).await?];
    let queue = match part {
        "loki" => Some("logs"),
        "jaeger" => Some("traces"),
        _ => None,
    };
    if let Some(signal) = queue {
        let waiting = format!("otelcol_exporter_queue_size{{data_type=\"{signal}\"}} > 0");
        told.push(becomes(stack, &waiting).await?);
    }
    Ok(told.join(", "))
}

/// What tells of the loss when it is over, and what was made up for.
async fn afterwards(
    stack: &Stack,
    part: &str,
    lasted: Duration,
    marks: &[Trace],
    dropped: f64,
) -> anyhow::Result<String> {
    match part {
        "prometheus" => gap(stack, lasted).await,
        "alertmanager" => {
            let url = format!("{}/api/v2/alerts", stack.at.alertmanager_url);
            let known = wait_at_most(PATIENCE, "Alertmanager to know the Watchdog again", async || {
                let alerts = stack
                    .get(&url, &[("filter", "alertname=\"Watchdog\"")])
                    .await
                    .ok()?;
                alerts
                    .as_array()
                    .filter(|alerts| !alerts.is_empty())
                    .map(Vec::len)
            });
            known.await?;
            Ok("it knows the firing alerts again (Watchdog)".to_owned())
        }
        "loki" => {
            let all = logged(stack, marks).await?;
            Ok(format!("all {all} lines written meanwhile are there, each once"))
        }
        "jaeger" => {
            let traced = traced(stack, marks, PATIENCE).await;
            ensure!(
                traced == marks.len(),
                "{traced} of {} traces arrived",
                marks.len()
            );
            Ok(format!("all {traced} traces made meanwhile are there"))
        }
        _ => {
            let all = logged(stack, marks).await?;
            // Nobody takes the spans then; what the services could not keep must be counted.
            let traced = traced(stack, marks, PATIENCE / 5).await;
            let lost = spans_dropped(stack).await? - dropped;
            ensure!(
                traced == marks.len() || lost > 0.0,
                "{traced} of {} traces arrived, and no span is counted as lost",
                marks.len()
            );
            let total = marks.len();
            Ok(format!(
                "all {all} lines written meanwhile are there, each once; {traced} of {total} traces, {lost} spans counted \
                 as lost"
            ))
        }
    }
}

/// A request that is looked for later.
async fn mark(stack: &Stack) -> anyhow::Result<Trace> {
    let trace = Trace::start();
    let parent = trace.traceparent();
    let headers = [("traceparent", parent.as_str())];
    let sent = stack.rest.send(Method::GET, "/api/v1/contexts", &headers, None);
    sent.await?.expect(200)?;
    Ok(trace)
}

/// Waits until the access log's line of each mark is in Loki; fails where one is there twice.
async fn logged(stack: &Stack, marks: &[Trace]) -> anyhow::Result<usize> {
    for mark in marks {
        let query = format!(
            "{{service=\"rest-api\"}} | trace_id=\"{}\" | json target=\"target\" | target=\"access\"",
            mark.trace_id
        );
        let what = format!("the line of trace {} in Loki", mark.trace_id);
        let found = wait_at_most(PATIENCE, &what, async || {
            let lines = request::lines(stack, &query).await.ok()?;
            (!lines.is_empty()).then_some(lines.len())
        })
        .await?;
        ensure!(
            found == 1,
            "the line of trace {} is {found} times in Loki",
            mark.trace_id
        );
    }
    Ok(marks.len())
}

/// How many of the marks are in Jaeger, after waiting for all of them no longer than this.
async fn traced(stack: &Stack, marks: &[Trace], patience: Duration) -> usize {
    let until = Instant::now() + patience;
    let mut there = 0;
    for mark in marks {
        let left = until.saturating_duration_since(Instant::now());
        let found = wait_at_most(left, "a trace", async || {
            request::is_traced(stack, &mark.trace_id).await.then_some(())
        });
        there += usize::from(found.await.is_ok());
    }
    there
}

/// The spans that the three services count as lost.
async fn spans_dropped(stack: &Stack) -> anyhow::Result<f64> {
    let mut lost = 0.0;
    for base in bases(stack) {
        let scrape = Scrape::of(base).await?;
        lost += scrape
            .all("telemetry_spans_dropped_total", &[])
            .map(|sample| sample.value)
            .sum::<f64>();
    }
    Ok(lost)
}

/// Waits until a query has a result; gives the query.
async fn becomes(stack: &Stack, query: &str) -> anyhow::Result<String> {
    wait_at_most(PATIENCE, query, async || {
        let series = stack.promql(query).await.ok()?;
        (!series.is_empty()).then_some(())
    })
    .await?;
    Ok(query.to_owned())
}

/// The gap that Prometheus has in what it knows of the services, which ends once it scrapes them again.
async fn gap(stack: &Stack, lasted: Duration) -> anyhow::Result<String> {
    let query = format!(
        "up{{job=\"rest-api\"}}[{}s]",
        lasted.as_secs() + 2 * PATIENCE.as_secs()
    );
    // A container is up a little before Docker says so.
    let at_least = lasted.as_secs_f64() - 1.0;
    let what = format!("a gap of {at_least:.1} s in {query}, and its end");
    let gap = wait_at_most(PATIENCE, &what, async || {
        let series = stack.promql(&query).await.ok()?;
        let widest = series.iter().map(widest_gap).fold(0.0, f64::max);
        (widest >= at_least).then_some(widest)
    })
    .await?;
    becomes(stack, "min(up{job=~\"rest-api|mcp-server|worker\"}) == 1").await?;
    Ok(format!(
        "all services are scraped again, after a gap of {gap:.0} s"
    ))
}

/// The longest time between two samples of a series, in seconds.
fn widest_gap(series: &Json) -> f64 {
    let values = series["values"].as_array().into_iter().flatten();
    let times: Vec<f64> = values.filter_map(|value| value[0].as_f64()).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

fn bases(stack: &Stack) -> [&str; 3] {
    let mcp = &stack.at.mcp_url;
    [
        &stack.at.rest_url,
        mcp.strip_suffix("/mcp").unwrap_or(mcp),
        &stack.at.worker_url,
    ]
}

/// What a light load met with.
#[derive(Default)]
struct Load {
    times: Vec<Duration>,
    failures: Vec<String>,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} requests, {} failed, median {:.1} ms, slowest {:.0} ms",
            self.times.len() + self.failures.len(),
            self.failures.len(),
            self.median().as_secs_f64() * 1e3,
            self.slowest().as_secs_f64() * 1e3
        )
    }
}

impl Load {
    fn note(&mut self, what: &str, began: Instant, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.times.push(began.elapsed()),
            Err(error) => self.failures.push(format!("{what}: {error:#}")),
        }
    }

    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    fn slowest(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    /// Whether no request failed, or became slow.
    fn check(&self, away: &str, before: Option<&Self>) -> anyhow::Result<()> {
        if let Some(first) = self.failures.first() {
            anyhow::bail!(
                "{} requests failed with {away} away, the first: {first}",
                self.failures.len()
            );
        }
        ensure!(!self.times.is_empty(), "no request was made with {away} away");
        let slowest = self.slowest();
        ensure!(slowest < SLOWEST, "a request took {slowest:?} with {away} away");
        if let Some(before) = before {
            let limit = before.median() * SLOWER + NEGLIGIBLE;
            let median = self.median();
            ensure!(
                median < limit,
                "the middle request took {median:?} with {away} away, {:?} before",
                before.median()
            );
        }
        Ok(())
    }
}

/// Makes requests of every kind, one after the other, for as long as `meanwhile` takes.
async fn load<T>(stack: &Stack, tool: &Tool<'_>, meanwhile: impl Future<Output = T>) -> (Load, T) {
    let over = Arc::new(Notify::new());
    let requests = async {
        let mut load = Load::default();
        let raw = Raw::new(&stack.at.mcp_url, Some(&stack.at.api_key));
        let stop = over.notified();
        tokio::pin!(stop);
        loop {
            round(stack, tool, &raw, &mut load).await;
            tokio::select! {
                () = &mut stop => return load,
                () = sleep(PAUSE) => {}
            }
        }
    };
    let work = async {
        let result = meanwhile.await;
        over.notify_one();
        result
    };
    tokio::join!(requests, work)
}

/// REST, a tool call through all three services, and each service's readiness.
async fn round(stack: &Stack, tool: &Tool<'_>, raw: &Raw, load: &mut Load) {
    let began = Instant::now();
    let listed = async { stack.rest.get("/api/v1/contexts").await?.expect(200) };
    let listed = listed.await.map(drop);
    load.note("GET /api/v1/contexts", began, listed);

    let (began, trace) = (Instant::now(), Trace::start());
    let id = format!("outage-{}", trace.span_id);
    let called = tool.call(raw, &trace, &id, false).await.map(drop);
    load.note("tools/call", began, called);

    for base in bases(stack) {
        let (began, url) = (Instant::now(), format!("{base}/readyz"));
        let ready = async {
            let status = stack.http.get(&url).send().await.context("no answer")?.status();
            ensure!(status.is_success(), "{status}");
            Ok(())
        };
        let ready = ready.await;
        load.note(&url, began, ready);
    }
}
