//! Configurations that leave out what a stack lacks. The originals in `deploy` would raise alerts on it: Alertmanager's
//! on addresses that nobody has put in yet, Prometheus' on exporters that do not run.

use super::{
    compose::{Compose, EXPORTERS},
    key,
};
use crate::servers::monitoring::{read, write};
use anyhow::Context;
use std::{fs, path::Path};
use yaml_serde::Value;

/// A way to tell people, which works once a person has put its secret in place.
pub(super) struct Way {
    secret: &'static str,
    /// Who is not told until then.
    pub(super) whom: &'static str,
    /// Its part of a receiver.
    integration: &'static str,
    /// That receiver, where others have such a part, too.
    receiver: Option<&'static str>,
}

const WAYS: [Way; 4] = [
    Way {
        secret: "slack_webhook_url",
        whom: "Slack",
        integration: "slack_configs",
        receiver: None,
    },
    Way {
        secret: "pagerduty_routing_key",
        whom: "PagerDuty",
        integration: "pagerduty_configs",
        receiver: None,
    },
    Way {
        secret: "dead_man_url",
        whom: "the dead man's switch",
        integration: "webhook_configs",
        receiver: Some("dead-man"),
    },
    Way {
        secret: key::INCIDENTS,
        whom: "agents",
        integration: "webhook_configs",
        receiver: Some("agents"),
    },
];

/// The ways whose secrets still hold what `deploy/secrets.sh` puts there.
///
/// # Errors
/// When a secret cannot be read.
pub(super) fn not_told(compose: &Compose) -> anyhow::Result<Vec<Way>> {
    let mut ways = Vec::new();
    for way in WAYS {
        // The services make that key themselves, as soon as they run.
        let made = way.secret == key::INCIDENTS && !compose.monitoring_only;
        if !made && compose.secret(way.secret)?.contains("put-the-") {
            ways.push(way);
        }
    }
    Ok(ways)
}

/// Writes copies into `dir` where the originals do not fit, and points the compose files to them. Folders that a
/// variable puts elsewhere are somebody's own and stay.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn fit(compose: &mut Compose, dir: &Path) -> anyhow::Result<()> {
    let ways = not_told(compose)?;
    if !ways.is_empty() && compose.variables.get("ALERTMANAGER_DIR") == "./alertmanager" {
        // Named after what is left out: a container is made anew when its folder is another, not when a file changes.
        let secrets: Vec<&str> = ways.iter().map(|way| way.secret).collect();
        let copy = dir.join(format!("alertmanager-without-{}", secrets.join("-")));
        let source = compose.deploy.join("alertmanager");
        fs::create_dir_all(copy.join("templates"))?;
        let mut config = read(&source.join("config.yml"))?;
        leave_out(&mut config, &ways);
        write(&copy.join("config.yml"), &config)?;
        for template in fs::read_dir(source.join("templates"))? {
            let template = template?;
            fs::copy(template.path(), copy.join("templates").join(template.file_name()))?;
        }
        compose
            .variables
            .set("ALERTMANAGER_DIR", &copy.display().to_string());
    }
    if compose.monitoring_only && compose.variables.get("PROMETHEUS_DIR") == "./prometheus" {
        let copy = dir.join("prometheus");
        // What is mounted into it needs a place.
        for mount in ["alerts", "targets"] {
            fs::create_dir_all(copy.join(mount))?;
        }
        let mut config = read(&compose.deploy.join("prometheus/prometheus.yml"))?;
        leave_out_exporters(&mut config)?;
        write(&copy.join("prometheus.yml"), &config)?;
        compose
            .variables
            .set("PROMETHEUS_DIR", &copy.display().to_string());
    }
    Ok(())
}

/// Takes these ways out of each receiver. The receivers and the routes to them stay.
fn leave_out(config: &mut Value, ways: &[Way]) {
    let receivers = config.get_mut("receivers").and_then(Value::as_sequence_mut);
    for receiver in receivers.into_iter().flatten() {
        if let Some(receiver) = receiver.as_mapping_mut() {
            let name = receiver.get("name").and_then(Value::as_str).map(str::to_owned);
            let concerns = |way: &Way| way.receiver.is_none() || way.receiver == name.as_deref();
            receiver.retain(|key, _| {
                !ways
                    .iter()
                    .any(|way| concerns(way) && key.as_str() == Some(way.integration))
            });
        }
    }
}

fn leave_out_exporters(config: &mut Value) -> anyhow::Result<()> {
    let jobs = config.get_mut("scrape_configs").and_then(Value::as_sequence_mut);
    jobs.context("prometheus.yml has no scrape_configs")?
        .retain(|job| {
            let name = job["job_name"].as_str();
            !EXPORTERS
                .iter()
                .any(|exporter| exporter.strip_suffix("-exporter") == name)
        });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn nobody_is_told_in_vain() -> anyhow::Result<()> {
        let mut config = read(&Workspace::find()?.root.join("deploy/alertmanager/config.yml"))?;
        leave_out(&mut config, &WAYS);
        let receivers = config["receivers"].as_sequence().context("receivers")?;
        assert!(receivers.len() > 2);
        for receiver in receivers {
            let keys: Vec<_> = receiver
                .as_mapping()
                .into_iter()
                .flat_map(|all| all.keys())
                .collect();
            assert_eq!(keys, ["name"], "a way to tell people that has no entry here");
        }
        let mut config = read(&Workspace::find()?.root.join("deploy/alertmanager/config.yml"))?;
        leave_out(&mut config, &WAYS[..1]);
        assert!(
            config["receivers"][0].get("slack_configs").is_none()
                && config["receivers"][0].get("pagerduty_configs").is_some()
        );
        let mut config = read(&Workspace::find()?.root.join("deploy/alertmanager/config.yml"))?;
        leave_out(&mut config, &WAYS[3..]);
        let webhooks = config["receivers"].as_sequence().context("receivers")?.iter();
        let webhooks = webhooks.filter(|receiver| receiver.get("webhook_configs").is_some());
        let names: Vec<_> = webhooks.map(|receiver| receiver["name"].as_str()).collect();
        assert_eq!(names, [Some("dead-man")]);
        Ok(())
    }

    #[test]
    fn exporters_that_do_not_run_are_not_missed() -> anyhow::Result<()> {
        let mut config = read(&Workspace::find()?.root.join("deploy/prometheus/prometheus.yml"))?;
        let count = |config: &Value| config["scrape_configs"].as_sequence().map_or(0, Vec::len);
        let all = count(&config);
        leave_out_exporters(&mut config)?;
        assert_eq!(count(&config), all - EXPORTERS.len());
        Ok(())
    }
}
