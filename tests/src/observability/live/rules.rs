//! Whether Prometheus has all rules, and has evaluated them.

use super::{
    super::{Purpose, Sources},
    Prometheus,
};
use std::collections::BTreeSet;

/// Rules of the clone that Prometheus does not have, and those of its own that it could not evaluate or has not yet.
pub(super) async fn check(sources: &Sources, prometheus: &Prometheus) -> anyhow::Result<Vec<String>> {
    let rules = prometheus.rules().await?;
    let text = |rule: &crate::Json, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    let loaded: BTreeSet<String> = rules.iter().map(|rule| text(rule, "name")).collect();
    let mut findings = Vec::new();
    for expression in &sources.expressions {
        let name = match &expression.purpose {
            Purpose::Record(name) => name,
            Purpose::Alert => expression.place.item.trim_start_matches("alert "),
            _ => continue,
        };
        if !loaded.contains(name) {
            findings.push(format!("{}: Prometheus has no such rule", expression.place));
        }
    }
    for rule in &rules {
        let (name, health) = (text(rule, "name"), text(rule, "health"));
        // The year 1 stands for never.
        let never = text(rule, "lastEvaluation").starts_with("0001-");
        if health != "ok" || never {
            findings.push(format!("rule {name}: {health}: {}", text(rule, "lastError")));
        }
    }
    Ok(findings)
}
