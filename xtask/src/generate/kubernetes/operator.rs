//! For clusters with kube-prometheus-stack: its Prometheus, Alertmanager and Grafana are told what to do.

use super::{
    File, dashboards, namespaces,
    objects::{MONITORING, config_map, object},
    prometheus::{JOBS, Job},
    sources::Sources,
};
use anyhow::Context;
use serde_json::{Value, json};

const API: &str = "monitoring.coreos.com/v1";
/// What kube-prometheus-stack looks for unless it is told to take everything: the name of its Helm release.
const RELEASE: &str = "kube-prometheus-stack";
const DATA_SOURCES: &str = "deploy/grafana/provisioning/datasources/datasources.yaml";

pub(super) fn files(sources: &Sources) -> anyhow::Result<Vec<File>> {
    let about = format!(
        "For kube-prometheus-stack, installed as the release `{RELEASE}` (another one's name goes into the label\n\
         `release`, or its *SelectorNilUsesHelmValues are false). PodMonitors, not ServiceMonitors, which would put their\n\
         own `service` in the place of the services'. Jobs are named as in deploy/prometheus/prometheus.yml.\n\
         Its Prometheus needs retention: 40d (the objectives look back 30 days), enableFeatures: [exemplar-storage] and\n\
         externalLabels: {{environment: …}}; where NetworkPolicies hold, it must be let in to these ports."
    );
    let monitors = JOBS
        .iter()
        // The stack's own watch themselves.
        .filter(|job| !["prometheus", "alertmanager"].contains(&job.name))
        .map(monitor);
    let mut files = vec![namespaces(), File::new("pod-monitors", about, monitors.collect())];
    for (name, text) in sources.files("alerts", ".rules.yml")? {
        let spec: Value = yaml_serde::from_str(&text).with_context(|| format!("alerts/{name}"))?;
        let stem = name.trim_end_matches(".rules.yml");
        let rule = ours("PrometheusRule", stem, "prometheus", json!({"spec": spec}));
        files.push(File::new(
            format!("rules-{stem}"),
            format!("The groups of alerts/{name}."),
            vec![rule],
        ));
    }
    files.extend(dashboards(
        sources,
        "grafana-dashboard-",
        &[("grafana_dashboard", "1")],
    )?);
    files.push(data_sources(sources)?);
    Ok(files)
}

fn ours(kind: &str, name: &str, component: &str, rest: Value) -> Value {
    let name = format!("devops-mcp-{name}");
    let mut object = object((API, kind), MONITORING, &name, component, rest);
    object["metadata"]["labels"]["release"] = json!(RELEASE);
    object
}

fn monitor(job: &Job) -> Value {
    let labels = [
        json!({"action": "replace", "targetLabel": "job", "replacement": job.name}),
        json!({"action": "replace", "sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}),
    ];
    let selector = json!({
        "matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": job.components}],
    });
    let spec = json!({
        "namespaceSelector": {"matchNames": job.namespaces()},
        "selector": selector,
        "podMetricsEndpoints": [{"port": job.port, "interval": "15s", "scrapeTimeout": "10s", "relabelings": labels}],
    });
    ours("PodMonitor", job.name, job.components[0], json!({"spec": spec}))
}

/// Loki and Jaeger, from another namespace; Prometheus and Alertmanager come with the stack, under the same ids.
fn data_sources(sources: &Sources) -> anyhow::Result<File> {
    let mut config = sources.yaml(DATA_SOURCES)?;
    let fields = config
        .as_mapping_mut()
        .with_context(|| format!("{DATA_SOURCES} is no mapping"))?;
    // Others' are in the same folder there.
    fields.remove("prune");
    let list = config["datasources"].as_sequence_mut();
    let list = list.with_context(|| format!("{DATA_SOURCES} has no datasources"))?;
    list.retain(|source| ["loki", "jaeger"].iter().any(|uid| source["uid"] == *uid));
    for source in list {
        let url = source["url"].as_str().unwrap_or_default();
        let (host, port) = url
            .rsplit_once(':')
            .with_context(|| format!("`{url}` has no port"))?;
        source["url"] = format!("{host}.{MONITORING}:{port}").into();
    }
    let data = json!({"devops-mcp.yaml": yaml_serde::to_string(&config)?});
    let mut object = config_map(MONITORING, "grafana-datasources", "grafana", &data);
    object["metadata"]["labels"]["grafana_datasource"] = json!("1");
    let about = format!(
        "Loki and Jaeger of {DATA_SOURCES}. Where Grafana's sidecar looks in its own namespace only, apply it\n\
         there, or set sidecar.datasources.searchNamespace to ALL."
    );
    Ok(File::new("grafana-datasources", about, vec![object]))
}
