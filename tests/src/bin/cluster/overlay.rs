//! The overlays that are applied: what stands in the repository, with the images that can be had here.

use crate::{
    install::{MADE_BY, US},
    setup::{Replacement, Setup},
};
use anyhow::{Context as _, ensure};
use e2e::Json;
use serde_json::json;
use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// The key that names the ConfigMap of what runs once in the throw-away PostgreSQL.
const INIT: &str = "postgres-init";

/// Writes the overlay of the services: `tests/kubernetes`, which is production made small. Gives its folder.
///
/// # Errors
/// When the repository lacks a file, or one cannot be written.
pub(crate) fn services(setup: &Setup) -> anyhow::Result<PathBuf> {
    let folder = fresh(setup, "services")?;
    let init = setup.root.join("deploy/postgres/init.sh");
    fs::copy(&init, folder.join("init.sh")).with_context(|| init.display().to_string())?;
    let generated = json!({ "name": INIT, "namespace": "devops-mcp", "files": ["init.sh"] });
    let kustomization = json!({
        "resources": [way(&folder, &setup.root.join("tests/kubernetes"))?],
        "images": images(setup),
        "configMapGenerator": [generated],
    });
    write(&folder, kustomization)?;
    Ok(folder)
}

/// Writes the overlay of the monitoring: the files of `deploy/kubernetes/monitoring`, and what tests add. Gives its folder.
///
/// # Errors
/// When the repository lacks them, or one cannot be written.
pub(crate) fn monitoring(setup: &Setup) -> anyhow::Result<PathBuf> {
    let folder = fresh(setup, "monitoring")?;
    let from = setup.root.join("deploy/kubernetes/monitoring");
    let mut resources = vec![way(&folder, &setup.root.join("tests/kubernetes/monitoring"))?];
    for file in fs::read_dir(&from).with_context(|| from.display().to_string())? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let left_out = setup.without_grafana && name == "grafana.yaml";
        if name.ends_with(".yaml") && !left_out {
            fs::copy(file.path(), folder.join(&name))?;
            resources.push(name);
        }
    }
    ensure!(resources.len() > 1, "{} is empty", from.display());
    resources.sort();
    write(
        &folder,
        json!({ "resources": resources, "images": images(setup) }),
    )?;
    Ok(folder)
}

fn fresh(setup: &Setup, name: &str) -> anyhow::Result<PathBuf> {
    let folder = setup.work.join(name);
    if folder.is_dir() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// JSON is YAML.
fn write(folder: &Path, mut kustomization: Json) -> anyhow::Result<()> {
    kustomization["apiVersion"] = json!("kustomize.config.k8s.io/v1beta1");
    kustomization["kind"] = json!("Kustomization");
    // So that they are known to be ours from their first moment on.
    let label = json!([{ "op": "add", "path": format!("/metadata/labels/{}", MADE_BY.replace('/', "~1")), "value": US }]);
    kustomization["patches"] = json!([{ "target": { "kind": "Namespace" }, "patch": label.to_string() }]);
    let text = serde_json::to_string_pretty(&kustomization)?;
    Ok(fs::write(folder.join("kustomization.yaml"), text)?)
}

fn images(setup: &Setup) -> Vec<Json> {
    let tests: Option<Replacement> = format!("devops-mcp/tests={}", setup.tests_image).parse().ok();
    let all = setup.images.iter().chain(&tests);
    all.map(|image| json!({ "name": image.name, "newName": image.with.0, "newTag": image.with.1 }))
        .collect()
}

/// The way from one folder to another: kustomize takes no absolute paths.
fn way(from: &Path, to: &Path) -> anyhow::Result<String> {
    let whole = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
    let (from, to) = (whole(from)?, whole(to)?);
    let parts = |path: &Path| path.components().map(own).collect::<Vec<_>>();
    let (from, to) = (parts(&from), parts(&to));
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..".to_owned(), from.len() - shared);
    Ok(up
        .chain(to[shared..].iter().cloned())
        .collect::<Vec<_>>()
        .join("/"))
}

fn own(part: Component<'_>) -> String {
    part.as_os_str().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_leads_up_and_down() -> anyhow::Result<()> {
        let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = way(&crate_root.join("src/bin"), &crate_root.join("kubernetes"))?;
        assert_eq!(found, "../../kubernetes");
        Ok(())
    }
}
