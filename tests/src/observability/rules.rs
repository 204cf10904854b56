//! Prometheus's rule files.

use super::{Expression, Language, Place, Purpose, Sources, shown};
use anyhow::Context;
use regex::Regex;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};

/// A label in a template: `{{ $labels.service }}`.
static TEMPLATE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\$labels\.([A-Za-z_][A-Za-z0-9_]*)").expect("a constant pattern"));

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: Text,
    #[serde(default)]
    labels: BTreeMap<String, Text>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// YAML makes numbers of `1` and `vector(1)` a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Words(String),
    Number(f64),
    Switch(bool),
}

impl Text {
    fn into_words(self) -> String {
        match self {
            Self::Words(words) => words,
            Self::Number(number) => number.to_string(),
            Self::Switch(switch) => switch.to_string(),
        }
    }
}

#[derive(Deserialize)]
struct Configuration {
    scrape_configs: Vec<ScrapeConfig>,
}

#[derive(Deserialize)]
struct ScrapeConfig {
    job_name: String,
}

/// The scrape jobs of a Prometheus's configuration.
pub(super) fn jobs(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    let shown = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(shown)?;
    let configuration: Configuration = yaml_serde::from_str(&text).with_context(shown)?;
    Ok(configuration
        .scrape_configs
        .into_iter()
        .map(|scraped| scraped.job_name)
        .collect())
}

/// Reads one file.
pub(super) fn read(root: &Path, path: &Path, sources: &mut Sources) -> anyhow::Result<()> {
    let file = shown(root, path);
    let text = fs::read_to_string(path).with_context(|| file.clone())?;
    let rules: File = yaml_serde::from_str(&text).with_context(|| file.clone())?;
    for rule in rules.groups.into_iter().flat_map(|group| group.rules) {
        let (item, purpose) = match (rule.record, rule.alert) {
            (Some(name), None) => (format!("record {name}"), Purpose::Record(name)),
            (None, Some(name)) => (format!("alert {name}"), Purpose::Alert),
            _ => {
                sources.findings.push(format!(
                    "{file}: a rule is neither a recording nor an alerting one"
                ));
                continue;
            }
        };
        let labels = rule.labels.into_iter();
        let given: Vec<(String, String)> = labels.map(|(label, value)| (label, value.into_words())).collect();
        let values = given.iter().map(|(_, value)| value.clone());
        let templates: Vec<String> = values.chain(rule.annotations.into_values()).collect();
        let found = templates.iter().flat_map(|text| TEMPLATE.captures_iter(text));
        sources.expressions.push(Expression {
            place: Place {
                file: file.clone(),
                item,
            },
            language: Language::PromQl,
            purpose,
            text: rule.expr.into_words(),
            printed: found.map(|found| found[1].to_owned()).collect(),
            given,
        });
    }
    Ok(())
}
