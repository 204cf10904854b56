//! What is asked of the telemetry: every query in the dashboards, rules, runbooks and documents, held against what
//! the services declare, what other programs were seen to expose, and what a running stack answers.
//!
//! [`Sources`] reads the queries, [`Known`] the metrics that there are, [`check`] compares them without running
//! anything, and [`live`] puts each query to the real programs.

pub mod capture;
pub mod catalogue;
mod dashboards;
mod documents;
pub mod known;
mod labels;
pub mod live;
mod logql;
mod promql;
mod rules;
pub mod select;
mod variables;

pub use known::Known;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

/// Where a query stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, from the root of the clone.
    pub file: String,
    /// What in it: a panel, a rule, a line.
    pub item: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.item)
    }
}

/// What a query is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Prometheus's.
    PromQl,
    /// Loki's.
    LogQl,
    /// A search in Jaeger, as Grafana's JSON states it.
    Jaeger,
}

/// What a query is for; tells what is expected of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Drawn in a panel: there must be data. Asked for one moment if `instant`, else over a range of time.
    Panel {
        /// Whether for one moment.
        instant: bool,
    },
    /// The choices of a dashboard's variable: there must be one.
    Variable(String),
    /// Events on a dashboard: there may be none.
    Annotation,
    /// A recording rule; the name of what it records.
    Record(String),
    /// An alerting rule: says nothing as long as all is well.
    Alert,
    /// For a person to ask.
    Document,
}

/// A query, its variables replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// Where it stands.
    pub place: Place,
    /// What it is written in.
    pub language: Language,
    /// What it is for.
    pub purpose: Purpose,
    /// The query itself.
    pub text: String,
    /// Labels of the answer that a legend or a notification prints.
    pub printed: Vec<String>,
    /// Labels that a rule gives its result, with their values.
    pub given: Vec<(String, String)>,
}

/// All queries of the clone.
#[derive(Debug, Default)]
pub struct Sources {
    /// The queries, file by file.
    pub expressions: Vec<Expression>,
    /// The scrape jobs of `deploy/prometheus/prometheus.yml`.
    pub jobs: BTreeSet<String>,
    /// What is wrong with the files themselves, a line each.
    pub findings: Vec<String>,
}

/// Values for variables of dashboards that are not to be had from the files: (dashboard's file, variable) → value.
pub type Choices = BTreeMap<(String, String), String>;

impl Sources {
    /// Reads all that there is under `root`. A variable with one value at a time takes it from `choices`, else stands
    /// for something that is not known.
    ///
    /// # Errors
    /// When a file cannot be read, or is no JSON or YAML where it should be.
    pub fn read(root: &Path, choices: &Choices) -> anyhow::Result<Self> {
        let mut sources = Self {
            jobs: rules::jobs(&root.join("deploy/prometheus/prometheus.yml"))?,
            ..Self::default()
        };
        for path in files(root, "dashboards", ".json")? {
            dashboards::read(root, &path, choices, &mut sources)?;
        }
        for path in files(root, "alerts", ".rules.yml")? {
            rules::read(root, &path, &mut sources)?;
        }
        let mut pages = files(root, "docs/runbooks", ".md")?;
        pages.extend(files(root, "docs/runbooks/troubleshooting", ".md")?);
        pages.extend(files(root, "docs", ".md")?);
        for path in pages {
            documents::read(root, &path, &mut sources)?;
        }
        Ok(sources)
    }
}

/// Everything that is wrong with the queries as far as can be told without asking them, a line each: file, place, what.
#[must_use]
pub fn check(sources: &Sources, known: &Known) -> Vec<String> {
    let mut findings = sources.findings.clone();
    for expression in &sources.expressions {
        let found = match expression.language {
            Language::PromQl => promql::check(expression, known),
            Language::LogQl => logql::check(&expression.text),
            Language::Jaeger => check_search(&expression.text, known),
        };
        findings.extend(
            found
                .into_iter()
                .map(|finding| format!("{}: {finding}", expression.place)),
        );
    }
    findings
}

/// A search names one of our services, or is one for a trace by its id.
fn check_search(text: &str, known: &Known) -> Vec<String> {
    let Ok(target) = serde_json::from_str::<crate::Json>(text) else {
        return vec!["is no JSON".to_owned()];
    };
    let service = target["service"].as_str().unwrap_or_default();
    match target["queryType"].as_str() {
        Some("search") if known.services.contains(&service) => Vec::new(),
        Some("search") => vec![format!("searches traces of `{service}`, which is no service")],
        Some("dependencyGraph") => Vec::new(),
        // An id that is to be typed in is empty at first.
        None if target["query"].is_string() => Vec::new(),
        other => vec![format!("is no search in Jaeger: queryType {other:?}")],
    }
}

/// The clone that this program was started in, else the one that it was built from.
#[must_use]
pub fn root() -> PathBuf {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let is_root = |dir: &&Path| dir.join("Cargo.lock").is_file() && dir.join("xtask").is_dir();
    match std::env::current_dir() {
        Ok(here) => here
            .ancestors()
            .find(is_root)
            .map_or(built_from, Path::to_path_buf),
        Err(_) => built_from,
    }
}

/// The files of a directory whose names end so, sorted; none where the directory is missing.
fn files(root: &Path, directory: &str, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let directory = root.join(directory);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() && path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A path as it is shown: from the root.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
