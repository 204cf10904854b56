//! `cargo xtask images`: the services' container images.
//!
//! Quick: binaries built on this host, put on the runtime's base image. From source: the multi-stage Dockerfile, which
//! needs nothing of this host but Docker. Both give the same images.

mod context;
mod provenance;

use crate::{
    process,
    stack::{
        Variables,
        docker::{self, Builder, docker},
    },
    workspace::Workspace,
};
use anyhow::{Context as _, bail, ensure};
use context::Context;
pub(crate) use context::strip;
use provenance::Provenance;
use std::{path::PathBuf, process::Command, time::Instant};

/// The services that have an image.
pub(crate) const SERVICES: [&str; 3] = ["rest-api", "mcp-server", "worker"];

/// Builds the container images of the three services.
///
/// Their names and the images that they are built on are variables of deploy/.env (REST_API_IMAGE, RUNTIME_IMAGE …);
/// the environment and --images-env win over it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How the binaries are compiled
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// Compile in a container instead of on this host
    #[arg(long)]
    from_source: bool,
    /// Another tag than that of the images' names
    #[arg(long)]
    tag: Option<String>,
    /// More variables: image names from a mirror, or of another base
    #[arg(long, value_name = "FILE")]
    images_env: Option<PathBuf>,
}

/// A build profile.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Compiled in a third of the time
    Dev,
    /// Optimised
    Release,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let mut variables = Variables::load(&workspace, args.images_env.as_deref())?;
    if let Some(tag) = &args.tag {
        for service in SERVICES {
            let name = tagged(variables.get(&variable(service)), tag);
            variables.set(&variable(service), &name);
        }
    }
    docker::ensure_engine()?;
    if args.from_source {
        from_source(&workspace, args.profile, &variables)
    } else {
        from_host(&workspace, args.profile, &variables)
    }
}

/// Builds the images from binaries of this host.
///
/// # Errors
/// What failed: the compiler, the base image, `docker build`, or the binaries not running on the base.
pub(crate) fn from_host(
    workspace: &Workspace,
    profile: Profile,
    variables: &Variables,
) -> anyhow::Result<()> {
    workspace.build(profile == Profile::Release)?;
    let provenance = Provenance::of(workspace)?;
    let context = Context::lay_out(workspace, profile == Profile::Release, variables, &provenance)?;
    for service in SERVICES {
        let started = Instant::now();
        let mut build = build(service, variables, &provenance);
        build
            .arg("--quiet")
            .arg("--file")
            .arg(workspace.root.join("deploy/docker/Dockerfile.prebuilt"));
        docker::said(build.arg(&context.dir))?;
        runs(service, variables)?;
        tell(service, variables, started)?;
    }
    Ok(())
}

fn from_source(workspace: &Workspace, profile: Profile, variables: &Variables) -> anyhow::Result<()> {
    let provenance = Provenance::of(workspace)?;
    for service in SERVICES {
        println!("── {service}");
        let started = Instant::now();
        let mut build = build(service, variables, &provenance);
        build
            .arg("--build-arg")
            .arg(format!("BUILDER_IMAGE={}", variables.get("BUILDER_IMAGE")))
            .arg("--build-arg")
            .arg(format!("PROFILE={}", profile.name()))
            .arg("--file")
            .arg(workspace.root.join("deploy/docker/Dockerfile"))
            .arg(&workspace.root);
        // Its own output is the progress: it compiles for minutes, for the first of the three.
        let status = process::run_to_end(&mut build)?;
        ensure!(status.success(), "building {service} failed (see above)");
        runs(service, variables)?;
        tell(service, variables, started)?;
    }
    Ok(())
}

/// `docker build` with everything but the Dockerfile and its context.
fn build(service: &str, variables: &Variables, provenance: &Provenance) -> Command {
    let mut command = docker(&["build", "--target", service, "--tag"]);
    command.arg(variables.get(&variable(service)));
    let mut arguments = provenance.arguments();
    arguments.push(("RUNTIME_IMAGE", variables.get("RUNTIME_IMAGE").to_owned()));
    match docker::builder() {
        // It takes the times of what it makes from this; the classic builder takes those of the context's files.
        Builder::BuildKit => arguments.push(("SOURCE_DATE_EPOCH", provenance.epoch.to_string())),
        Builder::Classic => {
            command.env("DOCKER_BUILDKIT", "0");
        }
    }
    for (name, value) in arguments {
        command.arg("--build-arg").arg(format!("{name}={value}"));
    }
    command
}

/// Makes sure that the binary runs on the base that it was put on.
fn runs(service: &str, variables: &Variables) -> anyhow::Result<()> {
    let image = variables.get(&variable(service));
    let answer = docker(&["run", "--rm", "--network=none", "--read-only", image, "--version"]).output()?;
    if answer.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&answer.stderr);
    let base = variables.get("RUNTIME_IMAGE");
    let remedy = if complaint.contains("GLIBC") || complaint.contains("no such file") {
        "The binary needs a newer C library than the base image has. Take a base as new as this host \
         (RUNTIME_IMAGE=debian:trixie-slim), or compile in a container: cargo xtask images --from-source"
    } else {
        "`docker run` shows more"
    };
    bail!("{image} does not run on {base}: {}\n{remedy}", complaint.trim())
}

fn tell(service: &str, variables: &Variables, started: Instant) -> anyhow::Result<()> {
    let image = variables.get(&variable(service));
    let size = docker::said(&mut docker(&["image", "inspect", "--format", "{{.Size}}", image]))?;
    let bytes: u64 = size.parse().context("the size that docker told")?;
    let base = docker::said(&mut docker(&[
        "image",
        "inspect",
        "--format",
        "{{.Size}}",
        variables.get("RUNTIME_IMAGE"),
    ]));
    let own = base
        .ok()
        .and_then(|base| base.parse::<u64>().ok())
        .map(|base| format!(", {} MB of it ours", bytes.saturating_sub(base) / 1_000_000))
        .unwrap_or_default();
    println!(
        "{image}: {} MB{own}, in {:.0} s",
        bytes / 1_000_000,
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

/// The variable that names a service's image.
pub(crate) fn variable(service: &str) -> String {
    format!("{}_IMAGE", service.to_uppercase().replace('-', "_"))
}

/// An image's name with another tag: a registry's port is not one.
fn tagged(image: &str, tag: &str) -> String {
    let tag_at = image
        .rfind(':')
        .filter(|colon| !image[*colon..].contains('/'))
        .unwrap_or(image.len());
    format!("{}:{tag}", &image[..tag_at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_replaced_and_a_port_is_not() {
        assert_eq!(tagged("devops-mcp/worker:0.1.0", "x"), "devops-mcp/worker:x");
        assert_eq!(
            tagged("mirror:5000/devops-mcp/worker", "x"),
            "mirror:5000/devops-mcp/worker:x"
        );
        assert_eq!(variable("mcp-server"), "MCP_SERVER_IMAGE");
    }
}
