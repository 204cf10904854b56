//! Copies of the rules and of the configurations of Prometheus and Alertmanager in which a minute takes a second.
//!
//! Only times are changed: what an alert asks for, who is told and in which words is what is shipped. The originals are
//! tested by promtool (`alerts/tests`) and amtool (`deploy/alertmanager/tests`).

use super::promql;
use anyhow::{Context, ensure};
use std::{fs, path::Path, time::Duration};
use yaml_serde::{Mapping, Value};

/// By how much times are divided.
pub const FACTOR: u32 = 60;
/// How often the copy of Prometheus scrapes and evaluates.
const SCRAPE: &str = "1s";
/// What is in the file of PagerDuty's routing key.
pub const ROUTING_KEY: &str = "integration-routing-key";
/// Where Alertmanager's container finds the folder that is written here.
const MOUNTED: &str = "/etc/alertmanager/secrets";

/// Writes `alerts/`, `prometheus/` and `alertmanager/` into `out`; who is notified is the sinks' server at `sink`
/// (`http://host:port`).
///
/// # Errors
/// When a file cannot be read or written, or is not what it should be.
pub fn write(repository: &Path, out: &Path, sink: &str) -> anyhow::Result<()> {
    ensure!(sink.starts_with("http"), "the sinks' address is a URL: {sink}");
    let deploy = repository.join("deploy");
    rules(&repository.join("alerts"), &out.join("alerts"))?;
    let (from, to) = (deploy.join("prometheus"), out.join("prometheus"));
    change(
        &from.join("prometheus.yml"),
        &to.join("prometheus.yml"),
        prometheus,
    )?;
    // Where compose mounts others.
    for folder in ["alerts", "targets"] {
        fs::create_dir_all(to.join(folder))?;
    }
    let (from, to) = (deploy.join("alertmanager"), out.join("alertmanager"));
    change(&from.join("config.yml"), &to.join("config.yml"), alertmanager)?;
    copy(&from.join("templates"), &to.join("templates"))?;
    let secrets = to.join("secrets");
    fs::create_dir_all(&secrets)?;
    fs::write(secrets.join("slack_webhook_url"), format!("{sink}/slack"))?;
    fs::write(secrets.join("pagerduty_routing_key"), ROUTING_KEY)?;
    fs::write(secrets.join("dead_man_url"), format!("{sink}/dead-man"))?;
    fs::write(secrets.join("incidents_url"), format!("{sink}/agents"))?;
    fs::write(secrets.join("incidents_api_key"), "nobody's")?;
    change(&to.join("config.yml"), &to.join("config.yml"), |config| {
        let global = entry(config, "global")?;
        set(global, "pagerduty_url", &format!("{sink}/v2/enqueue"));
        Ok(())
    })
}

/// Scales the text of one file, told by its name, as a ConfigMap holds it: rules, `prometheus.yml`, or Alertmanager's
/// `config.yml`, whose pages go to `sink` then, and whose secrets stay where they are. `None` for any other.
///
/// # Errors
/// When it is not what its name says.
pub fn scaled(name: &str, text: &str, sink: &str) -> anyhow::Result<Option<String>> {
    let mut value = yaml_serde::from_str(text).with_context(|| name.to_owned());
    match (name, &mut value) {
        (_, Ok(file)) if name.ends_with(".rules.yml") => rule_file(file)?,
        ("prometheus.yml", Ok(config)) => prometheus(config)?,
        ("config.yml", Ok(config)) => {
            route(entry(config, "route")?)?;
            set(
                entry(config, "global")?,
                "pagerduty_url",
                &format!("{sink}/v2/enqueue"),
            );
        }
        _ => return Ok(None),
    }
    Ok(Some(yaml_serde::to_string(&value?)?))
}

/// Scales every `*.rules.yml`.
fn rules(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut found = false;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if name.to_string_lossy().ends_with(".rules.yml") {
            found = true;
            change(&path, &to.join(&name), rule_file)?;
        }
    }
    ensure!(found, "there are no rules in {}", from.display());
    Ok(())
}

/// Reads YAML, changes it, and writes it elsewhere.
fn change(from: &Path, to: &Path, how: impl FnOnce(&mut Value) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let text = fs::read_to_string(from).with_context(|| from.display().to_string())?;
    let mut value = yaml_serde::from_str(&text).with_context(|| from.display().to_string())?;
    how(&mut value).with_context(|| from.display().to_string())?;
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    Ok(fs::write(to, yaml_serde::to_string(&value)?)?)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn entry<'a>(of: &'a mut Value, key: &str) -> anyhow::Result<&'a mut Value> {
    of.get_mut(key).with_context(|| format!("no `{key}`"))
}

fn set(of: &mut Value, key: &str, text: &str) {
    if let Some(mapping) = of.as_mapping_mut() {
        mapping.insert(key.into(), text.into());
    }
}

fn items<'a>(of: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    of.get_mut(key)
        .and_then(Value::as_sequence_mut)
        .into_iter()
        .flatten()
}

fn rule_file(file: &mut Value) -> anyhow::Result<()> {
    for group in items(file, "groups") {
        set(group, "interval", SCRAPE);
        for rule in items(group, "rules") {
            let expr = rule
                .get("expr")
                .and_then(Value::as_str)
                .context("a rule without `expr`")?;
            let scaled = promql::scale(expr, FACTOR);
            set(rule, "expr", &scaled);
            scale_keys(rule, &["for", "keep_firing_for"], Duration::from_secs(1))?;
        }
    }
    Ok(())
}

fn prometheus(config: &mut Value) -> anyhow::Result<()> {
    let global = entry(config, "global")?;
    for key in ["scrape_interval", "scrape_timeout", "evaluation_interval"] {
        set(global, key, SCRAPE);
    }
    for job in items(config, "scrape_configs") {
        if let Some(job) = job.as_mapping_mut() {
            job.remove("scrape_interval");
            job.remove("scrape_timeout");
        }
        for discovery in ["dns_sd_configs", "file_sd_configs"] {
            items(job, discovery).for_each(|one| set(one, "refresh_interval", SCRAPE));
        }
    }
    Ok(())
}

fn alertmanager(config: &mut Value) -> anyhow::Result<()> {
    route(entry(config, "route")?)?;
    secret_files(config);
    Ok(())
}

fn route(value: &mut Value) -> anyhow::Result<()> {
    // Below a second, for Watchdog's round of 50 s in a minute.
    let keys = ["group_wait", "group_interval", "repeat_interval"];
    scale_keys(value, &keys, Duration::from_millis(500))?;
    items(value, "routes").try_for_each(route)
}

/// Points every file of a secret to the folder beside the configuration.
fn secret_files(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("/run/secrets/") {
                *text = format!("{MOUNTED}/{name}");
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(secret_files),
        Value::Mapping(entries) => entries.iter_mut().for_each(|(_, value)| secret_files(value)),
        _ => {}
    }
}

/// Scales these durations where they are there and not 0, none below `least`.
fn scale_keys(value: &mut Value, keys: &[&str], least: Duration) -> anyhow::Result<()> {
    let mapping: &mut Mapping = value.as_mapping_mut().context("not a mapping")?;
    for key in keys {
        if let Some(Value::String(text)) = mapping.get_mut(*key) {
            let whole = promql::duration(text).with_context(|| format!("`{key}: {text}`"))?;
            if !whole.is_zero() {
                *text = promql::shown((whole / FACTOR).max(least));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, how: fn(&mut Value) -> anyhow::Result<()>) -> Value {
        let mut value = yaml_serde::from_str(text).expect("YAML");
        how(&mut value).expect("it can be scaled");
        value
    }

    #[test]
    fn only_the_times_of_rules_change() {
        let text = "groups: [{name: a, interval: 30s, rules: [{alert: A, expr: 'rate(x[10m]) > 5', for: 5m, \
                    keep_firing_for: 15s, labels: {severity: critical}}, {record: 'r:rate5m', expr: 'rate(x[5m])'}]}]";
        let wanted = "groups: [{name: a, interval: 1s, rules: [{alert: A, expr: 'rate(x[10s]) > 5', for: 5s, \
                      keep_firing_for: 1s, labels: {severity: critical}}, {record: 'r:rate5m', expr: 'rate(x[5s])'}]}]";
        assert_eq!(
            changed(text, rule_file),
            yaml_serde::from_str::<Value>(wanted).expect("YAML")
        );
    }

    #[test]
    fn every_route_is_scaled_and_secrets_lie_beside() {
        let text = "{global: {slack_api_url_file: /run/secrets/slack_webhook_url}, route: {group_wait: 30s, routes: \
                    [{group_wait: 0s, group_interval: 1m, repeat_interval: 50s}, {repeat_interval: 4h}]}}";
        let wanted = "{global: {slack_api_url_file: /etc/alertmanager/secrets/slack_webhook_url}, route: {group_wait: \
                      500ms, routes: [{group_wait: 0s, group_interval: 1s, repeat_interval: 833ms}, {repeat_interval: 240s}]}}";
        assert_eq!(
            changed(text, alertmanager),
            yaml_serde::from_str::<Value>(wanted).expect("YAML")
        );
    }

    #[test]
    fn prometheus_scrapes_everything_each_second() {
        let text = "{global: {scrape_interval: 15s}, scrape_configs: [{job_name: a, scrape_interval: 1m, \
                    dns_sd_configs: [{names: [a], refresh_interval: 5s}]}]}";
        let scaled = changed(text, prometheus);
        assert_eq!(scaled["global"]["scrape_timeout"], "1s");
        assert!(scaled["scrape_configs"][0].get("scrape_interval").is_none());
        assert_eq!(
            scaled["scrape_configs"][0]["dns_sd_configs"][0]["refresh_interval"],
            "1s"
        );
    }

    #[test]
    fn what_is_shipped_can_be_scaled() {
        let out = std::env::temp_dir().join(format!("scaled-{}", std::process::id()));
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        write(&repository, &out, "http://sink:1").expect("all files are there");
        let config = fs::read_to_string(out.join("alertmanager/config.yml")).expect("it was written");
        assert!(
            config.contains("pagerduty_url: http://sink:1/v2/enqueue"),
            "{config}"
        );
        assert!(!config.contains("/run/secrets"), "{config}");
        assert!(out.join("alerts/services.rules.yml").is_file());
        fs::remove_dir_all(out).expect("it is there");
    }
}
