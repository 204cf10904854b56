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

/// Writes the catalogue anew: the metrics of others that queries use, as `prometheus` has them. What it does not scrape
/// just now stays as it was. Tells which metrics are used and nowhere to be found.
///
/// # Errors
/// When Prometheus does not answer, or a file cannot be read or written.
pub async fn run(root: &Path, prometheus: &str) -> anyhow::Result<Vec<String>> {
    let prometheus = Prometheus::new(prometheus);
    let sources = Sources::read(root, &Choices::new())?;
    let before = Catalogue::read(root)?;
    let own = Known::new(&Catalogue::default(), &sources);
    let kinds = prometheus.kinds().await?;
    let mut catalogue = Catalogue::default();
    let mut findings = Vec::new();
    for name in used(&sources) {
        if own.series.contains_key(&name) {
            continue;
        }
        let (base, kind) = declared(&name, &kinds);
        let mut found = entries(&prometheus, &name, &kind).await?;
        if found.is_empty() {
            found = kept(&before, base);
        }
        if found.is_empty() {
            findings.push(format!("{name}: Prometheus has no such series"));
        }
        for (job, entry) in found {
            catalogue
                .jobs
                .entry(job)
                .or_default()
                .insert(base.to_owned(), entry);
        }
    }
    catalogue.write(root)?;
    Ok(findings)
}

/// The metrics that queries name.
fn used(sources: &Sources) -> BTreeSet<String> {
    let promql = sources
        .expressions
        .iter()
        .filter(|expression| expression.language == Language::PromQl);
    let selectors = promql.flat_map(|expression| select::selectors(&expression.text));
    selectors
        .filter_map(|selector| select::metric(&selector).map(str::to_owned))
        .collect()
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
        });
        let own = labels.keys().filter(|label| {
            !matches!(
                label.as_str(),
                "__name__" | "job" | "instance" | "le" | "quantile"
            )
        });
        entry.labels.extend(own.cloned());
    }
    Ok(found)
}

/// What was known of a metric.
fn kept(before: &Catalogue, base: &str) -> BTreeMap<String, Entry> {
    let jobs = before.jobs.iter();
    jobs.filter_map(|(job, metrics)| Some((job.clone(), metrics.get(base)?.clone())))
        .collect()
}
