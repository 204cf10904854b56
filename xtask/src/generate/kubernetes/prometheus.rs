//! Prometheus: compose's configuration, with the targets found by asking the Kubernetes API for pods.

use super::{
    File,
    objects::{Component, LOGS, MONITORING, SERVICES, Volume, config_map, namespace_of, object, setting},
    sources::Sources,
};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use yaml_serde::Value as Yaml;

const CONFIG: &str = "deploy/prometheus/prometheus.yml";

/// A scrape job of compose's configuration: whose pods, which port's name and number.
pub(super) struct Job {
    pub(super) name: &'static str,
    pub(super) components: &'static [&'static str],
    pub(super) port: &'static str,
    pub(super) number: u16,
}

const fn job(
    name: &'static str,
    components: &'static [&'static str],
    port: &'static str,
    number: u16,
) -> Job {
    Job {
        name,
        components,
        port,
        number,
    }
}

/// All of them.
pub(super) const JOBS: &[Job] = &[
    job("mcp-server", &["mcp-server"], "http", 8080),
    job("rest-api", &["rest-api"], "http", 8080),
    job("worker", &["worker"], "http", 8080),
    job("postgres", &["postgres-exporter"], "http", 9187),
    job("redis", &["redis-exporter"], "http", 9121),
    job("prometheus", &["prometheus"], "http", 9090),
    job("alertmanager", &["alertmanager"], "http", 9093),
    job("loki", &["loki"], "http", 3100),
    job(
        "otel-collector",
        &["otel-collector", "otel-collector-logs"],
        "metrics",
        8888,
    ),
    job("jaeger", &["jaeger"], "metrics", 8888),
];

impl Job {
    /// Where its pods are.
    pub(super) fn namespaces(&self) -> BTreeSet<&'static str> {
        self.components.iter().copied().map(namespace_of).collect()
    }

    fn discovery(&self) -> Value {
        json!([{"role": "pod", "namespaces": {"names": self.namespaces()}}])
    }

    /// Leaves the pods of this job. A replica is called by its pod's name.
    fn relabelling(&self) -> Value {
        let keep = |label: &str, regex: &str| json!({"source_labels": [format!("__meta_kubernetes_pod_{label}")], "regex": regex, "action": "keep"});
        json!([
            keep("label_app_kubernetes_io_name", &self.components.join("|")),
            keep("container_port_name", self.port),
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Succeeded|Failed", "action": "drop"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "instance"},
        ])
    }
}

/// Prometheus and its rules.
pub(super) fn files(sources: &Sources) -> anyhow::Result<Vec<File>> {
    let rules = sources.files("alerts", ".rules.yml")?;
    let mut mounted = vec![("prometheus", "prometheus.yml", "prometheus.yml".to_owned())];
    mounted.extend(
        rules
            .iter()
            .map(|(name, _)| ("prometheus-rules", name.as_str(), format!("alerts/{name}"))),
    );
    let mounted: Vec<(&str, &str, &str)> = mounted
        .iter()
        .map(|(map, key, path)| (*map, *key, path.as_str()))
        .collect();
    let component = component(sources, &mounted)?;
    let mut objects = vec![component.account()];
    objects.extend([SERVICES, MONITORING, LOGS].into_iter().flat_map(access));
    let config = json!({"prometheus.yml": configuration(sources)?});
    objects.extend([
        config_map(MONITORING, "prometheus", "prometheus", &config),
        component.service(&["http"]),
        component.stateful_set("20Gi"),
    ]);
    let about = format!(
        "{CONFIG}, with targets found by pods' labels in three namespaces: Roles there, no ClusterRole.\n\
         It reads a changed configuration and changed rules by itself within minutes, and keeps the old ones where the\n\
         new are wrong (prometheus_config_last_reload_successful)."
    );
    let data = rules.iter().map(|(name, text)| (name.clone(), json!(text)));
    let rules = config_map(
        MONITORING,
        "prometheus-rules",
        "prometheus",
        &Value::Object(data.collect()),
    );
    Ok(vec![
        File::new(
            "prometheus-rules",
            "alerts/*.rules.yml, byte for byte.",
            vec![rules],
        ),
        File::new("prometheus", about, objects),
    ])
}

fn component(sources: &Sources, mounted: &[(&str, &str, &str)]) -> anyhow::Result<Component> {
    let mut component = Component {
        env: vec![
            setting("ENVIRONMENT", "ENVIRONMENT"),
            setting("PUBLIC_URL", "PROMETHEUS_URL"),
        ],
        ports: &[("http", 9090)],
        health: ("http", "/-/healthy", "/-/ready"),
        requests: ("200m", "512Mi"),
        volumes: vec![
            Volume::config("/etc/prometheus", mounted),
            Volume::claimed("/prometheus"),
        ],
        asks_api_server: true,
        ..Component::of("prometheus", &sources.service("prometheus")?)
    };
    component.args.push("--config.auto-reload".to_owned());
    Ok(component)
}

/// Prometheus may look at the pods of a namespace.
fn access(namespace: &str) -> [Value; 2] {
    let of = |kind, rest| {
        let kind = ("rbac.authorization.k8s.io/v1", kind);
        object(kind, namespace, "prometheus", "prometheus", rest)
    };
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "prometheus"});
    let subject = json!({"kind": "ServiceAccount", "name": "prometheus", "namespace": MONITORING});
    [
        of("Role", json!({"rules": rules})),
        of("RoleBinding", json!({"roleRef": role, "subjects": [subject]})),
    ]
}

/// Compose's configuration with other ways to find targets; a job that this does not know is an error.
fn configuration(sources: &Sources) -> anyhow::Result<String> {
    let mut config = sources.yaml(CONFIG)?;
    let alertmanager = JOBS.iter().find(|job| job.name == "alertmanager");
    let alertmanager = alertmanager.context("there is no job alertmanager")?;
    config["alerting"] = yaml_serde::to_value(json!({"alertmanagers": [{
        "kubernetes_sd_configs": alertmanager.discovery(),
        "relabel_configs": alertmanager.relabelling(),
    }]}))?;
    let scraped = config["scrape_configs"].as_sequence_mut();
    let scraped = scraped.with_context(|| format!("{CONFIG} has no scrape_configs"))?;
    ensure!(
        scraped.len() == JOBS.len(),
        "{CONFIG} lacks one of the {} jobs",
        JOBS.len()
    );
    for scraped in scraped {
        let name = scraped["job_name"].as_str().unwrap_or_default().to_owned();
        let job = JOBS.iter().find(|job| job.name == name);
        let job = job.with_context(|| format!("{CONFIG}: whose pods are the job `{name}` is not known"))?;
        rewrite(scraped, job).with_context(|| format!("{CONFIG}: job `{name}`"))?;
    }
    Ok(yaml_serde::to_string(&config)?)
}

fn rewrite(scraped: &mut Yaml, job: &Job) -> anyhow::Result<()> {
    let port = scraped["dns_sd_configs"][0]["port"].as_u64().or_else(|| {
        let target = scraped["static_configs"][0]["targets"][0].as_str();
        target?.rsplit_once(':')?.1.parse().ok()
    });
    ensure!(
        port == Some(job.number.into()),
        "scrapes {port:?}, not {}",
        job.number
    );
    let fields = scraped.as_mapping_mut().context("is no mapping")?;
    fields.retain(|key, _| {
        let key = key.as_str().unwrap_or_default();
        !key.ends_with("_sd_configs") && key != "static_configs"
    });
    for (key, value) in [
        ("kubernetes_sd_configs", job.discovery()),
        ("relabel_configs", job.relabelling()),
    ] {
        fields.insert(key.into(), yaml_serde::to_value(value)?);
    }
    Ok(())
}
