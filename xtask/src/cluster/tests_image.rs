//! The image of what tests run inside of the cluster.

use crate::{
    images, servers,
    stack::{
        Variables,
        docker::{self, Builder, docker},
    },
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

/// Its name.
pub(super) const NAME: &str = "devops-mcp/tests:0.1.0";
/// The crate's programs in it, and its compiled end-to-end tests.
const PROGRAMS: [&str; 2] = ["cluster", "integration"];
const TESTS: &str = "e2e";

/// Builds it on rest-api's image, from binaries of this host.
///
/// # Errors
/// What failed: the compiler, or `docker build`.
pub(super) fn build(workspace: &Workspace, work: &Path, variables: &Variables) -> anyhow::Result<()> {
    let context = work.join("image");
    let bin = context.join("bin");
    servers::remove(&context)?;
    fs::create_dir_all(&bin)?;
    for program in PROGRAMS {
        images::strip(&workspace.bin(false, program)?, &bin.join(program))?;
    }
    images::strip(&compiled(workspace)?, &bin.join(TESTS))?;
    let mut build = docker(&["build", "--quiet", "--tag", NAME, "--file"]);
    build.arg(workspace.root.join("deploy/docker/Dockerfile.tests"));
    let base = variables.get(&images::variable("rest-api"));
    build.arg("--build-arg").arg(format!("REST_API_IMAGE={base}"));
    if docker::builder() == Builder::Classic {
        build.env("DOCKER_BUILDKIT", "0");
    }
    docker::said(build.arg(&context))?;
    println!("{NAME}");
    Ok(())
}

/// The executable of the end-to-end tests, which cargo compiles and tells of.
fn compiled(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--test", TESTS, "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "compiling the tests failed (see above)");
    let told = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| -> Option<PathBuf> {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["name"] == TESTS && message["target"]["kind"][0] == "test";
        is_test.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    told.lines()
        .find_map(executable)
        .context("cargo told of no executable of the end-to-end tests")
}
