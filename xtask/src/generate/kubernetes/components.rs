//! Alertmanager, Grafana, Loki, Jaeger and the exporters.

use super::{
    File, dashboards,
    objects::{Component, MONITORING, Volume, checksum, config_map, setting, variable},
    sources::Sources,
};
use serde_json::{Value, json};

/// Their files, and one for each dashboard.
pub(super) fn files(sources: &Sources) -> anyhow::Result<Vec<File>> {
    let mut files = vec![
        alertmanager(sources)?,
        grafana(sources)?,
        loki(sources)?,
        jaeger(sources)?,
        postgres_exporter(sources)?,
        redis_exporter(sources)?,
    ];
    files.extend(dashboards(sources, "dashboard-", &[])?);
    Ok(files)
}

fn alertmanager(sources: &Sources) -> anyhow::Result<File> {
    let mut texts = vec![(
        "config.yml".to_owned(),
        sources.text("deploy/alertmanager/config.yml")?,
    )];
    let templates = sources.files("deploy/alertmanager/templates", ".tmpl")?;
    let mounted: Vec<(String, String)> = templates
        .iter()
        .map(|(name, _)| (name.clone(), format!("templates/{name}")))
        .chain([("config.yml".to_owned(), "config.yml".to_owned())])
        .collect();
    let mounted: Vec<(&str, &str, &str)> = mounted
        .iter()
        .map(|(key, path)| ("alertmanager", key.as_str(), path.as_str()))
        .collect();
    texts.extend(templates);
    let component = Component {
        env: vec![setting("PUBLIC_URL", "ALERTMANAGER_URL")],
        ports: &[("http", 9093)],
        health: ("http", "/-/healthy", "/-/ready"),
        requests: ("20m", "64Mi"),
        volumes: vec![
            Volume::config("/etc/alertmanager", &mounted),
            // Read anew for each notification: it starts without them, and fails to notify until they are there.
            Volume::secret("/run/secrets", "alertmanager", json!({"optional": true})),
            Volume::claimed("/alertmanager"),
        ],
        checksum: Some(checksum_of(&texts)),
        ..Component::of("alertmanager", &sources.service("alertmanager")?)
    };
    let about = "deploy/alertmanager, byte for byte. Whom it tells stands in the Secret `alertmanager`\n\
        (slack_webhook_url, pagerduty_routing_key, dead_man_url, incidents_url,\n\
        incidents_api_key): docs/KUBERNETES.md.";
    let objects = vec![
        config_map(MONITORING, "alertmanager", "alertmanager", &data(texts)),
        component.account(),
        component.service(&["http"]),
        component.stateful_set("1Gi"),
    ];
    Ok(File::new("alertmanager", about, objects))
}

fn grafana(sources: &Sources) -> anyhow::Result<File> {
    const PROVISIONING: &str = "deploy/grafana/provisioning";
    let mut texts = sources.files(&format!("{PROVISIONING}/datasources"), ".yaml")?;
    texts.extend(sources.files(&format!("{PROVISIONING}/dashboards"), ".yaml")?);
    let dashboards = sources.files("dashboards", ".json")?;
    let projected: Vec<Value> = dashboards
        .iter()
        .map(|(name, _)| json!({"configMap": {"name": format!("dashboard-{}", name.trim_end_matches(".json"))}}))
        .collect();
    let service = sources.service("grafana")?;
    let environment = service
        .environment
        .iter()
        .map(|(name, value)| match name.as_str() {
            "GF_SERVER_ROOT_URL" => setting(name, "GRAFANA_URL"),
            _ => variable(name, value),
        });
    let component = Component {
        env: environment.collect(),
        ports: &[("http", 3000)],
        health: ("http", "/api/health", "/api/health"),
        user: 472,
        requests: ("50m", "128Mi"),
        volumes: vec![
            Volume::config(
                "/etc/grafana/provisioning",
                &[
                    ("grafana", "datasources.yaml", "datasources/datasources.yaml"),
                    ("grafana", "dashboards.yaml", "dashboards/dashboards.yaml"),
                ],
            ),
            // Found in the file that GF_SECURITY_ADMIN_PASSWORD__FILE names; without one it does not start.
            Volume::secret(
                "/run/secrets",
                "grafana-admin",
                json!({"items": [{"key": "password", "path": "grafana_admin_password"}]}),
            ),
            Volume::claimed("/var/lib/grafana"),
            Volume::read(
                "dashboards",
                "/var/lib/grafana/dashboards",
                json!({"projected": {"sources": projected}}),
            ),
            Volume::scratch("tmp", "/tmp", "64Mi"),
        ],
        checksum: Some(checksum_of(&texts)),
        ..Component::of("grafana", &service)
    };
    let about = "deploy/grafana/provisioning, byte for byte. Its password is in the Secret `grafana-admin`: it does not\n\
        start without. Changed dashboards (dashboard-*.yaml) are shown within minutes, without a restart.";
    let objects = vec![
        config_map(MONITORING, "grafana", "grafana", &data(texts)),
        component.account(),
        component.service(&["http"]),
        component.stateful_set("1Gi"),
    ];
    Ok(File::new("grafana", about, objects))
}

fn loki(sources: &Sources) -> anyhow::Result<File> {
    let config = sources.text("deploy/loki/config.yaml")?;
    let component = Component {
        ports: &[("http", 3100)],
        health: ("http", "/loki/api/v1/status/buildinfo", "/ready"),
        user: 10001,
        requests: ("100m", "256Mi"),
        volumes: vec![
            Volume::config("/etc/loki", &[("loki", "config.yaml", "config.yaml")]),
            Volume::claimed("/loki"),
            Volume::scratch("tmp", "/tmp", "64Mi"),
        ],
        checksum: Some(checksum(&[&config])),
        ..Component::of("loki", &sources.service("loki")?)
    };
    let objects = vec![
        config_map(MONITORING, "loki", "loki", &json!({"config.yaml": config})),
        component.account(),
        component.service(&["http"]),
        component.stateful_set("20Gi"),
    ];
    let about = "deploy/loki/config.yaml, byte for byte: one process on one volume. docs/SCALING.md: what follows past one machine.";
    Ok(File::new("loki", about, objects))
}

fn jaeger(sources: &Sources) -> anyhow::Result<File> {
    let config = sources.text("deploy/jaeger/config.yaml")?;
    let component = Component {
        ports: &[
            ("http", 16686),
            ("otlp-grpc", 4317),
            ("metrics", 8888),
            ("health", 13133),
        ],
        health: ("health", "/status", "/status"),
        user: 10001,
        requests: ("50m", "256Mi"),
        volumes: vec![
            Volume::config("/etc/jaeger", &[("jaeger", "config.yaml", "config.yaml")]),
            Volume::claimed("/tmp"),
        ],
        checksum: Some(checksum(&[&config])),
        ..Component::of("jaeger", &sources.service("jaeger")?)
    };
    let objects = vec![
        config_map(MONITORING, "jaeger", "jaeger", &json!({"config.yaml": config})),
        component.account(),
        component.service(&["http", "otlp-grpc"]),
        component.stateful_set("10Gi"),
    ];
    let about = "deploy/jaeger/config.yaml, byte for byte: Badger on one volume. docs/SCALING.md: what follows past one machine.";
    Ok(File::new("jaeger", about, objects))
}

fn postgres_exporter(sources: &Sources) -> anyhow::Result<File> {
    let file = |name: &str, key: &str| variable(name, &format!("/run/secrets/{key}"));
    let component = Component {
        env: vec![
            file("DATA_SOURCE_URI_FILE", "uri"),
            file("DATA_SOURCE_USER_FILE", "user"),
            file("DATA_SOURCE_PASS_FILE", "password"),
        ],
        ports: &[("http", 9187)],
        volumes: vec![Volume::secret("/run/secrets", "postgres-exporter", json!({}))],
        ..Component::of("postgres-exporter", &sources.service("postgres-exporter")?)
    };
    let about = "Needs the Secret `postgres-exporter`: uri (host:port/database?sslmode=…), user and password of somebody who\n\
        may read pg_monitor's views.";
    let objects = vec![
        component.account(),
        component.service(&["http"]),
        component.deployment(),
    ];
    Ok(File::new("postgres-exporter", about, objects))
}

fn redis_exporter(sources: &Sources) -> anyhow::Result<File> {
    let secret = |name: &str, key: &str, optional: bool| {
        let reference = json!({"name": "redis-exporter", "key": key, "optional": optional});
        json!({"name": name, "valueFrom": {"secretKeyRef": reference}})
    };
    let component = Component {
        env: vec![
            secret("REDIS_ADDR", "address", false),
            secret("REDIS_PASSWORD", "password", true),
        ],
        ports: &[("http", 9121)],
        ..Component::of("redis-exporter", &sources.service("redis-exporter")?)
    };
    let about = "Needs the Secret `redis-exporter`: address (redis://host:port), and password where there is one. As\n\
        variables: the file that the exporter can read is a list of passwords by address.";
    let objects = vec![
        component.account(),
        component.service(&["http"]),
        component.deployment(),
    ];
    Ok(File::new("redis-exporter", about, objects))
}

fn data(texts: Vec<(String, String)>) -> Value {
    Value::Object(
        texts
            .into_iter()
            .map(|(name, text)| (name, json!(text)))
            .collect(),
    )
}

fn checksum_of(texts: &[(String, String)]) -> String {
    let texts: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
    checksum(&texts)
}
