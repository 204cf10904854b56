//! What pods read: ConfigMaps, Secrets and volumes.

use crate::{
    objects::{Pod, entries, list, text},
    world::World,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The Secrets that `deploy/kubernetes/secrets.sh` makes, and their keys.
pub(super) const SECRETS: [(&str, &str, &[&str]); 12] = [
    ("devops-mcp", "service-token", &["service_token"]),
    ("devops-mcp", "admin-token", &["admin_token"]),
    ("devops-mcp", "credentials-keys", &["credentials_keys"]),
    ("devops-mcp", "database", &["url", "password"]),
    ("devops-mcp", "redis", &["url"]),
    ("devops-mcp", "rest-api-tls", TLS),
    ("devops-mcp", "mcp-server-tls", TLS),
    ("devops-mcp", "worker-tls", TLS),
    (
        "devops-mcp-monitoring",
        "alertmanager",
        &[
            "slack_webhook_url",
            "pagerduty_routing_key",
            "dead_man_url",
            "incidents_url",
            "incidents_api_key",
        ],
    ),
    ("devops-mcp-monitoring", "grafana-admin", &["password"]),
    (
        "devops-mcp-monitoring",
        "postgres-exporter",
        &["uri", "user", "password"],
    ),
    ("devops-mcp-monitoring", "redis-exporter", &["address"]),
];
const TLS: &[&str] = &["tls.crt", "tls.key", "ca.crt"];
/// Who may read a Secret that is not everybody's: `namespace/name`, workload.
const READERS: [(&str, &[&str]); 6] = [
    ("devops-mcp/credentials-keys", &["rest-api"]),
    ("devops-mcp/database", &["rest-api"]),
    ("devops-mcp/redis", &["rest-api", "mcp-server"]),
    ("devops-mcp/rest-api-tls", &["rest-api"]),
    ("devops-mcp/mcp-server-tls", &["mcp-server"]),
    ("devops-mcp/worker-tls", &["worker"]),
];
/// What only tests bring; programs make what these read.
const OF_TESTS: [&str; 3] = ["postgres", "redis", "alert-sink"];
/// Who reads a Secret as a variable, since it reads it in no other way.
const BY_VARIABLE: [&str; 1] = ["redis-exporter"];

/// What a pod reads of a ConfigMap or Secret.
pub(super) struct Reference<'a> {
    /// `ConfigMap` or `Secret`.
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    /// None: all of them.
    pub(super) key: Option<&'a str>,
    pub(super) optional: bool,
    /// Read as a variable, not as a file.
    pub(super) variable: bool,
}

/// Everything that a pod reads of ConfigMaps and Secrets.
pub(super) fn references<'a>(pod: &Pod<'a>) -> Vec<Reference<'a>> {
    let mut found = Vec::new();
    for container in pod.all_containers() {
        for source in list(container, "/envFrom") {
            let part = |kind, key: &str, name_key| of_source(kind, &source[key], name_key, true);
            found.extend(part("ConfigMap", "configMapRef", "name"));
            found.extend(part("Secret", "secretRef", "name"));
        }
        for variable in list(container, "/env") {
            for (kind, key) in [("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")] {
                let source = &variable["valueFrom"][key];
                let whole = of_source(kind, source, "name", true);
                found.extend(whole.into_iter().map(|whole| Reference {
                    key: source["key"].as_str(),
                    ..whole
                }));
            }
        }
    }
    for volume in list(pod.spec(), "/volumes") {
        found.extend(of_source("ConfigMap", &volume["configMap"], "name", false));
        found.extend(of_source("Secret", &volume["secret"], "secretName", false));
        for source in list(volume, "/projected/sources") {
            found.extend(of_source("ConfigMap", &source["configMap"], "name", false));
            found.extend(of_source("Secret", &source["secret"], "name", false));
        }
    }
    found
}

/// The keys that a volume or a source of variables takes: its items, or all.
fn of_source<'a>(
    kind: &'static str,
    source: &'a Value,
    name_key: &str,
    variable: bool,
) -> Vec<Reference<'a>> {
    if source.is_null() {
        return Vec::new();
    }
    let reference = |key| Reference {
        kind,
        name: text(source, name_key),
        key,
        optional: source["optional"] == true,
        variable,
    };
    match list(source, "/items") {
        [] => vec![reference(None)],
        items => items.iter().map(|item| reference(item["key"].as_str())).collect(),
    }
}

/// The keys of a ConfigMap or Secret that is there when the pods come; none where it is not.
pub(super) fn keys<'a>(
    world: &'a World<'_>,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Option<BTreeSet<&'a str>> {
    if let Some(object) = world.find(kind, namespace, name) {
        let parts = ["data", "stringData", "binaryData"];
        let maps = parts.iter().filter_map(|part| object.0[part].as_object());
        return Some(maps.flat_map(|map| map.keys().map(String::as_str)).collect());
    }
    let issued = world.of_kind("Certificate").any(|certificate| {
        certificate.namespace() == namespace && certificate.text("/spec/secretName") == name
    });
    if kind == "Secret" && issued {
        return Some(TLS.iter().copied().collect());
    }
    let known = SECRETS.iter().filter(|_| kind == "Secret");
    let mut known = known.filter(|(known, secret, _)| *known == namespace && *secret == name);
    known.next().map(|(_, _, keys)| keys.iter().copied().collect())
}

pub(super) fn what_pods_read_is_there(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods().filter(|pod| !OF_TESTS.contains(&pod.app())) {
        for reference in references(&pod).iter().filter(|reference| !reference.optional) {
            let Reference { kind, name, key, .. } = reference;
            match (keys(world, kind, pod.namespace(), name), key) {
                (None, _) => findings.push(format!("{}: there is no {kind} {name}", pod.owner)),
                (Some(keys), Some(key)) if !keys.contains(key) => {
                    findings.push(format!("{}: {kind} {name} has no key {key}", pod.owner));
                }
                _ => {}
            }
        }
    }
    findings
}

/// Variables are inherited, dumped and shown.
pub(super) fn secrets_are_files_and_read_by_those_they_are_for(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods().filter(|pod| !OF_TESTS.contains(&pod.app())) {
        let references = references(&pod);
        for reference in references.iter().filter(|reference| reference.kind == "Secret") {
            let name = reference.name;
            if reference.variable && !BY_VARIABLE.contains(&pod.app()) {
                findings.push(format!("{}: Secret {name} becomes a variable", pod.owner));
            }
            let full = format!("{}/{name}", pod.namespace());
            let readers = READERS.iter().find(|(secret, _)| *secret == full);
            if readers.is_some_and(|(_, readers)| !readers.contains(&pod.app())) {
                findings.push(format!("{}: Secret {name} is not for it", pod.owner));
            }
        }
        for volume in list(pod.spec(), "/volumes") {
            let mode = match (&volume["secret"], &volume["projected"]) {
                (Value::Null, projected)
                    if list(projected, "/sources")
                        .iter()
                        .any(|source| !source["secret"].is_null()) =>
                {
                    &projected["defaultMode"]
                }
                (Value::Null, _) => continue,
                (secret, _) => &secret["defaultMode"],
            };
            // What others may do: nothing.
            if mode.as_u64().is_none_or(|mode| mode & 0o007 != 0) {
                findings.push(format!(
                    "{}: volume {}: expected defaultMode 0440",
                    pod.owner,
                    text(volume, "name")
                ));
            }
        }
    }
    findings
}

pub(super) fn volumes_are_declared_and_used(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods() {
        let claims = list(&pod.owner.0, "/spec/volumeClaimTemplates").iter();
        let claims: BTreeSet<&str> = claims
            .filter_map(|claim| claim["metadata"]["name"].as_str())
            .collect();
        let volumes = list(pod.spec(), "/volumes").iter();
        let mut declared: BTreeSet<&str> = volumes.clone().map(|volume| text(volume, "name")).collect();
        declared.extend(claims);
        let mounts = pod
            .all_containers()
            .flat_map(|container| list(container, "/volumeMounts"));
        let mounted: BTreeSet<&str> = mounts.map(|mount| text(mount, "name")).collect();
        for name in declared.symmetric_difference(&mounted) {
            findings.push(format!(
                "{}: volume {name} is not both declared and mounted",
                pod.owner
            ));
        }
        for volume in volumes {
            let claim = text(&volume["persistentVolumeClaim"], "claimName");
            if !claim.is_empty()
                && world
                    .find("PersistentVolumeClaim", pod.namespace(), claim)
                    .is_none()
            {
                findings.push(format!(
                    "{}: there is no PersistentVolumeClaim {claim}",
                    pod.owner
                ));
            }
        }
    }
    findings
}

/// What nobody reads was meant for somebody.
pub(super) fn configuration_is_read_by_somebody(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for map in world.of_kind("ConfigMap") {
        let pods = world.pods().filter(|pod| pod.namespace() == map.namespace());
        let mut read = pods.flat_map(|pod| references(&pod));
        // Grafana's sidecar finds them by such a label.
        let by_sidecar = entries(&map.0, "/metadata/labels").any(|(label, _)| label.starts_with("grafana_"));
        if !by_sidecar && !read.any(|reference| reference.kind == "ConfigMap" && reference.name == map.name())
        {
            findings.push(format!("{map}: is read by nobody"));
        }
    }
    findings
}
