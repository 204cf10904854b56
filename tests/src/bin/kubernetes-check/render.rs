//! What is there to render, and kubectl, which does it.

use crate::objects::{Object, documents};
use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

const DEPLOY: &str = "deploy/kubernetes";
/// Manifests that only tests use.
const TESTS: &str = "tests/kubernetes";
/// Plain YAML, for `kubectl apply -f`.
const PLAIN: [&str; 2] = [
    "deploy/kubernetes/monitoring",
    "deploy/kubernetes/monitoring-operator",
];

/// Everything rendered: by the folder from the root of the clone, or `folder + component`.
pub(crate) type Renderings = BTreeMap<String, Vec<Object>>;

/// # Errors
/// When a folder cannot be read, or kustomize refuses it.
pub(crate) fn all(root: &Path) -> anyhow::Result<Renderings> {
    let scratch = Scratch::new()?;
    let mut folders: Vec<(String, PathBuf)> = Vec::new();
    let mut add = |name: &str| folders.push((name.to_owned(), root.join(name)));
    add(&format!("{DEPLOY}/base"));
    for overlay in kustomizations(root, &format!("{DEPLOY}/overlays"))? {
        add(&overlay);
    }
    for overlay in kustomizations(root, TESTS)? {
        add(&overlay);
    }
    let production = root.join(format!("{DEPLOY}/overlays/production/kustomization.yaml"));
    let production = fs::read_to_string(&production).with_context(|| production.display().to_string())?;
    for component in kustomizations(root, &format!("{DEPLOY}/components"))? {
        let name = component.rsplit('/').next().unwrap_or_default().to_owned();
        // What production has already stands for itself on the base; the rest is for a production.
        let below = if production.contains(&format!("components/{name}\n")) {
            "base"
        } else {
            "overlays/production"
        };
        let folder = scratch.with_component(root, below, &component, &name)?;
        folders.push((format!("{below} + {name}"), folder));
    }
    let rendered = thread::scope(|scope| {
        let started: Vec<_> = folders
            .iter()
            .map(|(name, folder)| (name, scope.spawn(move || kustomize(folder))))
            .collect();
        let join = |(name, thread): (&String, thread::ScopedJoinHandle<'_, anyhow::Result<String>>)| {
            let text = thread.join().map_err(|_| anyhow::anyhow!("a thread ended"))?;
            Ok((name.clone(), objects(&text.with_context(|| name.clone())?)?))
        };
        started
            .into_iter()
            .map(join)
            .collect::<anyhow::Result<Renderings>>()
    });
    let mut rendered = rendered?;
    for folder in PLAIN.iter().filter(|folder| root.join(folder).is_dir()) {
        rendered.insert((*folder).to_owned(), plain(&root.join(folder))?);
    }
    Ok(rendered)
}

fn objects(text: &str) -> anyhow::Result<Vec<Object>> {
    Ok(documents(text)?.into_iter().map(Object).collect())
}

/// The folders in `folder`, or it itself, that hold a kustomization.
fn kustomizations(root: &Path, folder: &str) -> anyhow::Result<Vec<String>> {
    if !root.join(folder).is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())? {
        let entry = entry?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(kustomizations(root, &name)?);
        } else if entry.file_name() == "kustomization.yaml" {
            found.push(folder.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// The manifests of a folder, as `kubectl apply -f` takes them.
fn plain(folder: &Path) -> anyhow::Result<Vec<Object>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml" | "json") if !name.contains("kustomization") => {
                found.extend(objects(&fs::read_to_string(&path)?).with_context(|| name)?);
            }
            Some("md") => {}
            _ => bail!("{name}: `kubectl apply -f` of its folder does not take it"),
        }
    }
    Ok(found)
}

fn kustomize(folder: &Path) -> anyhow::Result<String> {
    let output = Command::new("kubectl")
        .arg("kustomize")
        .arg(folder)
        .output()
        .context("starting kubectl")?;
    if !output.status.success() || !output.stderr.is_empty() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A folder for kustomizations that nobody ships; it goes with this.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is a few small files in a folder for such.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().canonicalize()?;
        let folder = folder.join(format!("kubernetes-check-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// `below` with one component more.
    fn with_component(
        &self,
        root: &Path,
        below: &str,
        component: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        let folder = self.0.join(name);
        fs::create_dir_all(&folder)?;
        // kustomize takes no absolute paths.
        let up = "../".repeat(folder.components().count() - 1);
        let root = root.canonicalize()?.display().to_string();
        let root = format!("{up}{}", root.trim_start_matches('/'));
        let text = format!("resources: [{root}/{DEPLOY}/{below}]\ncomponents: [{root}/{component}]\n");
        fs::write(folder.join("kustomization.yaml"), text)?;
        Ok(folder)
    }
}
