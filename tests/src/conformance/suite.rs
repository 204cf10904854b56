//! The official suite itself: a Node program, run against a server and read back from the files that it writes.

use crate::{Era, Json};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

const VERSION: &str = "0.2.0-alpha.12";
/// How long the suite may take for one revision.
const RUN: Duration = Duration::from_secs(600);
/// How long its installation may take.
const INSTALL: Duration = Duration::from_secs(180);
/// What ends the name of a scenario's directory: `-2026-11-22T17-22-40-593Z`.
const TIMESTAMP: usize = 25;

/// The server scenarios that are scored for revision 2025-11-25.
pub const LEGACY: [&str; 30] = [
    "completion-complete",
    "dns-rebinding-protection",
    "elicitation-sep1034-defaults",
    "elicitation-sep1330-enums",
    "logging-set-level",
    "ping",
    "prompts-get-embedded-resource",
    "prompts-get-simple",
    "prompts-get-with-args",
    "prompts-get-with-image",
    "prompts-list",
    "resources-list",
    "resources-read-binary",
    "resources-read-text",
    "resources-subscribe",
    "resources-templates-read",
    "resources-unsubscribe",
    "server-initialize",
    "server-sse-multiple-streams",
    "tools-call-audio",
    "tools-call-elicitation",
    "tools-call-embedded-resource",
    "tools-call-error",
    "tools-call-image",
    "tools-call-mixed-content",
    "tools-call-sampling",
    "tools-call-simple-text",
    "tools-call-with-logging",
    "tools-call-with-progress",
    "tools-list",
];

/// The server scenarios that are scored for revision 2026-07-28.
pub const MODERN: [&str; 37] = [
    "caching",
    "completion-complete",
    "dns-rebinding-protection",
    "input-required-result-basic-elicitation",
    "input-required-result-basic-list-roots",
    "input-required-result-basic-sampling",
    "input-required-result-capability-check",
    "input-required-result-ignore-extra-params",
    "input-required-result-missing-input-response",
    "input-required-result-multi-round",
    "input-required-result-multiple-input-requests",
    "input-required-result-non-tool-request",
    "input-required-result-request-state",
    "input-required-result-result-type",
    "input-required-result-tampered-state",
    "input-required-result-unsupported-methods",
    "input-required-result-validate-input",
    "prompts-get-embedded-resource",
    "prompts-get-simple",
    "prompts-get-with-args",
    "prompts-get-with-image",
    "prompts-list",
    "resources-list",
    "resources-read-binary",
    "resources-read-text",
    "resources-templates-read",
    "sep-2164-resource-not-found",
    "server-sse-multiple-streams",
    "server-stateless",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-error",
    "tools-call-image",
    "tools-call-mixed-content",
    "tools-call-simple-text",
    "tools-call-with-progress",
    "tools-list",
];

/// The installed suite.
pub struct Suite {
    node: PathBuf,
    program: PathBuf,
}

impl Suite {
    /// The one in the directory that `CONFORMANCE_DIR` names, else one below the target directory, where npm installs
    /// it when it is not there yet.
    ///
    /// # Errors
    /// When there is none, with the reason.
    pub async fn find() -> anyhow::Result<Self> {
        if let Some(directory) = env::var_os("CONFORMANCE_DIR") {
            let directory = PathBuf::from(directory);
            return Self::of(&directory)
                .with_context(|| format!("CONFORMANCE_DIR={} does not hold it", directory.display()));
        }
        let executable = env::current_exe()?;
        let target = executable.ancestors().nth(3).context("no target directory")?;
        let directory = target.join(format!("conformance-{VERSION}"));
        if let Some(suite) = Self::of(&directory) {
            return Ok(suite);
        }
        let installed = install(&directory).await;
        // Another process may have been faster.
        match Self::of(&directory) {
            Some(suite) => Ok(suite),
            None => Err(installed.err().context("npm installed something else")?),
        }
    }

    fn of(directory: &Path) -> Option<Self> {
        let modules = directory.join("node_modules");
        let suite = Self {
            node: modules.join("node/bin/node"),
            program: modules.join("@modelcontextprotocol/conformance/dist/index.js"),
        };
        (suite.node.is_file() && suite.program.is_file()).then_some(suite)
    }

    /// Runs what is required of servers at `era`'s revision against `url`. The suite's files go to `output`.
    ///
    /// # Errors
    /// When the suite does not run, or not to its end within ten minutes.
    pub async fn run(&self, url: &str, era: Era, output: &Path) -> anyhow::Result<Report> {
        fs::create_dir_all(output)?;
        let mut command = Command::new(&self.node);
        command
            .arg(&self.program)
            .args(["server", "--url", url, "--requirements", era.version()])
            .arg("--output-dir")
            .arg(output)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // It ends with an error when any scenario fails, scored or not: what it found is read from its files.
        let ended = timeout(RUN, command.output()).await;
        let ended = ended.with_context(|| format!("the suite took longer than {RUN:?}"))??;
        let report = Report::read(output)?;
        ensure!(
            !report.scenarios.is_empty(),
            "the suite ran nothing: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
        Ok(report)
    }
}

/// Installs beside `directory` and then moves there, so that what stands there is whole.
async fn install(directory: &Path) -> anyhow::Result<()> {
    let mut unfinished = directory.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    fs::create_dir_all(&unfinished)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"])
        .arg(&unfinished)
        .args(["node@22", &format!("@modelcontextprotocol/conformance@{VERSION}")])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = timeout(INSTALL, npm.output()).await;
    let done = match ended {
        Err(_) => Err(anyhow::anyhow!("npm took longer than {INSTALL:?}")),
        Ok(Err(error)) => Err(anyhow::anyhow!("npm (of Node 22) cannot be run: {error}")),
        Ok(Ok(ended)) if !ended.status.success() => {
            Err(anyhow::anyhow!("npm: {}", String::from_utf8_lossy(&ended.stderr)))
        }
        Ok(Ok(_)) => fs::rename(&unfinished, directory).context("moving what npm installed"),
    };
    if done.is_err() {
        // What is left of it is of no use.
        let _ = fs::remove_dir_all(&unfinished);
    }
    done
}

/// What the suite found.
pub struct Report {
    scenarios: BTreeMap<String, Scenario>,
}

/// One scenario's checks: id, status and what was wrong.
#[derive(Default)]
pub struct Scenario(Vec<(String, String, String)>);

impl Scenario {
    /// Whether something succeeded and nothing failed. Warnings are failures here: the suite lets many a scenario pass
    /// with nothing but a warning when the server does not have what it asks for.
    pub fn passed(&self) -> bool {
        let any = |statuses: &[&str]| self.0.iter().any(|(_, status, _)| statuses.contains(&&**status));
        any(&["SUCCESS"]) && !any(&["FAILURE", "WARNING"])
    }

    /// What was wrong, one line a check.
    pub fn faults(&self) -> String {
        let faults = self.0.iter().filter(|(_, status, _)| status != "SUCCESS");
        let lines = faults.map(|(id, status, message)| format!("\n    {status} {id}: {message}"));
        lines.collect()
    }
}

impl Report {
    fn read(output: &Path) -> anyhow::Result<Self> {
        let mut scenarios = BTreeMap::<String, Scenario>::new();
        for entry in fs::read_dir(output)? {
            let entry = entry?;
            let directory = entry.file_name().to_string_lossy().into_owned();
            let name = directory.strip_prefix("server-").unwrap_or(&directory);
            let name = &name[..name.len().saturating_sub(TIMESTAMP)];
            let checks: Json = serde_json::from_slice(&fs::read(entry.path().join("checks.json"))?)?;
            let text = |check: &Json, member: &str| check[member].as_str().unwrap_or_default().to_owned();
            let checks = checks.as_array().into_iter().flatten();
            let checks = checks.map(|c| (text(c, "id"), text(c, "status"), text(c, "errorMessage")));
            scenarios.entry(name.to_owned()).or_default().0.extend(checks);
        }
        Ok(Self { scenarios })
    }

    /// Holds the server to the `scored` scenarios; gives the others, for a note.
    ///
    /// # Errors
    /// When one of them failed or did not run, with what was wrong.
    pub fn require(&self, scored: &[&str]) -> anyhow::Result<Vec<(&str, &Scenario)>> {
        let mut wrong = String::new();
        for name in scored {
            match self.scenarios.get(*name) {
                Some(scenario) if scenario.passed() => {}
                Some(scenario) => wrong += &format!("\n  {name}{}", scenario.faults()),
                None => wrong += &format!("\n  {name} did not run"),
            }
        }
        ensure!(wrong.is_empty(), "scored scenarios failed:{wrong}");
        let others = self
            .scenarios
            .iter()
            .filter(|(name, _)| !scored.contains(&name.as_str()));
        Ok(others.map(|(name, scenario)| (name.as_str(), scenario)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_without_a_warning_counts() {
        let scenario = |statuses: &[&str]| {
            let check = |status: &&str| ("id".to_owned(), (*status).to_owned(), "why".to_owned());
            Scenario(statuses.iter().map(check).collect())
        };
        assert!(scenario(&["SUCCESS", "INFO"]).passed());
        for statuses in [
            &[][..],
            &["INFO"],
            &["SKIPPED"],
            &["SUCCESS", "WARNING"],
            &["FAILURE", "SUCCESS"],
        ] {
            assert!(!scenario(statuses).passed(), "{statuses:?}");
        }
        let scenarios = [("good", &["SUCCESS"][..]), ("bad", &["SUCCESS", "FAILURE"])];
        let scenarios = scenarios.map(|(name, statuses)| (name.to_owned(), scenario(statuses)));
        let report = Report {
            scenarios: scenarios.into(),
        };
        assert_eq!(
            report.require(&["good"]).ok().map(|others| others[0].0),
            Some("bad")
        );
        let error = report
            .require(&["good", "bad", "absent"])
            .err()
            .map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(
            error.contains("bad\n    FAILURE id: why") && error.contains("absent did not run"),
            "{error}"
        );
    }
}
