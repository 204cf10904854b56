//! What `Dockerfile.prebuilt` copies: a folder for each service, laid out as in the image.

use super::{Provenance, SERVICES};
use crate::{
    process, servers,
    stack::{
        Variables,
        docker::{self, docker},
    },
    workspace::Workspace,
};
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

/// Mozilla's root certificates, as Debian and most others keep them.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// For a volume: the SQLite database, log files.
const DATA: &str = "data";

/// A build context.
pub(super) struct Context {
    /// Its folder.
    pub(super) dir: PathBuf,
}

impl Context {
    /// Makes it anew. Every file and folder gets a fixed mode and the time of the last commit, so that the same
    /// binaries make the same layers.
    pub(super) fn lay_out(
        workspace: &Workspace,
        release: bool,
        variables: &Variables,
        provenance: &Provenance,
    ) -> anyhow::Result<Self> {
        let dir = workspace.target.join("images");
        servers::remove(&dir)?;
        let base = variables.get("RUNTIME_IMAGE");
        let certified = has(base, CERTIFICATES)?;
        for service in SERVICES {
            let root = dir.join(service);
            let bin = root.join("usr/local/bin");
            fs::create_dir_all(&bin)?;
            fs::create_dir_all(root.join(DATA))?;
            strip(&workspace.bin(release, service)?, &bin.join(service))?;
            if !certified {
                certificates(&root, base)?;
            }
        }
        level(
            &dir,
            SystemTime::UNIX_EPOCH + Duration::from_secs(provenance.epoch),
        )?;
        Ok(Self { dir })
    }
}

/// Copies a binary without its line tables, which are most of it. Function names stay: profiles and backtraces need
/// them. Without binutils it is copied as it is.
pub(crate) fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    if process::on_path("objcopy").is_none() {
        println!("objcopy (binutils) is not installed: the images will be larger than need be");
        fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
        return Ok(());
    }
    let mut command = Command::new("objcopy");
    command.arg("--strip-debug").arg(from).arg(to);
    let status = process::run_to_end(&mut command)?;
    ensure!(status.success(), "objcopy failed for {}", from.display());
    Ok(())
}

/// This host's certificates, for a base that has none: without them no HTTPS call of a tool would succeed.
fn certificates(root: &Path, base: &str) -> anyhow::Result<()> {
    let own = Path::new("/").join(CERTIFICATES);
    ensure!(
        own.is_file(),
        "neither {base} nor this host has {}: install ca-certificates, or take another RUNTIME_IMAGE",
        own.display()
    );
    let to = root.join(CERTIFICATES);
    fs::create_dir_all(to.parent().unwrap_or(root))?;
    fs::copy(own, to)?;
    Ok(())
}

/// Whether an image holds a file; asked without running it, since it may have no shell.
fn has(image: &str, file: &str) -> anyhow::Result<bool> {
    let container = docker::said(&mut docker(&["create", image, "none"])).with_context(|| {
        format!(
            "the base image {image} cannot be had; RUNTIME_IMAGE names another, for example in --images-env"
        )
    })?;
    let mut copy = docker(&["cp", &format!("{container}:/{file}"), "-"]);
    let found = copy
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success();
    docker::said(&mut docker(&["rm", &container]))?;
    Ok(found)
}

fn level(path: &Path, time: SystemTime) -> anyhow::Result<()> {
    let file = File::open(path)?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            level(&entry?.path(), time)?;
        }
    }
    let mode = if path.ends_with(DATA) {
        0o1777 // for any user that the image may be run as
    } else if path.ends_with(CERTIFICATES) {
        0o644
    } else {
        0o755
    };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    // Last: making entries in a folder has set its time.
    file.set_modified(time)
        .with_context(|| format!("setting the time of {}", path.display()))
}
