//! `cargo xtask generate`: files that follow from others.

mod dashboard;
mod grafana;
mod kubernetes;
mod rules;
mod slos;

use crate::{check::Outcome, process::Told, workspace::Workspace};
use anyhow::Context;
use std::{fs, path::Path};

/// Where the objectives stand.
const SLOS: &str = "alerts/slos.yaml";
const REMEDY: &str = "`cargo xtask generate` writes it anew";
/// Lines that a difference is shown with.
const SHOWN: usize = 5;

/// Writes the SLOs' rules and dashboard from `alerts/slos.yaml`, and what watches the services on Kubernetes from the
/// files that compose uses.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only say what is not as it would be written
    #[arg(long)]
    check: bool,
}

/// A file and what is to be in it.
struct Generated {
    /// Relative to the clone.
    path: String,
    text: String,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let files = generate(&workspace.root)?;
    if args.check {
        let findings = findings(&workspace.root, &files)?;
        findings.iter().for_each(|finding| eprintln!("{finding}"));
        return if findings.is_empty() {
            Ok(())
        } else {
            Err(Told(1).into())
        };
    }
    for path in stale(&workspace.root, &files)? {
        fs::remove_file(workspace.root.join(&path)).with_context(|| format!("removing {path}"))?;
        println!("{path} is removed: nothing generates it");
    }
    for file in &files {
        let path = workspace.root.join(&file.path);
        if fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            println!("{} is up to date", file.path);
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(&path, &file.text).with_context(|| format!("writing {}", path.display()))?;
        println!("{} is written", file.path);
    }
    Ok(())
}

/// Runs the step of `cargo xtask check`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let files = generate(&workspace.root)?;
    Ok(Outcome::from_findings(&findings(&workspace.root, &files)?))
}

fn generate(root: &Path) -> anyhow::Result<Vec<Generated>> {
    let text = fs::read_to_string(root.join(SLOS)).with_context(|| format!("reading {SLOS}"))?;
    let slos = slos::parse(&text).context(SLOS)?;
    let mut files = vec![
        Generated {
            path: "alerts/slo.rules.yml".to_owned(),
            text: rules::render(&slos)?,
        },
        Generated {
            path: "dashboards/slo.json".to_owned(),
            text: dashboard::render(&slos)?,
        },
    ];
    files.extend(kubernetes::render(root, &files)?);
    Ok(files)
}

fn findings(root: &Path, files: &[Generated]) -> anyhow::Result<Vec<String>> {
    let differs = |file: &Generated| match fs::read_to_string(root.join(&file.path)) {
        Ok(text) => difference(&text, &file.text).map(|what| format!("{}: {what}; {REMEDY}", file.path)),
        Err(error) => Some(format!("{}: {error}; {REMEDY}", file.path)),
    };
    let stale = stale(root, files)?.into_iter();
    let stale = stale.map(|path| format!("{path}: nothing generates it; `cargo xtask generate` removes it"));
    Ok(files.iter().filter_map(differs).chain(stale).collect())
}

/// What stands in a folder that is generated whole and is not generated.
fn stale(root: &Path, files: &[Generated]) -> anyhow::Result<Vec<String>> {
    let mut stale = Vec::new();
    for folder in kubernetes::FOLDERS {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let path = format!("{folder}/{}", entry?.file_name().to_string_lossy());
            if !files.iter().any(|file| file.path == path) {
                stale.push(path);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

/// Where two texts part, in a few lines of each.
fn difference(found: &str, wanted: &str) -> Option<String> {
    if found == wanted {
        return None;
    }
    let (found, wanted): (Vec<&str>, Vec<&str>) = (found.lines().collect(), wanted.lines().collect());
    let same = found.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    let ends = found.iter().rev().zip(wanted.iter().rev());
    let rest = found.len().min(wanted.len()) - same;
    let same_end = ends.take_while(|(a, b)| a == b).count().min(rest);
    let shown = |sign: char, lines: &[&str]| {
        let changed = &lines[same..lines.len() - same_end];
        let more = changed.len().saturating_sub(SHOWN);
        let lines = changed
            .iter()
            .take(SHOWN)
            .map(|line| format!("\n  {sign} {line}"));
        let more = (more > 0).then(|| format!("\n  {sign} … and {more} lines more"));
        lines.chain(more).collect::<String>()
    };
    let (is, should) = (shown('-', &found), shown('+', &wanted));
    Some(format!("line {} on is not as generated{is}{should}\n ", same + 1))
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_is_told_by_its_place_and_both_sides() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        let told = difference("a\nb\nc\n", "a\nx\ny\nc\n").expect("they differ");
        assert_eq!(told, "line 2 on is not as generated\n  - b\n  + x\n  + y\n ");
        let long = (1..=9).map(|n| format!("{n}\n")).collect::<String>();
        let told = difference("", &long).expect("they differ");
        assert!(told.contains("+ 5\n  + … and 4 lines more"), "{told}");
    }
}
