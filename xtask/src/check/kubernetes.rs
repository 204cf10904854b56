//! The manifests in `deploy/kubernetes`: `kubernetes-check` renders them with kubectl and looks at what comes out.

use super::{Outcome, finish};
use crate::workspace::Workspace;
use serde::Deserialize;
use std::process::Command;

/// The first kubectl whose kustomize renders our components.
const OLDEST: (u32, u32) = (1, 27);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: Version,
}

#[derive(Deserialize)]
struct Version {
    major: String,
    minor: String,
}

/// Runs the step.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if !found() {
        let (major, minor) = OLDEST;
        return Ok(Outcome::Partly(format!(
            "kubectl {major}.{minor} or newer is not installed, which renders the manifests"
        )));
    }
    workspace.build(false)?;
    let mut command = Command::new(workspace.bin(false, "kubernetes-check")?);
    command.current_dir(&workspace.root);
    finish(&mut command, "see above")
}

/// Whether there is a kubectl that is new enough.
fn found() -> bool {
    let output = Command::new("kubectl")
        .args(["version", "--client", "--output", "json"])
        .output();
    output.is_ok_and(|output| output.status.success() && is_new_enough(&output.stdout))
}

fn is_new_enough(told: &[u8]) -> bool {
    // Some print `32+`.
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
    serde_json::from_slice::<Versions>(told).is_ok_and(|Versions { client_version }| {
        let version = number(&client_version.major).zip(number(&client_version.minor));
        version.is_some_and(|version| version >= OLDEST)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kubectls_are_not_used() {
        let told =
            |minor: &str| format!(r#"{{"clientVersion": {{"major": "1", "minor": "{minor}", "x": 1}}}}"#);
        for (minor, used) in [
            ("26", false),
            ("27", true),
            ("32", true),
            ("32+", true),
            ("", false),
        ] {
            assert_eq!(is_new_enough(told(minor).as_bytes()), used, "{minor}");
        }
    }
}
