//! The API key to try the stack with.

use super::compose::Compose;
use crate::{
    dev::{self, EnvFile},
    http,
};
use std::path::Path;

/// Gives the key of a former start while it works, else a new one.
pub(super) fn api_key(compose: &Compose, env_file: &Path) -> anyhow::Result<String> {
    let rest = compose.variables.url("REST_API_PORT");
    let former = EnvFile::of(env_file).read().unwrap_or_default();
    let kept = |wanted: &str| {
        let mut pairs = former.iter();
        pairs.find_map(|(name, value)| (name == wanted).then_some(value))
    };
    if kept("COMPOSE_PROJECT") == Some(&compose.project)
        && let Some(key) = kept("API_KEY")
        && http::status(&format!("{rest}/api/v1/contexts?limit=1"), Some(key)) == Some(200)
    {
        return Ok(key.clone());
    }
    dev::make_key(|| {
        let mut command = compose.command();
        command.args(["exec", "--no-TTY", "rest-api", "/usr/local/bin/rest-api"]);
        command
    })
}
