//! Alertmanager's configuration: valid, every alert reaches whom it should, every message reads as it should.

use super::Outcome;
use crate::{process, workspace::Workspace};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use yaml_serde::Value;

/// The first version that reads a webhook's address from a file.
const URL_FILE: (u32, u32) = (0, 26);

/// Asks amtool: the one that `AMTOOL` names, else the one on the `PATH`.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let home = workspace.root.join("deploy/alertmanager");
    let text = fs::read_to_string(home.join("config.yml"))?;
    let mut findings = unknown_alerts(&text, &declared_alerts(&workspace.root.join("alerts"))?);
    let found = env::var_os("AMTOOL")
        .map(PathBuf::from)
        .or_else(|| process::on_path("amtool"));
    let Some(program) = found else {
        return Ok(match findings.is_empty() {
            true => Outcome::Partly("amtool is not installed (AMTOOL names one elsewhere)".to_owned()),
            false => Outcome::from_findings(&findings),
        });
    };
    let amtool = Amtool { program, home };
    let old = amtool.version()?.filter(|version| *version < URL_FILE);
    let config = match old {
        None => amtool.home.join("config.yml"),
        Some(_) => {
            let copy = workspace.target.join("alertmanager");
            fs::create_dir_all(&copy)?;
            // Read from the folder of the original, where its templates are.
            let templates = amtool.home.join("templates");
            let text = for_old(&text).replace("- templates/", &format!("- {}/", templates.display()));
            fs::write(copy.join("config.yml"), text)?;
            copy.join("config.yml")
        }
    };
    findings.extend(amtool.check_config(&config)?);
    findings.extend(amtool.routes(&config)?);
    findings.extend(amtool.messages(&text)?);
    if !findings.is_empty() {
        return Ok(Outcome::from_findings(&findings));
    }
    Ok(old.map_or(Outcome::Passed, |(major, minor)| {
        Outcome::Partly(format!(
            "amtool {major}.{minor} does not know url_file (0.26 and newer do)"
        ))
    }))
}

/// What amtools before [`URL_FILE`] take for the same.
fn for_old(config: &str) -> String {
    ["dead_man_url", "incidents_url"]
        .iter()
        .fold(config.to_owned(), |config, secret| {
            config.replace(
                &format!("url_file: /run/secrets/{secret}"),
                "url: http://localhost/",
            )
        })
}

struct Amtool {
    program: PathBuf,
    /// The directory of the configuration.
    home: PathBuf,
}

impl Amtool {
    /// Whether it succeeded, and what it said.
    fn ask(&self, args: &[OsString]) -> anyhow::Result<(bool, String)> {
        let mut command = Command::new(&self.program);
        let output = command
            .args(args)
            .output()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// Its version, where it says one: a build from a module does not.
    fn version(&self) -> anyhow::Result<Option<(u32, u32)>> {
        Ok(parse_version(&self.ask(&["--version".into()])?.1))
    }

    fn check_config(&self, config: &Path) -> anyhow::Result<Option<String>> {
        let (passed, said) = self.ask(&["check-config".into(), config.into()])?;
        Ok((!passed).then_some(said))
    }

    /// Whether every line of `tests/routes.txt` holds.
    fn routes(&self, config: &Path) -> anyhow::Result<Vec<String>> {
        let text = fs::read_to_string(self.home.join("tests/routes.txt"))?;
        let mut findings = Vec::new();
        for route in text.lines().filter_map(route) {
            let (labels, receivers) =
                route.context("tests/routes.txt: a line is `label=value… => receiver,…`")?;
            let mut args: Vec<OsString> = ["config", "routes", "test"].map(OsString::from).into();
            args.push(format!("--config.file={}", config.display()).into());
            args.push(format!("--verify.receivers={receivers}").into());
            args.extend(labels.split_whitespace().map(OsString::from));
            let (passed, said) = self.ask(&args)?;
            if !passed {
                findings.push(format!("{labels}: expected {receivers}: {}", said.trim()));
            }
        }
        Ok(findings)
    }

    /// Whether every text of every receiver, rendered for each `tests/NAME.json`, is what `tests/NAME.txt` says.
    fn messages(&self, config: &str) -> anyhow::Result<Vec<String>> {
        let template = all_texts(config)?;
        let mut findings = Vec::new();
        for name in ["firing", "resolved"] {
            let data = self.home.join(format!("tests/{name}.json"));
            let expected = self.home.join(format!("tests/{name}.txt"));
            let (passed, said) = self.ask(&[
                "template".into(),
                "render".into(),
                format!("--template.glob={}", self.home.join("templates/*.tmpl").display()).into(),
                format!("--template.text={template}").into(),
                format!("--template.data={}", data.display()).into(),
            ])?;
            let (said, wanted) = (said.trim_end(), fs::read_to_string(&expected).unwrap_or_default());
            if !passed {
                findings.push(format!("{name}: {said}"));
            } else if env::var_os("UPDATE").is_some() {
                fs::write(&expected, format!("{said}\n"))?;
            } else if said != wanted.trim_end() {
                findings.push(format!(
                    "{} differs (UPDATE=1 writes it anew) in {}",
                    expected.display(),
                    first_difference(&wanted, said)
                ));
            }
        }
        Ok(findings)
    }
}

/// `amtool, version 0.25.0 (branch: …` in numbers.
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let version = said.split("version ").nth(1)?.split_whitespace().next()?;
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The labels and the receivers of a line that is no comment; an error where it is nothing else either.
fn route(line: &str) -> Option<Option<(&str, &str)>> {
    let line = line.trim();
    let content = !line.is_empty() && !line.starts_with('#');
    content.then(|| {
        let (labels, receivers) = line.split_once("=>")?;
        Some((labels.trim(), receivers.trim()))
    })
}

/// One template of every templated text of the receivers, each below its place.
fn all_texts(config: &str) -> anyhow::Result<String> {
    let config: Value = yaml_serde::from_str(config)?;
    let receivers = config.get("receivers").and_then(Value::as_sequence);
    let mut all = String::new();
    for receiver in receivers.context("config.yml has no receivers")? {
        let name = receiver.get("name").and_then(Value::as_str).unwrap_or_default();
        texts(receiver, name, &mut all);
    }
    ensure!(!all.is_empty(), "no receiver has a text");
    Ok(all)
}

fn texts(value: &Value, place: &str, all: &mut String) {
    match value {
        Value::String(text) if text.contains("{{") => {
            let _ = writeln!(all, "== {place}\n{text}");
        }
        Value::Sequence(items) => {
            for (number, item) in items.iter().enumerate() {
                texts(item, &format!("{place}.{number}"), all);
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                texts(value, &format!("{place}.{}", key.as_str().unwrap_or("?")), all);
            }
        }
        _ => {}
    }
}

fn first_difference(wanted: &str, got: &str) -> String {
    let line = wanted
        .lines()
        .zip(got.lines())
        .position(|(wanted, got)| wanted != got);
    let line = line.unwrap_or(wanted.lines().count().min(got.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_owned();
    format!(
        "line {}:\n  expected {}\n  rendered {}",
        line + 1,
        at(wanted),
        at(got)
    )
}

/// The names of all alerts in `*.rules.yml`.
fn declared_alerts(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".rules.yml") {
            let text = fs::read_to_string(path)?;
            let alerts = text
                .lines()
                .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("alert:"));
            names.extend(alerts.map(|name| name.trim().trim_matches(['"', '\'']).to_owned()));
        }
    }
    Ok(names)
}

/// The alerts that the configuration names and that there are not: a rule was renamed.
fn unknown_alerts(config: &str, declared: &BTreeSet<String>) -> Vec<String> {
    let matchers = config.lines().filter(|line| !line.trim_start().starts_with('#'));
    let values = matchers.flat_map(|line| line.split("alertname ").skip(1));
    let values = values.filter_map(|rest| rest.split('"').nth(1));
    let names: BTreeSet<&str> = values.flat_map(|value| value.split('|')).collect();
    let unknown = names.into_iter().filter(|name| !declared.contains(*name));
    unknown
        .map(|name| format!("config.yml names the alert {name}, which no file in alerts/ has"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_where_there_are_any() {
        assert_eq!(
            parse_version("amtool, version 0.25.0 (branch: debian/sid"),
            Some((0, 25))
        );
        assert_eq!(parse_version("amtool, version v1.2.3 (branch: x"), Some((1, 2)));
        assert_eq!(
            parse_version("amtool, version  (branch: , revision: unknown)"),
            None
        );
    }

    #[test]
    fn routes_are_read_and_nonsense_is_noticed() {
        assert_eq!(route("a=b c=d => x,y"), Some(Some(("a=b c=d", "x,y"))));
        assert_eq!(route("  # a comment => x"), None);
        assert_eq!(route("a=b -> x"), Some(None));
    }

    #[test]
    fn every_templated_text_is_found_with_its_place() {
        let config = "receivers: [{name: a, x: [{t: '{{ .A }}', plain: b}], d: {e: '{{ .B }}'}}]";
        let texts = all_texts(config).expect("it has texts");
        assert_eq!(texts, "== a.x.0.t\n{{ .A }}\n== a.d.e\n{{ .B }}\n");
        assert!(all_texts("receivers: [{name: a}]").is_err());
    }

    #[test]
    fn alerts_that_are_gone_are_found_in_matchers() {
        let config = "# alertname = \"Old\"\n- ['alertname = \"A\"', 'x = \"B\"']\n- alertname =~ \"A|C\"\n";
        let declared = BTreeSet::from(["A".to_owned()]);
        let found = unknown_alerts(config, &declared);
        assert_eq!(
            found,
            ["config.yml names the alert C, which no file in alerts/ has"]
        );
    }
}
