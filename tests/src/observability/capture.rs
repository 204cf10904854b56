//! Captures the catalogue of other programs' metrics from a Prometheus that scrapes them.

use super::{
    Choices, Known, Language, Sources,
    catalogue::{Catalogue, Entry},
    live::Prometheus,
    select,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// What one Prometheus has.
struct Seen {
    url: String,
    /// The jobs that it scrapes with success.
    jobs: BTreeSet<String>,
    /// (Job, metric) → entry.
    entries: BTreeMap<(String, String), Entry>,
}

/// Writes the catalogue anew: the metrics of others that queries use, as the Prometheus have them that scrape those
/// programs. Of several, which scrape different versions, only the labels are taken that all have. What none of them has
/// just now stays as it was. Tells which metrics are used and nowhere to be found, or not in all versions.
///
/// # Errors
/// When a Prometheus does not answer, or a file cannot be read or written.
pub async fn run(root: &Path, prometheus: &[String]) -> anyhow::Result<Vec<String>> {
    let sources = Sources::read(root, &Choices::new())?;
    let before = Catalogue::read(root)?;
    let own = Known::new(&Catalogue::default(), &sources);
    let used: BTreeSet<String> = used(&sources)
        .filter(|name| !own.series.contains_key(name))
        .collect();
    let mut seen = Vec::new();
    for url in prometheus {
        seen.push(see(url, &used).await?);
    }
    let mut catalogue = Catalogue::default();
    for (job, metrics) in &before.jobs {
        for (name, entry) in metrics
            .iter()
            .filter(|(name, _)| used.iter().any(|used| belongs(used, name)))
        {
            catalogue
                .jobs
                .entry(job.clone())
                .or_default()
                .insert(name.clone(), entry.clone());
        }
    }
    let mut findings = Vec::new();
    let keys: BTreeSet<_> = seen.iter().flat_map(|seen| seen.entries.keys()).collect();
    for key @ (job, name) in keys {
        let (merged, missing) = merge(&seen, key);
        findings.extend(missing);
        let metrics = catalogue.jobs.entry(job.clone()).or_default();
        let rare = metrics.get(name).is_some_and(|known| known.rare);
        metrics.extend(merged.map(|entry| (name.clone(), Entry { rare, ..entry })));
    }
    let all: BTreeSet<&String> = catalogue.jobs.values().flat_map(BTreeMap::keys).collect();
    let nowhere = used
        .iter()
        .filter(|used| !all.iter().any(|name| belongs(used, name)));
    findings.extend(nowhere.map(|name| format!("{name}: no Prometheus has such series")));
    catalogue.write(root)?;
    Ok(findings)
}

/// What all versions have in common, and which of those that are scraped have it not.
fn merge(seen: &[Seen], key: &(String, String)) -> (Option<Entry>, Vec<String>) {
    let (job, name) = key;
    let (mut merged, mut missing): (Option<Entry>, _) = (None, Vec::new());
    for one in seen.iter().filter(|one| one.jobs.contains(job)) {
        match (one.entries.get(key), &mut merged) {
            (None, _) => missing.push(format!("{name}: not in the {job} that {} scrapes", one.url)),
            (Some(entry), None) => merged = Some(entry.clone()),
            (Some(entry), Some(merged)) => merged.labels.retain(|label| entry.labels.contains(label)),
        }
    }
    (merged, missing)
}

/// Whether a series is one of the metric's.
fn belongs(series: &str, metric: &str) -> bool {
    matches!(
        series.strip_prefix(metric),
        Some("" | "_bucket" | "_sum" | "_count")
    )
}

async fn see(url: &str, used: &BTreeSet<String>) -> anyhow::Result<Seen> {
    let prometheus = Prometheus::new(url);
    let kinds = prometheus.kinds().await?;
    let up = prometheus.query("up == 1").await?.into_iter();
    let mut seen = Seen {
        url: url.to_owned(),
        jobs: up.filter_map(|mut one| one.labels.remove("job")).collect(),
        entries: BTreeMap::new(),
    };
    for name in used {
        let (base, kind) = declared(name, &kinds);
        for (job, entry) in entries(&prometheus, name, &kind).await? {
            let entry_of = seen.entries.entry((job, base.to_owned()));
            entry_of
                .or_insert_with(|| entry.clone())
                .labels
                .extend(entry.labels);
        }
    }
    Ok(seen)
}

/// The metrics that queries name.
fn used(sources: &Sources) -> impl Iterator<Item = String> {
    let promql = sources
        .expressions
        .iter()
        .filter(|expression| expression.language == Language::PromQl);
    let selectors = promql.flat_map(|expression| select::selectors(&expression.text));
    selectors.filter_map(|selector| select::metric(&selector).map(str::to_owned))
}

/// The metric that a series belongs to, and its type.
fn declared<'a>(name: &'a str, kinds: &BTreeMap<String, String>) -> (&'a str, String) {
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some(base) = name.strip_suffix(suffix)
            && let Some(kind @ ("histogram" | "summary")) = kinds.get(base).map(String::as_str)
        {
            return (base, kind.to_owned());
        }
    }
    // With OpenMetrics, a counter is described without its `_total`.
    let kind = kinds
        .get(name)
        .or_else(|| kinds.get(name.strip_suffix("_total")?));
    (name, kind.map_or("unknown", String::as_str).to_owned())
}

/// The entries of a metric by the jobs that expose it.
async fn entries(prometheus: &Prometheus, name: &str, kind: &str) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    for labels in prometheus.series(name).await? {
        let Some(job) = labels.get("job") else { continue };
        let entry = found.entry(job.clone()).or_insert_with(|| Entry {
            kind: kind.to_owned(),
            labels: BTreeSet::new(),
            rare: false,
        });
        let own = labels.keys().filter(|label| {
            let given = matches!(
                label.as_str(),
                "__name__" | "job" | "instance" | "le" | "quantile"
            );
            // Prometheus 3 takes over names with dots, 2 does not: no query can use them.
            !given && !label.contains('.')
        });
        entry.labels.extend(own.cloned());
    }
    Ok(found)
}
