//! Whether `sum by (tenant_id) (mcp_contexts_active)`, which the dashboards show, was right all the time.

use super::cluster::prometheus;
use crate::load::watch::Load;
use anyhow::{Context as _, ensure};

/// How old a right count may be, seconds: counted every 5, kept for at most 15 while the database is away, scraped every
/// 15, and shown until the next scrape.
const OLD: f64 = 40.0;
/// The longest that no replica may export it, seconds: a lease of 15 that nobody gave back, a wait until the last
/// exporter's samples are stale, a count, a scrape.
const GAP: u32 = 75;

/// What was seen of one tenant's count.
#[derive(Debug, Default)]
struct Seen {
    points: u32,
    wrong: Vec<String>,
    gap: u32,
}

/// Looks at each second between `from` and `to` (seconds since 1970), but for the first, in which counts of before the load
/// are shown.
///
/// # Errors
/// When a count was wrong at any of them, or missing for long; with when.
pub(crate) async fn check(load: &Load, from: f64, to: f64) -> anyhow::Result<String> {
    let from = from + OLD;
    if to <= from {
        return Ok(format!("not looked at: the load ended within {OLD} s"));
    }
    let mut told = String::new();
    for tenant in load.tenants() {
        let seen = look(load, &tenant, from, to).await?;
        told = format!(
            "{told}{tenant}: {} seconds looked at, {} wrong, longest gap {} s\n   ",
            seen.points,
            seen.wrong.len(),
            seen.gap
        );
        let some: Vec<_> = seen
            .wrong
            .iter()
            .step_by(seen.wrong.len().div_ceil(12).max(1))
            .cloned()
            .collect();
        ensure!(
            seen.wrong.is_empty(),
            "mcp_contexts_active of {tenant} was wrong for {} of {} s:\n     {}",
            seen.wrong.len(),
            seen.points,
            some.join("\n     ")
        );
        ensure!(
            seen.gap <= GAP,
            "mcp_contexts_active of {tenant} was away for {} s",
            seen.gap
        );
    }
    ensure!(!told.is_empty(), "the load has no tenant");
    Ok(told.trim_end().to_owned())
}

async fn look(load: &Load, tenant: &str, from: f64, to: f64) -> anyhow::Result<Seen> {
    let query = format!("sum by (tenant_id) (mcp_contexts_active{{tenant_id=\"{tenant}\"}})");
    let (start, end) = (format!("{from:.0}"), format!("{to:.0}"));
    let range = [
        ("query", query.as_str()),
        ("start", &start),
        ("end", &end),
        ("step", "1"),
    ];
    let series = prometheus("query_range", &range).await?;
    let values = series.first().and_then(|series| series["values"].as_array());
    let values = values.with_context(|| format!("Prometheus has no mcp_contexts_active of {tenant}"))?;
    let mut seen = Seen::default();
    let mut before = from;
    for value in values {
        let at = value[0].as_f64().unwrap_or_default();
        let count: f64 = value[1].as_str().unwrap_or_default().parse()?;
        seen.gap = seen.gap.max((at - before) as u32);
        seen.points += 1;
        before = at;
        let Some([least, most]) = load.active(tenant, at - OLD, at + 1.5) else {
            continue;
        };
        if count < least as f64 || count > most as f64 {
            seen.wrong.push(format!(
                "{:.0} s: {count}, not within {least} to {most}",
                at - from
            ));
        }
    }
    seen.gap = seen.gap.max((to - before) as u32);
    Ok(seen)
}
