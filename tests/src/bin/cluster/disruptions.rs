//! What happens to clients while pods come and go: one disruption after the other under constant load.
//!
//! The aim is that no request fails, of clients that repeat nothing.

mod certificates;
pub(crate) mod cluster;
mod contexts;
mod eviction;
mod pods;
pub(crate) mod scale;
mod schema;

use crate::{
    kubectl::SERVICES,
    load::watch::{Load, Sum, now},
    setup::Setup,
};
use anyhow::{Context as _, bail};
use std::{env, fmt::Write as _, time::Duration};
use tokio::time::{Instant, sleep};

/// The names of those to provoke, separated by commas; all, unless it is set.
const ONLY: &str = "CLUSTER_TEST_DISRUPTIONS";
/// How many replicas each service has, as in production.
const REPLICAS: usize = 3;
/// What is still under way when a disruption is over is its own.
const AFTERMATH: Duration = Duration::from_secs(3);

/// What is done to the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disruption {
    /// Nothing: what the load is like otherwise.
    Nothing,
    Restart,
    Schema,
    Deletion,
    Eviction,
    Scale,
    Database,
    Certificates,
}

impl Disruption {
    const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Restart,
        Self::Schema,
        Self::Deletion,
        Self::Eviction,
        Self::Database,
        Self::Certificates,
        // Last, for it leaves one replica.
        Self::Scale,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Restart => "restart",
            Self::Schema => "schema",
            Self::Deletion => "deletion",
            Self::Eviction => "eviction",
            Self::Scale => "scale",
            Self::Database => "database",
            Self::Certificates => "certificates",
        }
    }

    /// Provokes it, and waits until everything is as it was; what is worth telling.
    async fn provoke(self, setup: &Setup) -> anyhow::Result<String> {
        match self {
            Self::Nothing => {
                sleep(Duration::from_secs(15)).await;
                Ok("the load alone, 15 s".to_owned())
            }
            Self::Restart => pods::restart().await,
            Self::Schema => schema::next().await,
            Self::Deletion => pods::delete_at_random().await,
            Self::Eviction => eviction::evict_all().await,
            Self::Scale => scale::up_and_down().await,
            Self::Database => pods::restart_database().await,
            Self::Certificates => certificates::rotate(setup).await,
        }
    }
}

/// One disruption, when it is over.
struct Row {
    disruption: Disruption,
    took: Duration,
    from: f64,
    sum: Sum,
    /// What is worth telling, or what went wrong with the disruption itself.
    outcome: anyhow::Result<String>,
}

/// Provokes all of them under load.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<()> {
    scale::with(REPLICAS, under_load(setup)).await
}

async fn under_load(setup: &Setup) -> anyhow::Result<()> {
    let load = Load::start(setup).await?;
    let begin = now();
    let mut rows = Vec::new();
    let only = env::var(ONLY).unwrap_or_default();
    for disruption in Disruption::ALL {
        if !only.is_empty() && !only.split(',').any(|name| name == disruption.name()) {
            continue;
        }
        let row = one(setup, &load, disruption).await?;
        print!("{}", row.line());
        rows.push(row);
    }
    let counted = contexts::check(&load, begin, now()).await;
    load.stop().await?;
    println!("\n{}", table(&rows));
    match &counted {
        Ok(told) => println!("   mcp_contexts_active, {told}"),
        Err(error) => println!("   {error:#}"),
    }
    let bad: Vec<_> = rows
        .iter()
        .filter(|row| !row.is_good())
        .map(|row| row.disruption.name())
        .collect();
    if !bad.is_empty() {
        bail!("not without harm: {}", bad.join(", "));
    }
    counted.map(drop).context("the count of contexts")
}

async fn one(setup: &Setup, load: &Load, disruption: Disruption) -> anyhow::Result<Row> {
    let (started, from) = (Instant::now(), now());
    let mut outcome = disruption.provoke(setup).await;
    if outcome.is_err() {
        // The next one begins with everything in place.
        if let Err(error) = cluster::settled().await {
            outcome = outcome.with_context(|| format!("and then: {error:#}"));
        }
    }
    let took = started.elapsed();
    sleep(AFTERMATH).await;
    let sum = load.since(from).await?;
    Ok(Row {
        disruption,
        took,
        from,
        sum,
        outcome,
    })
}

impl Row {
    fn is_good(&self) -> bool {
        self.outcome.is_ok() && self.sum.failed == 0 && self.sum.lost == 0
    }

    fn line(&self) -> String {
        let told = match &self.outcome {
            Ok(told) => told.clone(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        let (kind, slowest) = &self.sum.slowest;
        format!(
            "   {:<13}{:>6.0}{:>10}{:>8}{:>10}{:>12}  {:<15} {told}\n{}",
            self.disruption.name(),
            self.took.as_secs_f64(),
            self.sum.requests,
            self.sum.failed,
            self.sum.lost,
            format!("{slowest:.0}"),
            kind,
            self.sum.failures(self.from)
        )
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = format!(
        "   {:<13}{:>6}{:>10}{:>8}{:>10}{:>12}  {:<15} {}\n",
        "disruption", "s", "requests", "failed", "sessions", "slowest ms", "of", "what"
    );
    for row in rows {
        let line = row.line();
        let _ = writeln!(table, "{}", line.lines().next().unwrap_or_default());
    }
    let medians = rows.first().map(|row| &row.sum.medians);
    for (kind, median) in medians.into_iter().flatten() {
        let _ = write!(
            table,
            "{}{kind} {median:.0} ms",
            if table.ends_with('\n') {
                "   medians undisturbed, the worst second: "
            } else {
                ", "
            }
        );
    }
    table.push('\n');
    table
}

/// `kubectl` for the services' namespace.
async fn kubectl(arguments: &[&str]) -> anyhow::Result<String> {
    SERVICES.run(arguments).await
}
