//! The variables of the compose files: images, ports, folders.

use crate::{dev::EnvFile, workspace::Workspace};
use anyhow::Context;
use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

/// `deploy/.env`, a file of image names over it, the environment over both: as `docker compose` itself reads them.
pub(crate) struct Variables {
    values: BTreeMap<String, String>,
    files: Vec<PathBuf>,
}

impl Variables {
    /// Reads them. What the environment says counts only for names that stand in a file.
    pub(crate) fn load(workspace: &Workspace, images_env: Option<&Path>) -> anyhow::Result<Self> {
        let mut files = vec![workspace.root.join("deploy/.env")];
        if let Some(file) = images_env {
            files.push(env::current_dir()?.join(file));
        }
        let mut values = BTreeMap::new();
        for file in &files {
            let read = EnvFile::of(file).read();
            let read = read.with_context(|| format!("reading {}", file.display()))?;
            let unknown = read.iter().find(|(name, _)| !values.contains_key(name));
            if let Some((name, _)) = unknown.filter(|_| !values.is_empty()) {
                eprintln!("note: {}: deploy/.env has no {name}", file.display());
            }
            values.extend(read);
        }
        for (name, value) in &mut values {
            if let Ok(given) = env::var(name) {
                *value = given;
            }
        }
        Ok(Self { values, files })
    }

    /// The files, for `--env-file`.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A variable's value, empty when there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &String)> {
        self.values.iter()
    }

    /// Moves every published port up.
    ///
    /// # Errors
    /// Names the port that would not be one any more, and one that is no number (a range for several replicas).
    pub(crate) fn move_ports(&mut self, offset: u16) -> anyhow::Result<()> {
        if offset == 0 {
            return Ok(());
        }
        for (name, value) in &mut self.values {
            if name.ends_with("_PORT") {
                let port: u16 = value
                    .parse()
                    .with_context(|| format!("{name}={value} cannot be moved by --port-offset"))?;
                let moved = port.checked_add(offset);
                *value = moved
                    .with_context(|| format!("--port-offset {offset} leaves no {name} ({port})"))?
                    .to_string();
            }
        }
        Ok(())
    }

    /// Where a published port is reached; of a range, the first.
    pub(crate) fn url(&self, port: &str) -> String {
        let port = self.get(port);
        format!(
            "http://127.0.0.1:{}",
            port.split_once('-').map_or(port, |(first, _)| first)
        )
    }

    /// Whether a compose profile is on.
    pub(crate) fn profile(&self, name: &str) -> bool {
        self.get("COMPOSE_PROFILES")
            .split(',')
            .any(|profile| profile.trim() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        let values = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Variables {
            values: values.collect(),
            files: Vec::new(),
        }
    }

    #[test]
    fn ports_are_moved_together_and_nothing_else() -> anyhow::Result<()> {
        let mut all = variables(&[("A_PORT", "8080"), ("B_PORT", "65000"), ("TAG", "8080")]);
        all.move_ports(10)?;
        assert_eq!(all.url("A_PORT"), "http://127.0.0.1:8090");
        assert_eq!(all.get("TAG"), "8080");
        let error = all.move_ports(1000).expect_err("too high").to_string();
        assert!(error.contains("B_PORT"), "{error}");
        let mut range = variables(&[("A_PORT", "8091-8094")]);
        assert_eq!(range.url("A_PORT"), "http://127.0.0.1:8091");
        assert!(range.move_ports(1).is_err());
        Ok(())
    }

    #[test]
    fn profiles_are_told_apart() {
        let all = variables(&[("COMPOSE_PROFILES", "grafana, promtail")]);
        assert!(all.profile("grafana") && all.profile("promtail") && !all.profile("graf"));
        assert!(!variables(&[("COMPOSE_PROFILES", "")]).profile("grafana"));
    }
}
