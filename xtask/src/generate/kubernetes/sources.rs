//! What the folders are made from: the compose files' images, arguments and limits, and the files they mount.

use super::Generated;
use crate::dev::EnvFile;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const COMPOSE: &str = "deploy/docker-compose.monitoring.yml";

pub(super) struct Sources {
    root: PathBuf,
    fresh: BTreeMap<String, String>,
    /// `deploy/.env` alone: what is generated must not depend on anybody's environment.
    variables: BTreeMap<String, String>,
    compose: Value,
}

/// A service of the compose file.
pub(super) struct Service {
    pub(super) image: String,
    pub(super) command: Vec<String>,
    /// In the order of their names.
    pub(super) environment: BTreeMap<String, String>,
    /// As Kubernetes writes quantities.
    pub(super) memory: String,
    /// How long it may take to stop, in seconds.
    pub(super) grace: u64,
}

impl Sources {
    pub(super) fn read(root: &Path, fresh: &[Generated]) -> anyhow::Result<Self> {
        let env = root.join("deploy/.env");
        let variables = EnvFile::of(&env).read();
        let variables = variables.with_context(|| format!("reading {}", env.display()))?;
        let mut sources = Self {
            root: root.to_path_buf(),
            fresh: fresh
                .iter()
                .map(|file| (file.path.clone(), file.text.clone()))
                .collect(),
            variables: variables.into_iter().collect(),
            compose: Value::Null,
        };
        sources.compose = yaml_serde::from_str(&sources.text(COMPOSE)?).context(COMPOSE)?;
        Ok(sources)
    }

    /// A file's text, by its path in the clone.
    pub(super) fn text(&self, path: &str) -> anyhow::Result<String> {
        if let Some(text) = self.fresh.get(path) {
            return Ok(text.clone());
        }
        fs::read_to_string(self.root.join(path)).with_context(|| format!("reading {path}"))
    }

    /// Names and texts of a folder's files that end so, by name.
    pub(super) fn files(&self, folder: &str, ending: &str) -> anyhow::Result<Vec<(String, String)>> {
        let entries = fs::read_dir(self.root.join(folder)).with_context(|| format!("reading {folder}"))?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.ends_with(ending).then_some(name));
        }
        ensure!(!names.is_empty(), "{folder} holds no *{ending}");
        names.sort();
        let read = |name: String| Ok((name.clone(), self.text(&format!("{folder}/{name}"))?));
        names.into_iter().map(read).collect()
    }

    /// A YAML file, its keys in their order.
    pub(super) fn yaml(&self, path: &str) -> anyhow::Result<yaml_serde::Value> {
        yaml_serde::from_str(&self.text(path)?).with_context(|| path.to_owned())
    }

    /// What the compose file says of a service.
    pub(super) fn service(&self, name: &str) -> anyhow::Result<Service> {
        let service = &self.compose["services"][name];
        ensure!(service.is_object(), "{COMPOSE} has no service {name}");
        let text = |value: &Value| self.expanded(value.as_str().unwrap_or_default());
        // One text is split by a shell's rules; only the Collector has one, and gets its arguments elsewhere.
        let command = service["command"].as_array().into_iter().flatten();
        let environment = service["environment"].as_object().into_iter().flatten();
        Ok(Service {
            image: text(&service["image"])?,
            command: command.map(text).collect::<anyhow::Result<_>>()?,
            environment: environment
                .map(|(name, value)| Ok((name.clone(), text(value)?)))
                .collect::<anyhow::Result<_>>()?,
            memory: quantity(service["mem_limit"].as_str().unwrap_or_default())
                .with_context(|| format!("{COMPOSE}: mem_limit of {name}"))?,
            grace: seconds(service["stop_grace_period"].as_str().unwrap_or("30s"))
                .with_context(|| format!("{COMPOSE}: stop_grace_period of {name}"))?,
        })
    }

    /// With `${NAME}` replaced. COMPOSE_PROJECT_NAME is compose's own and of no use here.
    fn expanded(&self, text: &str) -> anyhow::Result<String> {
        let Some((before, rest)) = text.split_once("${") else {
            return Ok(text.to_owned());
        };
        let (name, after) = rest.split_once('}').context("`${` without `}`")?;
        let value = match self.variables.get(name) {
            Some(value) => value.as_str(),
            None if name == "COMPOSE_PROJECT_NAME" => "",
            None => bail!("deploy/.env has no {name}"),
        };
        Ok(format!("{before}{value}{}", self.expanded(after)?))
    }
}

/// `512m` and `1g` of compose are powers of two.
fn quantity(text: &str) -> anyhow::Result<String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let unit = match unit {
        "m" => "Mi",
        "g" => "Gi",
        _ => bail!("`{text}` is neither in m nor in g"),
    };
    let number: u32 = number.parse().with_context(|| format!("`{text}`"))?;
    Ok(format!("{number}{unit}"))
}

fn seconds(text: &str) -> anyhow::Result<u64> {
    let number = text
        .strip_suffix('s')
        .with_context(|| format!("`{text}` is not in s"))?;
    number.parse().with_context(|| format!("`{text}`"))
}
