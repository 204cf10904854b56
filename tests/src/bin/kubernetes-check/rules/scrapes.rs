//! What Prometheus finds to scrape, by its own configuration, evaluated as it would.

use crate::{
    objects::{Object, entries, list, selects, text},
    world::World,
};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// Each job and the apps whose pods it scrapes, at the port of this name.
const JOBS: [(&str, &[&str], &str); 10] = [
    ("rest-api", &["rest-api"], "http"),
    ("mcp-server", &["mcp-server"], "http"),
    ("worker", &["worker"], "http"),
    ("postgres", &["postgres-exporter"], "http"),
    ("redis", &["redis-exporter"], "http"),
    ("prometheus", &["prometheus"], "http"),
    ("alertmanager", &["alertmanager"], "http"),
    ("loki", &["loki"], "http"),
    (
        "otel-collector",
        &["otel-collector", "otel-collector-logs"],
        "metrics",
    ),
    ("jaeger", &["jaeger"], "metrics"),
];

/// A port that Prometheus's discovery of pods finds.
struct Target {
    namespace: String,
    app: String,
    port: String,
    labels: Labels,
}

pub(super) fn each_job_scrapes_the_pods_that_it_is_for(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for (place, configuration) in configurations(world, &mut findings) {
        let jobs = list(&configuration, "/scrape_configs");
        for (name, apps, port) in JOBS {
            let Some(job) = jobs.iter().find(|job| job["job_name"] == name) else {
                findings.push(format!("{place}: no job {name}"));
                continue;
            };
            let found: Vec<(String, String)> = targets(world)
                .into_iter()
                .filter(|target| discovers(job, target) && relabelled(job, &target.labels).is_some())
                .map(|target| (target.app, target.port))
                .collect();
            let there = apps
                .iter()
                .filter(|app| world.pods().any(|pod| pod.app() == **app));
            let mut expected: Vec<(String, String)> =
                there.map(|app| ((*app).to_owned(), port.to_owned())).collect();
            let mut found = found;
            found.sort();
            expected.sort();
            if found != expected {
                findings.push(format!(
                    "{place}: job {name} scrapes {found:?}, expected {expected:?}"
                ));
            }
        }
    }
    findings
}

/// The configurations of Prometheus in ConfigMaps.
fn configurations(world: &World<'_>, findings: &mut Vec<String>) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for map in world.of_kind("ConfigMap") {
        if let Some(text) = map.0["data"]["prometheus.yml"].as_str() {
            match yaml_serde::from_str(text) {
                Ok(configuration) => found.push((map.to_string(), configuration)),
                Err(error) => findings.push(format!("{map}: prometheus.yml: {error}")),
            }
        }
    }
    found
}

fn discovers(job: &Value, target: &Target) -> bool {
    list(job, "/kubernetes_sd_configs").iter().any(|discovery| {
        let namespaces = list(discovery, "/namespaces/names");
        discovery["role"] == "pod"
            && (namespaces.is_empty() || namespaces.iter().any(|name| *name == target.namespace))
    })
}

/// What discovery says of each port of each pod.
fn targets(world: &World<'_>) -> Vec<Target> {
    let mut found = Vec::new();
    for pod in world.pods() {
        for container in pod.containers() {
            for port in list(container, "/ports") {
                let mut labels = Labels::new();
                let mut set = |name: &str, value: &str| {
                    labels.insert(format!("__meta_kubernetes_{name}"), value.to_owned());
                };
                set("namespace", pod.namespace());
                set("pod_name", &format!("{}-0", pod.owner.name()));
                set("pod_phase", "Running");
                set("pod_ready", "true");
                set("pod_container_name", text(container, "name"));
                set("pod_container_port_name", text(port, "name"));
                set("pod_container_port_number", &port["containerPort"].to_string());
                for (kind, map) in [("label", pod.labels()), ("annotation", pod.annotations())] {
                    for (key, value) in entries(map, "") {
                        let key = key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                        set(&format!("pod_{kind}_{key}"), value.as_str().unwrap_or_default());
                        set(&format!("pod_{kind}present_{key}"), "true");
                    }
                }
                found.push(Target {
                    namespace: pod.namespace().to_owned(),
                    app: pod.app().to_owned(),
                    port: text(port, "name").to_owned(),
                    labels,
                });
            }
        }
    }
    found
}

/// The labels after a job's relabelling; None: dropped.
fn relabelled(job: &Value, labels: &Labels) -> Option<Labels> {
    let mut labels = labels.clone();
    for step in list(job, "/relabel_configs") {
        let sources = list(step, "/source_labels").iter().filter_map(Value::as_str);
        let values: Vec<&str> = sources
            .map(|name| labels.get(name).map_or("", String::as_str))
            .collect();
        let joined = values.join(step["separator"].as_str().unwrap_or(";"));
        let pattern = step["regex"].as_str().unwrap_or("(.*)");
        let regex = Regex::new(&format!("^(?s:{pattern})$")).ok()?;
        match step["action"].as_str().unwrap_or("replace") {
            "keep" if !regex.is_match(&joined) => return None,
            "drop" if regex.is_match(&joined) => return None,
            "keep" | "drop" => {}
            "replace" => {
                if let Some(captures) = regex.captures(&joined) {
                    let mut value = String::new();
                    captures.expand(step["replacement"].as_str().unwrap_or("$1"), &mut value);
                    labels.insert(text(step, "target_label").to_owned(), value);
                }
            }
            "labelmap" => {
                let mapped: Vec<(String, String)> = labels
                    .iter()
                    .filter(|(name, _)| regex.is_match(name))
                    .map(|(name, value)| (regex.replace(name, "$1").into_owned(), value.clone()))
                    .collect();
                labels.extend(mapped);
            }
            _ => return None,
        }
    }
    Some(labels)
}

/// By Roles, in each namespace that it looks into.
pub(super) fn prometheus_may_look_where_it_looks(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let account = world
        .app("devops-mcp-monitoring", "prometheus")
        .map(|pod| text(pod.spec(), "serviceAccountName").to_owned());
    let Some(account) = account else {
        return findings;
    };
    for (place, configuration) in configurations(world, &mut findings) {
        let jobs = list(&configuration, "/scrape_configs").iter();
        let namespaces = jobs.flat_map(|job| list(job, "/kubernetes_sd_configs"));
        let mut namespaces: Vec<&str> = namespaces
            .flat_map(|discovery| list(discovery, "/namespaces/names"))
            .filter_map(Value::as_str)
            .collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        for namespace in namespaces
            .into_iter()
            .filter(|namespace| !may_list_pods(world, namespace, &account))
        {
            findings.push(format!("{place}: {account} may not list pods in {namespace}"));
        }
    }
    findings
}

fn may_list_pods(world: &World<'_>, namespace: &str, account: &str) -> bool {
    let mut bindings = world
        .of_kind("RoleBinding")
        .filter(|binding| binding.namespace() == namespace);
    bindings.any(|binding| {
        let bound = binding.list("/subjects").iter().any(|subject| {
            subject["kind"] == "ServiceAccount"
                && subject["name"] == account
                && subject["namespace"] == "devops-mcp-monitoring"
        });
        let role = world.find("Role", namespace, binding.text("/roleRef/name"));
        bound && role.is_some_and(lists_pods)
    })
}

fn lists_pods(role: &Object) -> bool {
    role.list("/rules").iter().any(|rule| {
        let has = |key, value: &str| list(rule, key).contains(&json!(value));
        has("/apiGroups", "")
            && has("/resources", "pods")
            && ["get", "list", "watch"].iter().all(|verb| has("/verbs", verb))
    })
}

/// The operator's.
pub(super) fn monitors_find_ports_that_exist(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for monitor in world.of_kind("PodMonitor").chain(world.of_kind("ServiceMonitor")) {
        let names = monitor.list("/spec/namespaceSelector/matchNames");
        let within = |namespace: &str| match names {
            [] => namespace == monitor.namespace(),
            names => names.contains(&json!(namespace)),
        };
        let selector = &monitor.0["spec"]["selector"];
        let (endpoints, found): (_, Vec<Vec<&Value>>) = if monitor.kind() == "PodMonitor" {
            let pods = world
                .pods()
                .filter(|pod| within(pod.namespace()) && selects(selector, pod.labels()));
            let ports = pods.map(|pod| {
                pod.containers()
                    .iter()
                    .flat_map(|container| list(container, "/ports"))
                    .collect()
            });
            (monitor.list("/spec/podMetricsEndpoints"), ports.collect())
        } else {
            let services = world.of_kind("Service").filter(|service| {
                within(service.namespace()) && selects(selector, &service.0["metadata"]["labels"])
            });
            (
                monitor.list("/spec/endpoints"),
                services
                    .map(|service| service.list("/spec/ports").iter().collect())
                    .collect(),
            )
        };
        if found.is_empty() || endpoints.is_empty() {
            findings.push(format!("{monitor}: finds nothing"));
        }
        for endpoint in endpoints {
            let port = &endpoint["port"];
            if !found
                .iter()
                .all(|ports| ports.iter().any(|declared| declared["name"] == *port))
            {
                findings.push(format!("{monitor}: there is no port {port} in all that it finds"));
            }
        }
    }
    findings
}
