//! The programs in the images look at their own configurations: as they are shipped, so they are checked.

use crate::{
    stack::docker::{docker, said},
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::fs;

/// The compose files as they may be given: each alone, both together.
const COMPOSE: [&[&str]; 3] = [
    &["docker-compose.yml"],
    &["docker-compose.monitoring.yml"],
    &["docker-compose.yml", "docker-compose.monitoring.yml"],
];

/// Checks the compose files, Prometheus' configuration, rules and rule tests, and the other programs' configurations.
///
/// # Errors
/// What they complain about.
pub(super) fn check(workspace: &Workspace, project: &str) -> anyhow::Result<()> {
    for files in COMPOSE {
        let mut command = docker(&["compose", "--project-directory", "deploy"]);
        command.current_dir(&workspace.root);
        for file in files {
            command.arg("--file").arg(format!("deploy/{file}"));
        }
        said(command.args(["config", "--quiet"]))?;
        println!("{:<15} config --quiet: {}", "docker compose", files.join(" + "));
    }
    let mut checks: Vec<(&str, Vec<String>)> = Vec::new();
    let mut add =
        |service, words: &[&str]| checks.push((service, words.iter().map(|&word| word.to_owned()).collect()));
    add(
        "prometheus",
        &["promtool", "check", "config", "/etc/prometheus/prometheus.yml"],
    );
    add(
        "alertmanager",
        &["amtool", "check-config", "/etc/alertmanager/config.yml"],
    );
    add(
        "otel-collector",
        &[
            "/otelcol-contrib",
            "validate",
            "--config=/etc/otelcol/config.yaml",
        ],
    );
    add(
        "otel-collector",
        &[
            "/otelcol-contrib",
            "validate",
            "--config=/etc/otelcol/config.yaml",
            "--config=/etc/otelcol/production.yaml",
        ],
    );
    add(
        "loki",
        &[
            "/usr/bin/loki",
            "-verify-config",
            "-config.file=/etc/loki/config.yaml",
        ],
    );
    let mut tests = vec!["promtool".to_owned(), "test".to_owned(), "rules".to_owned()];
    tests.extend(rule_tests(workspace)?);
    checks.push(("prometheus", tests));

    for (service, words) in checks {
        // Rules are tested on a store that is written to the volume: elsewhere nothing can be.
        let container = format!("{project}-{service}-1");
        let mut command = docker(&["exec", "--env", "TMPDIR=/prometheus", &container]);
        let said = said(command.args(&words)).with_context(|| format!("{service} does not accept it"))?;
        let last = said.lines().last().unwrap_or_default();
        println!(
            "{service:<15} {:<40} {last}",
            words[..words.len().min(4)].join(" ")
        );
    }
    Ok(())
}

/// The rules' tests, where Prometheus' container has them.
fn rule_tests(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let dir = workspace.root.join("alerts/tests");
    let names = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names: Vec<String> = names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".test.yml"))
        .map(|name| format!("/etc/prometheus/alerts/tests/{name}"))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "no rule has a test in {}", dir.display());
    Ok(names)
}
