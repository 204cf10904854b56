//! What we take from others: versions, licences, advisories. The rules stand in `deny.toml`, which
//! cargo-deny understands too.

use super::{Outcome, finish, graph, licence};
use crate::{process::on_path, workspace::Workspace};
use anyhow::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};
use toml::{Table, Value};

fn rules(workspace: &Workspace) -> anyhow::Result<Table> {
    let text = fs::read_to_string(workspace.root.join("deny.toml")).context("reading deny.toml")?;
    text.parse().context("deny.toml")
}

fn list<'a>(rules: &'a Table, section: &str, key: &str) -> anyhow::Result<&'a Vec<Value>> {
    let value = rules
        .get(section)
        .and_then(|section| section.get(key))
        .and_then(Value::as_array);
    value.with_context(|| format!("deny.toml has no list {section}.{key}"))
}

/// No dependency in two versions, but for those that `bans.skip` names with a reason.
pub(super) fn duplicates(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let rules = rules(workspace)?;
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in graph::packages(workspace)? {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let mut findings = Vec::new();
    for skip in list(&rules, "bans", "skip")? {
        let text = |key| skip.get(key).and_then(Value::as_str);
        let Some((name, version)) = text("crate").and_then(|spec| spec.split_once('@')) else {
            findings.push(format!(
                "deny.toml: bans.skip: `{skip:?}` is not {{ crate = \"name@version\", … }}"
            ));
            continue;
        };
        if text("reason").is_none_or(str::is_empty) {
            findings.push(format!("deny.toml: bans.skip: {name}@{version} has no reason"));
        }
        let known = versions.entry(name.to_owned()).or_default();
        let before = known.len();
        known.retain(|known| !(known == version || known.starts_with(&format!("{version}."))));
        if before < 2 || known.len() == before {
            findings.push(format!(
                "deny.toml: bans.skip: {name}@{version} is no duplicate any more: remove it"
            ));
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
        findings.push(format!(
            "{name} is there in versions {} (cargo tree -i {name}@{}): unify them, or skip one in deny.toml",
            versions.join(", "),
            versions[0]
        ));
    }
    Ok(Outcome::from_findings(&findings))
}

/// Every dependency may be used under licences of `licenses.allow`.
pub(super) fn licences(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let rules = rules(workspace)?;
    let allowed = list(&rules, "licenses", "allow")?;
    let allowed: Vec<String> = allowed
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let mut findings = Vec::new();
    for package in graph::packages(workspace)? {
        let expression = package.licence.unwrap_or_default();
        match licence::is_met(&expression, &allowed) {
            Ok(true) => {}
            Ok(false) => findings.push(format!("{} {}: `{expression}`", package.name, package.version)),
            Err(error) => findings.push(format!("{} {}: {error}", package.name, package.version)),
        }
    }
    Ok(Outcome::from_findings(&findings))
}

/// Asks cargo-deny or cargo-audit, where one is installed.
pub(super) fn advisories(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut cargo = workspace.cargo();
    if on_path("cargo-deny").is_some() {
        cargo.args(["deny", "check", "advisories", "bans", "licenses", "sources"]);
    } else if on_path("cargo-audit").is_some() {
        cargo.arg("audit");
    } else {
        let why = "neither cargo-deny nor cargo-audit is installed";
        return Ok(Outcome::Partly(why.to_owned()));
    }
    finish(
        &mut cargo,
        "see above; an advisory that does not concern us goes into deny.toml, with a reason",
    )
}
