//! The `docker` program: whether it is there, and its answers.

use crate::process;
use anyhow::{Context, bail, ensure};
use std::{
    net::Ipv4Addr,
    process::{Command, Output, Stdio},
};

/// Which builder `docker build` has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builder {
    /// BuildKit, by the buildx plugin.
    BuildKit,
    /// The engine's own, where the plugin is not installed.
    Classic,
}

/// Makes sure that an engine answers.
///
/// # Errors
/// Says what is missing and how to get it.
pub(crate) fn ensure_engine() -> anyhow::Result<()> {
    ensure!(
        process::on_path("docker").is_some(),
        "Docker is not installed (on Debian: apt-get install docker.io). Without it, `cargo xtask dev` runs the services on this host"
    );
    let answer = docker(&["version", "--format", "{{.Server.Version}}"]).output()?;
    ensure!(
        answer.status.success(),
        "the Docker engine does not answer: {}",
        complaint(&answer)
    );
    Ok(())
}

/// Makes sure that `docker compose` is there: version 2 or later.
///
/// # Errors
/// Says how to get it.
pub(crate) fn ensure_compose() -> anyhow::Result<()> {
    ensure_engine()?;
    // Version 1 was a program of its own: who answers here is new enough.
    let answer = docker(&["compose", "version"]).output()?;
    ensure!(
        answer.status.success(),
        "`docker compose` (version 2) is not installed: it is the package docker-compose-plugin (Docker's) or \
         docker-compose-v2 (Ubuntu's), see https://docs.docker.com/compose/install/"
    );
    Ok(())
}

/// Which builder there is.
pub(crate) fn builder() -> Builder {
    let found = docker(&["buildx", "version"]).output();
    if found.is_ok_and(|answer| answer.status.success()) {
        Builder::BuildKit
    } else {
        Builder::Classic
    }
}

/// A `docker` command that reads nothing.
pub(crate) fn docker(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null());
    command
}

/// What a command prints, trimmed.
///
/// # Errors
/// What it complains about, when it fails.
pub(crate) fn said(command: &mut Command) -> anyhow::Result<String> {
    let answer = command.output().context("starting docker")?;
    if answer.status.success() {
        return Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned());
    }
    let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    bail!("`docker {}` failed: {}", words.join(" "), complaint(&answer))
}

fn complaint(answer: &Output) -> String {
    String::from_utf8_lossy(&answer.stderr).trim().to_owned()
}

/// The address by which containers reach this host: `host-gateway` in compose files. It is the gateway of the engine's
/// default network, which is its first address where the network does not say.
///
/// # Errors
/// When that network has no IPv4.
pub(crate) fn gateway() -> anyhow::Result<Ipv4Addr> {
    let template = "{{range .IPAM.Config}}{{.Gateway}} {{.Subnet}} {{end}}";
    let told = said(&mut docker(&[
        "network", "inspect", "bridge", "--format", template,
    ]))?;
    gateway_of(&told).with_context(|| format!("Docker's network `bridge` has no IPv4 gateway: {told}"))
}

fn gateway_of(told: &str) -> Option<Ipv4Addr> {
    let mut words = told.split_whitespace();
    words.find_map(|word| match word.split_once('/') {
        None => word.parse().ok(),
        Some((network, _)) => {
            let network: Ipv4Addr = network.parse().ok()?;
            Some(Ipv4Addr::from_bits(network.to_bits() + 1))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_told_or_the_first_address() {
        let gateway = Some(Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(gateway_of("172.17.0.1 172.17.0.0/16 "), gateway);
        assert_eq!(gateway_of("172.17.0.0/16"), gateway);
        assert_eq!(gateway_of("fd00::1 fd00::/64"), None);
    }
}
