//! Rules about the text of the sources.

use super::{Outcome, metrics};
use crate::workspace::Workspace;
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
};

const LONGEST_FILE: usize = 500;
const LONGEST_MAIN: usize = 40;

/// One of our Rust files.
pub(super) struct File {
    /// Relative to the clone.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Runs the step.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let files = files(workspace)?;
    let mut findings: Vec<String> = files.iter().flat_map(findings).collect();
    findings.extend(metrics::findings(&files));
    Ok(Outcome::from_findings(&findings))
}

fn files(workspace: &Workspace) -> anyhow::Result<Vec<File>> {
    let mut paths = Vec::new();
    for dir in ["crates", "proto", "tests", "xtask"] {
        collect(&workspace.root.join(dir), &mut paths)?;
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let path = path
            .strip_prefix(&workspace.root)
            .map(Path::to_path_buf)
            .unwrap_or(path);
        Ok(File { path, text })
    };
    paths.into_iter().map(read).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

fn findings(file: &File) -> Vec<String> {
    // Written apart, so that this file does not find itself.
    let leftovers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("todo", "!("),
    ];
    let path = file.path.display();
    let mut findings = Vec::new();
    let (lines, longest) = (
        file.text.lines().count(),
        if file.path.ends_with("src/main.rs") {
            LONGEST_MAIN
        } else {
            LONGEST_FILE
        },
    );
    if lines > longest {
        findings.push(format!("{path}: {lines} lines, more than {longest}"));
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        for word in leftovers.iter().filter(|word| line.contains(**word)) {
            findings.push(format!("{path}:{number}: `{word}`: finish it, or file an issue"));
        }
        let line = line.trim_start();
        if line.starts_with("static ")
            || line.starts_with("pub static ")
            || line.starts_with("pub(crate) static ")
        {
            let set_once = ["OnceLock<", "OnceCell<", "lazy_static"];
            if set_once.iter().any(|kind| line.contains(kind)) {
                findings.push(format!(
                    "{path}:{number}: a static that is set once: pass it in instead"
                ));
            }
        }
    }
    findings.extend(untracked(file));
    findings
}

/// Tasks that a debug page would not show: those not spawned through `telemetry::tasks`. Tests may.
fn untracked(file: &File) -> Vec<String> {
    let path = file.path.to_string_lossy();
    let of_a_service = path.starts_with("crates/") && path.contains("/src/");
    let of_a_test = path.ends_with("tests.rs") || path.contains("/tests/");
    if !of_a_service || of_a_test || path.starts_with("crates/telemetry/src/tasks/") {
        return Vec::new();
    }
    // The last one is a set's, or a runtime's: theirs take what was tracked before, `chassis::Tasks` takes a name first.
    let spawns = [
        "tokio::spawn(",
        "task::spawn(",
        "task::spawn_local(",
        ".spawn(async",
    ];
    let code = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = (1..).zip(code.lines());
    lines
        .filter(|(_, line)| spawns.iter().any(|spawn| line.contains(spawn)))
        .map(|(number, _)| {
            format!("{path}:{number}: a task that nobody tracks: use `spawn` or `track` of telemetry::tasks")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn tasks_of_services_are_tracked_and_tests_spawn_as_they_like() {
        let bare = "fn f() {\n    tokio::spawn(g());\n}\n";
        assert_eq!(
            findings(&file("crates/a/src/lib.rs", bare)),
            ["crates/a/src/lib.rs:2: a task that nobody tracks: use `spawn` or `track` of telemetry::tasks"]
        );
        let set = "use tokio::task::JoinSet;\nfn f(set: &mut JoinSet<()>) {\n    set.spawn(async {});\n}\n";
        assert_eq!(findings(&file("crates/a/src/lib.rs", set)).len(), 1);
        let tracked = set.replace("async {}", "track(\"g\", async {})");
        let in_a_test = format!("#[cfg(test)]\nmod tests {{\n{bare}}}\n");
        for (path, text) in [
            ("crates/a/src/lib.rs", tracked.as_str()),
            ("crates/a/src/lib.rs", &in_a_test),
            ("crates/a/src/a_tests.rs", bare),
            ("crates/a/src/a/tests/fake.rs", bare),
            ("crates/a/tests/a.rs", bare),
            ("crates/telemetry/src/tasks/mod.rs", bare),
            ("xtask/src/main.rs", bare),
        ] {
            assert_eq!(findings(&file(path, text)), [""; 0], "{path}");
        }
    }

    #[test]
    fn finds_long_files_and_leftovers() {
        assert!(findings(&file("a/src/lib.rs", &"//\n".repeat(500))).is_empty());
        assert_eq!(findings(&file("a/src/lib.rs", &"//\n".repeat(501))).len(), 1);
        assert_eq!(findings(&file("a/src/main.rs", &"//\n".repeat(41))).len(), 1);
        assert_eq!(
            findings(&file("a/src/lib.rs", concat!("// TO", "DO: later"))).len(),
            1
        );
        assert_eq!(
            findings(&file("a/src/lib.rs", "static A: OnceLock<u8> = OnceLock::new();")).len(),
            1
        );
    }
}
