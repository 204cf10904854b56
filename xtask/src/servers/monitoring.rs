//! Prometheus and Alertmanager as programs of this host, with the rules and the configuration that the containers have.
//!
//! What only containers have is taken out of the copies: discovery by container names, the other parts' targets, and,
//! since no secrets lie on this host, the ways to notify people.

use super::{Server, spawn};
use crate::{http, process, workspace::Workspace};
use anyhow::Context;
use rustix::process::Signal;
use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};
use yaml_serde::{Mapping, Value};

/// Where the two listen.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// Prometheus.
    pub(crate) prometheus: u16,
    /// Alertmanager.
    pub(crate) alertmanager: u16,
}

impl Ports {
    /// The usual ones, each moved up by `offset`.
    pub(crate) fn with_offset(offset: u16) -> anyhow::Result<Self> {
        let moved = |port: u16| port.checked_add(offset).context("--port-offset leaves no port");
        Ok(Self {
            prometheus: moved(9090)?,
            alertmanager: moved(9093)?,
        })
    }
}

/// What to scrape: a job and its `host:port`.
pub(crate) type Target<'a> = (&'a str, String);

/// Prometheus' program.
pub(crate) fn prometheus_program() -> Option<PathBuf> {
    process::on_path("prometheus")
}

/// Alertmanager's program, under Debian's name too.
pub(crate) fn alertmanager_program() -> Option<PathBuf> {
    process::on_path("alertmanager").or_else(|| process::on_path("prometheus-alertmanager"))
}

/// Starts Alertmanager on data in `dir`.
///
/// # Errors
/// When its port is taken or it does not start; with the end of its log.
pub(crate) fn alertmanager(
    program: &Path,
    workspace: &Workspace,
    dir: &Path,
    port: u16,
) -> anyhow::Result<Server> {
    fs::create_dir_all(dir)?;
    let source = workspace.root.join("deploy/alertmanager");
    let config = dir.join("alertmanager.yml");
    write(
        &config,
        &without_notifiers(read(&source.join("config.yml"))?, &source),
    )?;
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", dir.join("data").display()))
        // Alone: it looks for no peers.
        .arg("--cluster.listen-address=");
    serve("Alertmanager", "alertmanager", command, dir, port)
}

/// Starts Prometheus on data in `dir`.
///
/// # Errors
/// When its port is taken or it does not start; with the end of its log.
pub(crate) fn prometheus(
    program: &Path,
    workspace: &Workspace,
    dir: &Path,
    ports: Ports,
    targets: &[Target<'_>],
    environment: &str,
) -> anyhow::Result<Server> {
    fs::create_dir_all(dir)?;
    let config = dir.join("prometheus.yml");
    let source = read(&workspace.root.join("deploy/prometheus/prometheus.yml"))?;
    let rules = workspace.root.join("alerts/*.rules.yml");
    write(
        &config,
        &on_this_host(source, &rules, ports, targets, environment)?,
    )?;
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg("--enable-feature=exemplar-storage");
    serve("Prometheus", "prometheus", command, dir, ports.prometheus)
}

fn serve(
    name: &'static str,
    program: &'static str,
    mut command: Command,
    dir: &Path,
    port: u16,
) -> anyhow::Result<Server> {
    // Else another one's answer would pass for this one's.
    TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("{name}'s port {port}"))?;
    let log = dir.join(format!("{program}.log"));
    command
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .process_group(0);
    let child = spawn(&mut command, &log)?;
    let url = format!("http://127.0.0.1:{port}");
    let ready = format!("{url}/-/ready");
    let server = Server {
        name,
        program,
        url,
        child,
        how: Signal::TERM,
    };
    server.wait(&log, || http::status(&ready, None) == Some(200))
}

/// Prometheus' configuration with only these targets, the rules and Alertmanager where they are on this host.
fn on_this_host(
    mut config: Value,
    rules: &Path,
    ports: Ports,
    targets: &[Target<'_>],
    environment: &str,
) -> anyhow::Result<Value> {
    let root = config.as_mapping_mut().context("prometheus.yml is no mapping")?;
    root.insert(
        "rule_files".into(),
        vec![Value::from(rules.display().to_string())].into(),
    );
    let alertmanager = format!("127.0.0.1:{}", ports.alertmanager);
    root.insert(
        "alerting".into(),
        mapping([(
            "alertmanagers",
            vec![mapping([("static_configs", static_target(&alertmanager))])].into(),
        )]),
    );
    if let Some(labels) = root
        .get_mut("global")
        .and_then(|global| global.get_mut("external_labels"))
        .and_then(Value::as_mapping_mut)
    {
        // Older versions take `${ENVIRONMENT}` as it stands.
        labels.insert("environment".into(), environment.into());
    }
    let mut all: Vec<Target<'_>> = targets.to_vec();
    all.push(("prometheus", format!("127.0.0.1:{}", ports.prometheus)));
    all.push(("alertmanager", alertmanager));
    let jobs = root.get_mut("scrape_configs").and_then(Value::as_sequence_mut);
    let jobs = jobs.context("prometheus.yml has no scrape_configs")?;
    jobs.retain_mut(|job| {
        let target = all
            .iter()
            .find(|(name, _)| job["job_name"].as_str() == Some(*name))
            .map(|(_, target)| static_target(target));
        let (Some(target), Some(job)) = (target, job.as_mapping_mut()) else {
            return false;
        };
        for discovery in ["dns_sd_configs", "file_sd_configs"] {
            job.remove(discovery);
        }
        job.insert("static_configs".into(), target);
        true
    });
    Ok(config)
}

/// Alertmanager's configuration with its routes and receivers, of which none notifies anybody.
fn without_notifiers(mut config: Value, source: &Path) -> Value {
    let Some(root) = config.as_mapping_mut() else {
        return config;
    };
    if let Some(global) = root.get_mut("global").and_then(Value::as_mapping_mut) {
        global.retain(|key, _| {
            !key.as_str()
                .is_some_and(|key| key.ends_with("_file") || key.ends_with("_url"))
        });
    }
    root.insert(
        "templates".into(),
        vec![Value::from(source.join("templates/*.tmpl").display().to_string())].into(),
    );
    for receiver in root
        .get_mut("receivers")
        .and_then(Value::as_sequence_mut)
        .into_iter()
        .flatten()
    {
        if let Some(receiver) = receiver.as_mapping_mut() {
            receiver.retain(|key, _| key.as_str() == Some("name"));
        }
    }
    config
}

fn static_target(target: &str) -> Value {
    vec![mapping([("targets", vec![Value::from(target)].into())])].into()
}

fn mapping<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let entries = entries.into_iter().map(|(key, value)| (key.into(), value));
    Value::Mapping(entries.collect::<Mapping>())
}

/// Reads a YAML file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    yaml_serde::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))
}

/// Writes one.
pub(crate) fn write(path: &Path, config: &Value) -> anyhow::Result<()> {
    fs::write(path, yaml_serde::to_string(config)?).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports {
        prometheus: 9090,
        alertmanager: 9093,
    };

    #[test]
    fn keeps_the_services_and_itself() -> anyhow::Result<()> {
        let config: Value = yaml_serde::from_str(
            "global: {scrape_interval: 15s, external_labels: {environment: \"${ENVIRONMENT}\"}}\n\
             rule_files: [alerts/*.rules.yml]\n\
             scrape_configs:\n\
             - {job_name: worker, scrape_timeout: 10s, dns_sd_configs: [{names: [worker], type: A, port: 8080}]}\n\
             - {job_name: loki, static_configs: [{targets: ['loki:3100']}]}\n\
             - {job_name: prometheus, static_configs: [{targets: ['localhost:9090']}]}\n",
        )?;
        let targets = [("worker", "127.0.0.1:8091".to_owned())];
        let config = on_this_host(config, Path::new("/rules/*.yml"), PORTS, &targets, "dev")?;
        let jobs = config["scrape_configs"].as_sequence().context("jobs")?;
        assert_eq!(jobs.len(), 2, "no Loki here");
        assert_eq!(jobs[0]["static_configs"][0]["targets"][0], "127.0.0.1:8091");
        assert_eq!(jobs[0]["scrape_timeout"], "10s");
        assert!(jobs[0].get("dns_sd_configs").is_none());
        assert_eq!(config["rule_files"][0], "/rules/*.yml");
        assert_eq!(config["global"]["external_labels"]["environment"], "dev");
        assert_eq!(config["global"]["scrape_interval"], "15s");
        let alertmanager = &config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0];
        assert_eq!(alertmanager, "127.0.0.1:9093");
        Ok(())
    }

    #[test]
    fn notifies_nobody() -> anyhow::Result<()> {
        let config: Value = yaml_serde::from_str(
            "global: {resolve_timeout: 5m, slack_api_url_file: /run/secrets/slack}\n\
             route: {receiver: slack}\n\
             receivers: [{name: slack, slack_configs: [{channel: '#a'}]}]\n",
        )?;
        let config = without_notifiers(config, Path::new("/deploy/alertmanager"));
        let text = yaml_serde::to_string(&config)?;
        assert!(
            !text.contains("slack_configs") && !text.contains("/run/secrets"),
            "{text}"
        );
        assert!(
            text.contains("resolve_timeout") && text.contains("name: slack"),
            "{text}"
        );
        Ok(())
    }
}
