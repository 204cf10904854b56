//! The floor plan as code: which crate may stand on which, and what must never be below one.

use super::{Outcome, graph, output};
use crate::workspace::Workspace;
use std::collections::BTreeSet;

/// What each of our crates may depend on, of ours. A crate that is not here may not exist.
const ARROWS: [(&str, &[&str]); 12] = [
    ("domain", &[]),
    ("knowledge", &[]),
    ("telemetry", &[]),
    ("openapi", &["domain"]),
    ("proto", &["domain"]),
    ("chassis", &["telemetry"]),
    ("coordination", &["telemetry"]),
    ("mcp-server", SERVICE),
    (
        "rest-api",
        &[
            "domain",
            "telemetry",
            "openapi",
            "proto",
            "chassis",
            "coordination",
        ],
    ),
    ("worker", SERVICE),
    (
        "e2e",
        &[
            "domain",
            "telemetry",
            "proto",
            "chassis",
            "coordination",
            "mcp-server",
            "rest-api",
            "worker",
        ],
    ),
    ("xtask", &[]),
];

const SERVICE: &[&str] = &[
    "domain",
    "knowledge",
    "telemetry",
    "proto",
    "chassis",
    "coordination",
];

/// Packages that must not be in a crate's tree, and why.
const ABSENT: [(&str, &[&str], &str); 5] = [
    (
        "mcp-server",
        &["sqlx", "sqlx-core"],
        "rest-api alone opens the database",
    ),
    (
        "worker",
        &["sqlx", "sqlx-core"],
        "rest-api alone opens the database",
    ),
    (
        "domain",
        &["tokio", "tonic", "axum", "sqlx", "sqlx-core"],
        "the domain does no I/O",
    ),
    (
        "openapi",
        &["tokio", "tonic", "axum", "sqlx", "sqlx-core", "reqwest"],
        "reading a document does no I/O",
    ),
    (
        "xtask",
        &["tokio", "axum", "tonic"],
        "xtask is there seconds after a clone",
    ),
];

/// Runs the step.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut findings = Vec::new();
    for package in graph::packages(workspace)?.iter().filter(|package| package.ours) {
        let depends = package.our_dependencies.iter().map(String::as_str).collect();
        findings.extend(arrows(&package.name, &depends));
    }
    for (package, absent, reason) in ABSENT {
        let tree = output(
            workspace,
            &[
                "tree", "--locked", "-p", package, "--prefix", "none", "--format", "{p}",
            ],
        )?;
        let present: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        for name in absent.iter().filter(|name| present.contains(*name)) {
            findings.push(format!(
                "{package} must not hold {name}: {reason} (cargo tree -p {package} -i {name})"
            ));
        }
    }
    Ok(Outcome::from_findings(&findings))
}

fn arrows(package: &str, depends: &BTreeSet<&str>) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package) else {
        return vec![format!(
            "{package} has no place in the floor plan (xtask/src/check/architecture.rs)"
        )];
    };
    let wrong = depends.iter().filter(|name| !allowed.contains(name));
    wrong
        .map(|name| format!("{package} must not depend on {name}: arrows point down only"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_down_only() {
        assert!(arrows("rest-api", &BTreeSet::from(["domain", "proto"])).is_empty());
        assert_eq!(arrows("domain", &BTreeSet::from(["proto"])).len(), 1);
        assert_eq!(arrows("worker", &BTreeSet::from(["rest-api"])).len(), 1);
        assert_eq!(arrows("newcomer", &BTreeSet::new()).len(), 1);
    }

    #[test]
    fn the_floor_plan_has_no_circle() {
        let rank = |name: &str| ARROWS.iter().position(|(known, _)| *known == name);
        for (package, allowed) in ARROWS {
            assert!(
                allowed.iter().all(|name| rank(name) < rank(package)),
                "{package} stands below what it uses"
            );
        }
    }
}
