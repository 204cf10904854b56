//! The API keys of a stack: one to try it with, and the one that Alertmanager opens incidents with.

use super::compose::Compose;
use crate::{
    dev::{self, EnvFile},
    http,
};
use anyhow::Context;
use std::{fs, path::Path};

/// The secret that holds the key for incidents.
pub(super) const INCIDENTS: &str = "incidents_api_key";
/// What opens an incident and has its cause looked for.
const PAGE: &str = "alerts:receive,observe:read,platform:observe";

/// Gives the key of a former start while it works and has every scope, else a new one.
pub(super) fn api_key(compose: &Compose, env_file: &Path) -> anyhow::Result<String> {
    let rest = compose.variables.url("REST_API_PORT");
    let former = EnvFile::of(env_file).read().unwrap_or_default();
    let kept = |wanted: &str| {
        let mut pairs = former.iter();
        pairs.find_map(|(name, value)| (name == wanted).then_some(value))
    };
    if kept("COMPOSE_PROJECT") == Some(&compose.project)
        && let Some(key) = kept("API_KEY")
        && dev::has_every_scope(&rest, key)
    {
        return Ok(key.clone());
    }
    make(compose, "dev", "all")
}

/// Has Alertmanager tell these services of alerts, unless its key works or it tells others. It reads the key anew for each
/// notification.
pub(super) fn incidents(compose: &Compose) -> anyhow::Result<()> {
    let rest = compose.variables.url("REST_API_PORT");
    let known = http::status(
        &format!("{rest}/api/v1/incidents?limit=1"),
        Some(&compose.secret(INCIDENTS)?),
    );
    if known != Some(401) || !compose.secret("incidents_url")?.starts_with("http://rest-api:") {
        return Ok(());
    }
    let path = compose.secrets().join(INCIDENTS);
    let key = make(compose, "alertmanager", PAGE)?;
    // In place, for it is mounted.
    fs::write(&path, key).with_context(|| format!("writing {}", path.display()))
}

fn make(compose: &Compose, name: &str, scopes: &str) -> anyhow::Result<String> {
    dev::make_key(name, scopes, || {
        let mut command = compose.command();
        command.args(["exec", "--no-TTY", "rest-api", "/usr/local/bin/rest-api"]);
        command
    })
}
