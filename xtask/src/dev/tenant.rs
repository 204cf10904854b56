//! The tenant `dev` and its API key, made with rest-api's own commands.

use super::{plan::Unit, secrets::Secrets};
use crate::http;
use anyhow::{Context, bail};
use serde_json::Value;
use std::process::Command;

const TENANT: &str = "dev";
/// What a key with every scope may ask, and one that an earlier version made with all of its scopes may not.
const PROBE: &str = "/api/v1/audit?limit=1";

/// Gives the API key of a former run while it works and has every scope, else a new one.
pub(super) fn api_key(
    rest_api: &Unit,
    rest_url: &str,
    database: &str,
    secrets: &mut Secrets,
) -> anyhow::Result<String> {
    if let Some(key) = secrets.api_key(database)
        && has_every_scope(rest_url, key)
    {
        return Ok(key.to_owned());
    }
    let key = make_key("dev", "all", || rest_api.command())?;
    secrets.keep_api_key(database, &key)?;
    Ok(key)
}

/// Whether a key that was kept works, and may do all that this version knows.
pub(crate) fn has_every_scope(rest_url: &str, key: &str) -> bool {
    http::status(&format!("{rest_url}{PROBE}"), Some(key)) == Some(200)
}

/// Makes the tenant, and a key of it with these scopes; `rest_api` starts rest-api's command line.
pub(crate) fn make_key(name: &str, scopes: &str, rest_api: impl Fn() -> Command) -> anyhow::Result<String> {
    said(rest_api().args(["tenants", "create", TENANT, "--if-missing"]))?;
    let args = [
        "keys", "create", "--tenant", TENANT, "--name", name, "--scopes", scopes, "--json",
    ];
    let answer: Value =
        serde_json::from_str(&said(rest_api().args(args))?).context("what `keys create` printed")?;
    let key = answer["secret"]
        .as_str()
        .context("`keys create` printed no secret")?;
    Ok(key.to_owned())
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().context("starting rest-api")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!(
        "`rest-api {}` failed: {} {}",
        words.join(" "),
        stderr.trim(),
        stdout.trim()
    )
}
