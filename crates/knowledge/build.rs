//! Writes what the repository says about its telemetry into constants, so that nothing is read or parsed at run time.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

fn main() -> anyhow::Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let mut code = String::new();
    runbooks(&root, &mut code)?;
    metrics(&root, &mut code)?;
    dashboards(&root, &mut code)?;
    objectives(&root, &mut code)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("knowledge.rs"), code)?;
    Ok(())
}

fn runbooks(root: &Path, code: &mut String) -> anyhow::Result<()> {
    code.push_str("const RUNBOOKS: &[Runbook] = &[\n");
    for path in files(root, "docs/runbooks", "md")? {
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name != "README" {
            let text = read(&path)?;
            writeln!(code, "Runbook {{ alert: {name:?}, text: {text:?} }},")?;
        }
    }
    code.push_str("];\n");
    Ok(())
}

fn metrics(root: &Path, code: &mut String) -> anyhow::Result<()> {
    let path = root.join("docs/METRICS.md");
    watch(&path);
    writeln!(code, "const METRICS: &str = {:?};", read(&path)?)?;
    Ok(())
}

fn dashboards(root: &Path, code: &mut String) -> anyhow::Result<()> {
    code.push_str("const DASHBOARDS: &[Dashboard] = &[\n");
    for path in files(root, "dashboards", "json")? {
        let dashboard: Value =
            serde_json::from_str(&read(&path)?).with_context(|| format!("{} is no JSON", path.display()))?;
        let (uid, title) = (text(&dashboard["uid"]), text(&dashboard["title"]));
        ensure!(!uid.is_empty(), "{} has no uid", path.display());
        writeln!(code, "Dashboard {{ uid: {uid:?}, title: {title:?}, panels: &[")?;
        panels(&dashboard["panels"], code)?;
        code.push_str("] },\n");
    }
    code.push_str("];\n");
    Ok(())
}

/// Panels with queries; a closed row holds its own.
fn panels(list: &Value, code: &mut String) -> anyhow::Result<()> {
    for panel in list.as_array().into_iter().flatten() {
        let targets = panel["targets"].as_array().into_iter().flatten();
        let queries: Vec<&str> = targets
            .map(|target| text(&target["expr"]))
            .filter(|query| !query.is_empty())
            .collect();
        if !queries.is_empty() {
            let title = text(&panel["title"]);
            writeln!(code, "Panel {{ title: {title:?}, queries: &{queries:?} }},")?;
        }
        panels(&panel["panels"], code)?;
    }
    Ok(())
}

fn objectives(root: &Path, code: &mut String) -> anyhow::Result<()> {
    let path = root.join("alerts/slos.yaml");
    watch(&path);
    let document: Value = yaml_serde::from_str(&read(&path)?).context("alerts/slos.yaml is no YAML")?;
    code.push_str("const OBJECTIVES: &[Objective] = &[\n");
    for slo in document["slos"]
        .as_array()
        .context("alerts/slos.yaml has no slos")?
    {
        let labels: Vec<&str> = ["by", "breakdown"]
            .into_iter()
            .flat_map(|key| slo[key].as_array().into_iter().flatten().map(text))
            .collect();
        let breakdown: Vec<&str> = slo["breakdown"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect();
        let errors = text(&slo["sli"]["errors"]).replace("{{by}}", &labels.join(", "));
        writeln!(
            code,
            "Objective {{ name: {:?}, title: {:?}, description: {:?}, percent: {:?}, window: {:?}, breakdown: &{breakdown:?}, errors: {errors:?} }},",
            text(&slo["name"]),
            text(&slo["title"]),
            text(&slo["description"]).trim(),
            slo["objective"].as_f64().context("an objective is no number")?,
            text(&slo["window"]),
        )?;
    }
    code.push_str("];\n");
    Ok(())
}

/// The files of a folder with an extension, by name; a change of the folder builds again.
fn files(root: &Path, dir: &str, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let dir = root.join(dir);
    watch(&dir);
    let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

fn watch(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
