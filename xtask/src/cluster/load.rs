//! Brings images of the local Docker engine into the cluster, those that it has already left out.

use crate::{
    process,
    stack::docker::{self, docker},
};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// Runs `command` with the images that this cluster was not yet given. `known` is a file that remembers which it was:
/// lines of the cluster's and the image's id.
///
/// # Errors
/// When an image is not in the local engine, or the command fails.
pub(super) fn changed(command: &str, images: &[String], known: &Path) -> anyhow::Result<()> {
    let cluster = identity()?;
    let mut loaded: BTreeSet<String> = fs::read_to_string(known)
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with(&cluster))
        .map(str::to_owned)
        .collect();
    let mut wanted = Vec::new();
    for image in images {
        let id = docker::said(&mut docker(&["image", "inspect", "--format", "{{.Id}}", image]))
            .with_context(|| format!("{image} is not in the local Docker engine"))?;
        // By name as well: the same content under another name is another image to a cluster.
        if loaded.insert(format!("{cluster} {image} {id}")) {
            wanted.push(image);
        }
    }
    if wanted.is_empty() {
        println!("The cluster has all {} already.", images.len());
        return Ok(());
    }
    let started = Instant::now();
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().context("--load names no command")?);
    program.args(words).args(&wanted).stdin(Stdio::null());
    let status = process::run_to_end(&mut program)?;
    ensure!(status.success(), "{command}: {}", process::ended(status));
    println!(
        "{} images in {:.0} s",
        wanted.len(),
        started.elapsed().as_secs_f32()
    );
    let lines: Vec<_> = loaded.into_iter().collect();
    Ok(fs::write(known, lines.join("\n") + "\n")?)
}

/// What tells this cluster from others, and from those that had its address before.
fn identity() -> anyhow::Result<String> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args([
        "get",
        "namespace",
        "kube-system",
        "--output=jsonpath={.metadata.uid}",
    ]);
    let answer = kubectl
        .stdin(Stdio::null())
        .output()
        .context("starting kubectl")?;
    let (id, complaint) = (
        String::from_utf8_lossy(&answer.stdout),
        String::from_utf8_lossy(&answer.stderr),
    );
    ensure!(
        answer.status.success() && !id.trim().is_empty(),
        "kubectl: {}",
        complaint.trim()
    );
    Ok(id.trim().to_owned())
}
