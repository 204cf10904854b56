//! The packages of `cargo metadata`.

use super::output;
use crate::workspace::Workspace;
use anyhow::Context;
use serde_json::Value;
use std::collections::BTreeSet;

/// One package that is built on Linux.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) licence: Option<String>,
    /// Whether it is one of ours.
    pub(super) ours: bool,
    /// Names of those of ours that it names as dependencies, for tests and builds included.
    pub(super) our_dependencies: BTreeSet<String>,
}

/// All packages of the lock file that are used on Linux.
pub(super) fn packages(workspace: &Workspace) -> anyhow::Result<Vec<Package>> {
    let text = output(
        workspace,
        &[
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ],
    )?;
    let metadata: Value = serde_json::from_str(&text).context("reading cargo metadata")?;
    let strings = |value: &Value| -> BTreeSet<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|id| Some(id.as_str()?.to_owned()))
            .collect()
    };
    let members = strings(&metadata["workspace_members"]);
    let nodes = metadata["resolve"]["nodes"]
        .as_array()
        .context("no resolve graph")?;
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let all = metadata["packages"].as_array().context("no packages")?;
    let package = |value: &Value| {
        let id = value["id"].as_str()?;
        let dependencies = value["dependencies"].as_array()?.iter();
        Some(Package {
            name: value["name"].as_str()?.to_owned(),
            version: value["version"].as_str()?.to_owned(),
            licence: value["license"].as_str().map(str::to_owned),
            ours: members.contains(id),
            // Ours are the ones with a path.
            our_dependencies: dependencies
                .filter(|dependency| !dependency["path"].is_null())
                .filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned()))
                .collect(),
        })
        .filter(|_| used.contains(id))
    };
    Ok(all.iter().filter_map(package).collect())
}
