//! The OpenTelemetry Collector, twice: on each node for the pods' log files, and once for traces. Both run parts of the
//! configuration that compose runs whole.

use super::{
    File,
    objects::{Component, LOGS, MONITORING, SERVICES, Volume, checksum, config_map, setting},
    sources::Sources,
};
use anyhow::Context;
use serde_json::{Value, json};
use yaml_serde::Value as Yaml;

const CONFIG: &str = "deploy/otel-collector/config.yaml";
const TAIL_SAMPLING: &str = "deploy/otel-collector/production.yaml";
/// The first operator that lines of all sources go through: what stands before it knows Docker and files on a host.
const FIRST_OF_ALL: &str = "text";
const PORTS: &[(&str, u16)] = &[("metrics", 8888), ("health", 13133)];
const GATEWAY_PORTS: &[(&str, u16)] = &[
    ("otlp-grpc", 4317),
    ("otlp-http", 4318),
    ("metrics", 8888),
    ("health", 13133),
];

/// Both.
pub(super) fn files(sources: &Sources) -> anyhow::Result<Vec<File>> {
    Ok(vec![gateway(sources)?, agent(sources)?])
}

fn gateway(sources: &Sources) -> anyhow::Result<File> {
    let mut config = sources.yaml(CONFIG)?;
    keep_pipeline(&mut config, "traces")?;
    let config = yaml_serde::to_string(&config)?;
    let sampling = sources.text(TAIL_SAMPLING)?;
    let component = Component {
        args: vec![
            "--config=/etc/otelcol/config.yaml".to_owned(),
            "--config=/etc/otelcol/production.yaml".to_owned(),
        ],
        env: vec![setting("TRACE_SAMPLING_PERCENTAGE", "TRACE_SAMPLING_PERCENTAGE")],
        ports: GATEWAY_PORTS,
        health: ("health", "/", "/"),
        user: 10001,
        requests: ("100m", "256Mi"),
        volumes: vec![
            Volume::config(
                "/etc/otelcol",
                &[
                    ("otel-collector", "config.yaml", "config.yaml"),
                    ("otel-collector", "production.yaml", "production.yaml"),
                ],
            ),
            Volume::scratch("queue", "/var/lib/otelcol", "1Gi"),
        ],
        checksum: Some(checksum(&[&config, &sampling])),
        ..Component::of("otel-collector", &sources.service("otel-collector")?)
    };
    let data = json!({"config.yaml": config, "production.yaml": sampling});
    let objects = vec![
        config_map(MONITORING, "otel-collector", "otel-collector", &data),
        component.account(),
        component.service(&["otlp-grpc", "otlp-http"]),
        component.deployment(),
    ];
    let about = format!(
        "The traces' half of {CONFIG}, and {TAIL_SAMPLING}, byte for byte.\n\
         One replica: a trace is decided on in one place. What Jaeger has not taken yet waits in the pod's own folder. It\n\
         outlives a crash, not the pod; on a claimed volume it would, but then the next pod could not start before the\n\
         last has gone, and the services' spans would be lost meanwhile at each change."
    );
    Ok(File::new("otel-collector", about, objects))
}

fn agent(sources: &Sources) -> anyhow::Result<File> {
    let config = agent_configuration(sources)?;
    let logs = json!({"hostPath": {"path": "/var/log/pods", "type": "Directory"}});
    let positions = json!({
        "hostPath": {"path": "/var/lib/devops-mcp/otel-collector-logs", "type": "DirectoryOrCreate"},
    });
    let component = Component {
        args: vec!["--config=/etc/otelcol/config.yaml".to_owned()],
        env: vec![setting("ENVIRONMENT", "ENVIRONMENT")],
        ports: PORTS,
        health: ("health", "/", "/"),
        user: 0,
        requests: ("50m", "128Mi"),
        volumes: vec![
            Volume::config(
                "/etc/otelcol",
                &[("otel-collector-logs", "config.yaml", "config.yaml")],
            ),
            Volume::read("logs", "/var/log/pods", logs),
            Volume::written("positions", "/var/lib/otelcol", positions),
        ],
        checksum: Some(checksum(&[&config])),
        ..Component::of("otel-collector-logs", &sources.service("otel-collector")?)
    };
    let mut set = component.daemon_set();
    // The log files are root's, and their owner reads them: of root's rights none is left.
    let pod = &mut set["spec"]["template"]["spec"];
    pod["securityContext"] = json!({
        "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let data = json!({"config.yaml": config});
    let objects = vec![
        config_map(LOGS, "otel-collector-logs", "otel-collector-logs", &data),
        component.account(),
        set,
    ];
    let about = format!(
        "The logs' half of {CONFIG}, reading what the kubelet keeps in /var/log/pods (containerd, CRI-O).\n\
         It has no access to the API: whose a line is stands in the file's path, which only the kubelet writes.\n\
         How far each file is read, and what Loki has not taken yet, is kept on the node, where the files are, too: a\n\
         pod that takes another's place reads no line twice and misses none."
    );
    Ok(File::new("otel-collector-logs", about, objects))
}

fn agent_configuration(sources: &Sources) -> anyhow::Result<String> {
    let mut config = sources.yaml(CONFIG)?;
    keep_pipeline(&mut config, "logs")?;
    config["exporters"]["otlp_http/loki"]["endpoint"] = format!("http://loki.{MONITORING}:3100/otlp").into();
    let receiver = &mut config["receivers"]["file_log"];
    // Rotated files too, as with Docker; the Collectors' own lines are left out, as there.
    receiver["include"] = yaml_serde::to_value([
        format!("/var/log/pods/{SERVICES}_*/*/*.log*"),
        format!("/var/log/pods/{MONITORING}_*/*/*.log*"),
    ])?;
    receiver["exclude"] = yaml_serde::to_value(["**/*.gz", "**/*.tmp", "/var/log/pods/*/otel-collector*/*"])?;
    let operators = receiver["operators"].as_sequence_mut();
    let operators = operators.with_context(|| format!("{CONFIG}: file_log has no operators"))?;
    let all = operators
        .iter()
        .position(|operator| operator["id"] == FIRST_OF_ALL);
    let all = all.with_context(|| format!("{CONFIG} has no operator `{FIRST_OF_ALL}`"))?;
    let own: Vec<Yaml> = whose_line()
        .iter()
        .map(yaml_serde::to_value)
        .collect::<Result<_, _>>()?;
    operators.splice(..all, own);
    Ok(yaml_serde::to_string(&config)?)
}

/// A line as the container runtime wrote it; the namespace, the pod and the container come from the file's path.
///
/// The container's name is what compose's service is. A service's name is given in the services' namespace only:
/// elsewhere the namespace stands before it, so that nobody's lines pass for a service's.
fn whose_line() -> [Value; 4] {
    let (namespace, name) = (
        r#"resource["k8s.namespace.name"]"#,
        r#"resource["k8s.container.name"]"#,
    );
    let value = format!(
        r#"EXPR({namespace} == "{SERVICES}" or not ({name} in ["rest-api", "mcp-server", "worker"]) ? {name} : {namespace} + "/" + {name})"#
    );
    [
        json!({"type": "container", "id": "pod", "max_log_size": "256KiB"}),
        json!({"type": "add", "id": "service", "field": "resource.service", "value": value}),
        // Each of what stays is kept with every line.
        json!({"type": "remove", "id": "without_container", "field": name}),
        json!({"type": "remove", "id": "without_uid", "field": r#"resource["k8s.pod.uid"]"#}),
    ]
}

/// Leaves one pipeline, and of receivers and exporters those it has.
fn keep_pipeline(config: &mut Yaml, name: &str) -> anyhow::Result<()> {
    let pipelines = config["service"]["pipelines"].as_mapping_mut();
    let pipelines = pipelines.with_context(|| format!("{CONFIG} has no pipelines"))?;
    pipelines.retain(|key, _| key == name);
    let pipeline = pipelines.get(name).cloned();
    let pipeline = pipeline.with_context(|| format!("{CONFIG} has no pipeline {name}"))?;
    for kind in ["receivers", "exporters"] {
        let used = pipeline[kind].as_sequence().cloned().unwrap_or_default();
        let declared = config[kind].as_mapping_mut();
        let declared = declared.with_context(|| format!("{CONFIG} has no {kind}"))?;
        declared.retain(|key, _| used.contains(key));
    }
    Ok(())
}
