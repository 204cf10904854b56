//! The files that manifests are made from.

use anyhow::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What is told elsewhere in the clone and must be the same in a cluster.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Dashboards and files of rules: name → text.
    pub(crate) files: BTreeMap<String, String>,
    /// The images that `deploy/.env` names.
    pub(crate) images: BTreeSet<String>,
}

impl Sources {
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut sources = Self::default();
        for (folder, end) in [("dashboards", ".json"), ("alerts", ".rules.yml")] {
            let folder = root.join(folder);
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if name.ends_with(end) {
                    sources.files.insert(name, fs::read_to_string(&path)?);
                }
            }
        }
        let env = fs::read_to_string(root.join("deploy/.env")).context("deploy/.env")?;
        let images = env.lines().filter_map(|line| line.split_once('='));
        sources.images = images
            .filter(|(name, _)| name.ends_with("_IMAGE"))
            .map(|(_, image)| image.to_owned())
            .collect();
        Ok(sources)
    }
}
