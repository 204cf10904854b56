//! Where things are: the clone, the target directory, cargo and the built binaries.

use crate::process;
use anyhow::{Context, ensure};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// What nested cargos must not inherit from the `cargo run` that started this program: build scripts that
/// watch such variables would run again each time, and with them everything above them.
const INHERITED: [&str; 6] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_CRATE_",
    "CARGO_BIN_",
    "CARGO_PRIMARY_",
    "CARGO_FEATURE_",
];

/// The clone that this program was started in.
#[derive(Clone)]
pub(crate) struct Workspace {
    /// The directory of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// `CARGO_TARGET_DIR`, or `target` in the clone.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the clone: as `cargo run` tells it, else from the current directory upwards.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let is_root = |dir: &&Path| dir.join("Cargo.toml").is_file() && dir.join("xtask").is_dir();
        // Read when run, not when compiled: clones may share a target directory and so this binary.
        let start = env::var_os("CARGO_MANIFEST_DIR").map_or_else(env::current_dir, |dir| Ok(dir.into()))?;
        let root = start
            .ancestors()
            .find(is_root)
            .with_context(|| format!("{} is not inside the workspace", start.display()))?
            .to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
        let target = match target {
            Some(dir) => env::current_dir()?.join(dir),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// A cargo of the workspace's toolchain, run in the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        for (name, _) in env::vars_os() {
            if INHERITED
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                cargo.env_remove(name);
            }
        }
        cargo
    }

    /// Builds every binary of the workspace, progress visible.
    ///
    /// Always all of them: building one package alone would unify features otherwise and compile the
    /// dependencies a second time.
    pub(crate) fn build(&self, release: bool) -> anyhow::Result<()> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--workspace", "--bins"]);
        if release {
            cargo.arg("--release");
        }
        let status = process::run_to_end(&mut cargo)?;
        ensure!(status.success(), "the build failed (see above)");
        Ok(())
    }

    /// The directory that [`build`](Self::build) puts the binaries in.
    pub(crate) fn bin_dir(&self, release: bool) -> PathBuf {
        self.target.join(if release { "release" } else { "debug" })
    }

    /// A built binary; an error says how to get it.
    pub(crate) fn bin(&self, release: bool, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.bin_dir(release).join(name);
        ensure!(
            path.is_file(),
            "the workspace builds no binary `{name}`: {} is missing",
            path.display()
        );
        Ok(path)
    }

    /// A path as a person would type it: relative to the clone where that is shorter.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}
