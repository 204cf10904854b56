//! Whether the metrics are there that should be, and no others.

use super::{
    super::{Known, Language, Purpose, Sources, catalogue::Catalogue, known, select},
    Prometheus,
};
use std::collections::{BTreeMap, BTreeSet};

/// The queries of rules and documents may have no answer, but what they ask of must be there: each selector by itself,
/// or at least its metric (where it selects failures, say).
pub(super) async fn selectors(
    sources: &Sources,
    catalogue: &Catalogue,
    prometheus: &Prometheus,
) -> anyhow::Result<Vec<String>> {
    let rare = |name: &str| {
        catalogue
            .jobs
            .values()
            .any(|job| job.get(name).is_some_and(|entry| entry.rare))
    };
    let mut places: BTreeMap<String, (String, String)> = BTreeMap::new();
    for expression in &sources.expressions {
        let is_panel = matches!(expression.purpose, Purpose::Panel { .. } | Purpose::Variable(_));
        if is_panel || expression.language != Language::PromQl {
            continue;
        }
        for selector in select::selectors(&expression.text) {
            if let Some(name) = select::metric(&selector) {
                let place = (name.to_owned(), expression.place.to_string());
                places.entry(selector.to_string()).or_insert(place);
            }
        }
    }
    let mut findings = Vec::new();
    for (selector, (name, place)) in places {
        // Alerts exist as they fire.
        if rare(&name) || name.starts_with("ALERTS") {
            continue;
        }
        let there = |selector: &str| format!("group(last_over_time({selector}[10m]))");
        if prometheus.query(&there(&selector)).await?.is_empty()
            && prometheus.query(&there(&name)).await?.is_empty()
        {
            findings.push(format!("{place}: Prometheus has no {name}"));
        }
    }
    Ok(findings)
}

/// What our services expose and do not declare, and what is declared and exposed by none.
pub(super) async fn own(prometheus: &Prometheus) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut exposed = BTreeSet::new();
    for (service, _) in known::services() {
        for name in prometheus.names(&format!("{{job=\"{service}\"}}")).await? {
            // Rules keep the job of what they are computed from.
            let others = name.contains(':')
                || name.starts_with("ALERTS")
                || known::OF_TARGETS.contains(&name.as_str());
            if !others && !Known::is_declared(&name) {
                findings.push(format!("{service} exposes {name}, which is not declared"));
            }
            exposed.insert(name);
        }
    }
    for declaration in known::declarations().iter().flat_map(|(_, group)| *group) {
        let name = declaration.name;
        let there = exposed.contains(name) || exposed.contains(&format!("{name}_count"));
        if !there {
            findings.push(format!("{name} is declared, but no service exposes it"));
        }
    }
    Ok(findings)
}

/// What the catalogue has and the programs do not.
pub(super) async fn of_others(catalogue: &Catalogue, prometheus: &Prometheus) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for (job, metrics) in &catalogue.jobs {
        for (name, entry) in metrics.iter().filter(|(_, entry)| !entry.rare) {
            let series = match entry.kind.as_str() {
                "histogram" => format!("{name}_count"),
                _ => name.clone(),
            };
            let series = prometheus.series(&series).await?;
            if !series.iter().any(|labels| labels.get("job") == Some(job)) {
                findings.push(format!("{job} exposes no {name}"));
            }
        }
    }
    Ok(findings)
}
