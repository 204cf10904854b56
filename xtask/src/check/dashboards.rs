//! `dashboards/`: valid by Grafana's own types, and good practice. What their queries ask is another step's.

use super::Outcome;
use crate::workspace::Workspace;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Panels whose values have no unit.
const WITHOUT_UNIT: [&str; 3] = ["logs", "text", "traces"];
/// Links to a runbook go below this.
const RUNBOOKS: &str = "https://github.com/devops-mcp/devops-mcp/blob/main/docs/runbooks/";
/// What the types are compiled from; a change makes the schema anew.
const SOURCES: [&str; 4] = ["package.json", "package-lock.json", "dashboard.ts", "check.mjs"];

/// Checks all dashboards.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let files = files(&workspace.root.join("dashboards"))?;
    let mut findings = lint(workspace, &files)?;
    if Command::new("npm").arg("--version").output().is_err() {
        let partly = "dashboards by Grafana's types: npm is not installed".to_owned();
        return Ok(match findings.is_empty() {
            true => Outcome::Partly(partly),
            false => Outcome::from_findings(&findings),
        });
    }
    findings.extend(types(workspace, &files)?);
    Ok(Outcome::from_findings(&findings))
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).context("dashboards/")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "dashboards/ holds no dashboard");
    Ok(files)
}

/// What Grafana's types say against them. The packages and the schema are kept in the target directory.
fn types(workspace: &Workspace, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let source = workspace.root.join("xtask/grafana-schema");
    let home = workspace.target.join("grafana-schema");
    fs::create_dir_all(&home)?;
    if SOURCES
        .iter()
        .any(|name| fs::read(home.join(name)).ok() != fs::read(source.join(name)).ok())
    {
        // The last one copied is the sign that all is there, so it goes first and comes last.
        let _ = fs::remove_file(home.join(SOURCES[SOURCES.len() - 1]));
        let _ = fs::remove_file(home.join("schema.json"));
        for name in &SOURCES[..SOURCES.len() - 1] {
            fs::copy(source.join(name), home.join(name)).context(*name)?;
        }
        let args = [
            "ci",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
        ];
        let output = Command::new("npm").args(args).current_dir(&home).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "npm ci: {}", said.trim());
        let last = SOURCES[SOURCES.len() - 1];
        fs::copy(source.join(last), home.join(last)).context(last)?;
    }
    let mut node = Command::new("node");
    node.args(["check.mjs", "schema.json"])
        .args(files)
        .current_dir(&home);
    let output = node.output().context("node cannot be run")?;
    let findings: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() || !findings.is_empty(),
        "check.mjs: {}",
        said.trim()
    );
    Ok(findings)
}

fn lint(workspace: &Workspace, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let stems: BTreeSet<String> = files.iter().map(|file| stem(file)).collect();
    let alerts = alerts(&workspace.root.join("alerts"))?;
    let mut findings = Vec::new();
    let mut titles = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| workspace.shown(file))?;
        let json: Value = serde_json::from_str(&text).with_context(|| workspace.shown(file))?;
        let mut linter = Linter {
            file: workspace.shown(file),
            json: &json,
            stems: &stems,
            alerts: &alerts,
            findings: Vec::new(),
        };
        linter.dashboard(&stem(file));
        if !titles.insert(text_of(&json, "title").to_owned()) {
            linter.found("", "another dashboard has this title");
        }
        findings.append(&mut linter.findings);
    }
    Ok(findings)
}

/// The names of all alerts; that each has its runbook is another step's.
fn alerts(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut alerts = BTreeSet::new();
    for entry in fs::read_dir(directory).context("alerts/")? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".rules.yml") {
            let text = fs::read_to_string(&path)?;
            let names = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("- alert:"));
            alerts.extend(names.map(|name| name.trim().to_owned()));
        }
    }
    Ok(alerts)
}

fn stem(file: &Path) -> String {
    file.file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Looks at one dashboard.
struct Linter<'a> {
    file: String,
    json: &'a Value,
    stems: &'a BTreeSet<String>,
    alerts: &'a BTreeSet<String>,
    findings: Vec<String>,
}

impl Linter<'_> {
    fn found(&mut self, item: &str, what: &str) {
        let separator = if item.is_empty() { "" } else { ": " };
        self.findings
            .push(format!("{}{separator}{item}: {what}", self.file));
    }

    fn dashboard(&mut self, stem: &str) {
        let json = self.json;
        if text_of(json, "uid") != stem {
            self.found("", "the uid is not the file's name");
        }
        for key in ["title", "description", "refresh"] {
            if text_of(json, key).is_empty() {
                self.found("", &format!("has no {key}"));
            }
        }
        let of_type = |kind| list(&json["templating"], "list").any(|v| text_of(v, "type") == kind);
        if !of_type("datasource") {
            self.found("", "has no variable for the data source");
        }
        for key in ["id", "__inputs", "__requires"] {
            if !json[key].is_null() {
                self.found("", &format!("`{key}` belongs to an instance or an import"));
            }
        }
        for link in list(json, "links") {
            self.link("links", link);
            if link["keepTime"] != true || link["includeVars"] != true {
                self.found(text_of(link, "title"), "loses the time or the variables");
            }
        }
        for annotation in list(&json["annotations"], "list") {
            if annotation["builtIn"] != 1 {
                self.source(text_of(annotation, "name"), &annotation["datasource"]);
            }
        }
        self.panels();
    }

    fn panels(&mut self) {
        let json = self.json;
        let panels: Vec<&Value> = list(json, "panels")
            .flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels")))
            .collect();
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        let mut taken = BTreeSet::new();
        for panel in panels {
            let title = text_of(panel, "title");
            if !ids.insert(panel["id"].as_u64()) {
                self.found(title, "its id is another panel's");
            }
            if title.is_empty() {
                self.found(&format!("panel {}", panel["id"]), "has no title");
            } else if !titles.insert(title) {
                self.found(title, "another panel has this title");
            }
            self.place(title, &panel["gridPos"], &mut taken);
            if text_of(panel, "type") != "row" {
                self.panel(title, panel);
            }
        }
    }

    /// Whether it is on the grid, 24 cells wide, and covers no other's cells.
    fn place(&mut self, title: &str, grid: &Value, taken: &mut BTreeSet<(u64, u64)>) {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| grid[key].as_u64().unwrap_or(0));
        if w == 0 || h == 0 || x + w > 24 {
            self.found(title, "is off the grid");
        }
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        if cells.filter(|cell| !taken.insert(*cell)).count() > 0 {
            self.found(title, "lies over another panel");
        }
    }

    fn panel(&mut self, title: &str, panel: &Value) {
        let kind = text_of(panel, "type");
        if text_of(panel, "description").is_empty() {
            self.found(title, "has no description");
        }
        let defaults = &panel["fieldConfig"]["defaults"];
        if !WITHOUT_UNIT.contains(&kind) {
            if text_of(defaults, "unit").is_empty() {
                self.found(title, "has no unit (`none` says that there is none)");
            }
            self.thresholds(title, &defaults["thresholds"]);
        }
        for link in list(panel, "links").chain(list(defaults, "links")) {
            self.link(title, link);
        }
        if kind == "text" {
            return;
        }
        self.source(title, &panel["datasource"]);
        for target in list(panel, "targets") {
            self.source(title, &target["datasource"]);
            self.rates(title, text_of(target, "expr"));
        }
    }

    /// The first has no value, each other more than the one before.
    fn thresholds(&mut self, title: &str, thresholds: &Value) {
        let steps: Vec<Option<f64>> = list(thresholds, "steps")
            .map(|step| step["value"].as_f64())
            .collect();
        let ascend = steps.windows(2).all(|pair| pair[0] < pair[1]);
        if steps.first() != Some(&None) || !ascend {
            self.found(title, "thresholds do not ascend from one without a value");
        }
    }

    fn source(&mut self, title: &str, source: &Value) {
        let uid = text_of(source, "uid");
        let variable = uid.strip_prefix("${").and_then(|name| name.strip_suffix('}'));
        let defined = variable.is_some_and(|name| {
            list(&self.json["templating"], "list")
                .any(|one| text_of(one, "type") == "datasource" && text_of(one, "name") == name)
        });
        if !defined {
            self.found(
                title,
                &format!("its data source `{uid}` is not one of the variables"),
            );
        }
    }

    /// A rate over a fixed range shows nothing, or too much, as soon as the scrape interval or the zoom is another.
    fn rates(&mut self, title: &str, query: &str) {
        // Without what stands in quotes: the regular expressions there have brackets, too.
        let query: String = query.split('"').step_by(2).collect();
        for function in ["rate(", "irate("] {
            for (at, _) in query.match_indices(function) {
                let before = query[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    continue;
                }
                let range = query[at..]
                    .split_once('[')
                    .and_then(|(_, rest)| rest.split_once(']'));
                if range.is_none_or(|(range, _)| !["$__rate_interval", "$__auto"].contains(&range)) {
                    self.found(title, "takes a rate over something else than $__rate_interval");
                }
            }
        }
    }

    /// Links to dashboards and alerts' runbooks lead somewhere.
    fn link(&mut self, item: &str, link: &Value) {
        let url = text_of(link, "url");
        let up_to = |text: &str| text.split(['?', '/', '#']).next().unwrap_or_default().to_owned();
        if let Some(rest) = url.strip_prefix("/d/") {
            if !self.stems.contains(&up_to(rest)) {
                self.found(item, &format!("links to {url}, which is no dashboard"));
            }
        } else if let Some(page) = url.strip_prefix(RUNBOOKS)
            && !page
                .strip_suffix(".md")
                .is_some_and(|name| self.alerts.contains(name))
        {
            self.found(item, &format!("links to {page}, but there is no such alert"));
        }
    }
}
