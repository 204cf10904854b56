//! Who talks to whom. Both sides of each connection follow from one table.

use super::{
    File,
    objects::{LOGS, MONITORING, namespace_of, object, selector},
    prometheus::JOBS,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// From, to, ports; what Prometheus scrapes is added.
const TALKS: &[(&str, &str, &[u16])] = &[
    ("grafana", "prometheus", &[9090]),
    ("grafana", "alertmanager", &[9093]),
    ("grafana", "loki", &[3100]),
    ("grafana", "jaeger", &[16686]),
    // What agents ask through the product's own tools; the worker is let out by the component telemetry-tools.
    ("worker", "prometheus", &[9090]),
    ("worker", "alertmanager", &[9093]),
    ("worker", "loki", &[3100]),
    ("worker", "jaeger", &[16686]),
    // Alerts open incidents.
    ("alertmanager", "rest-api", &[8080]),
    ("rest-api", "otel-collector", &[4317]),
    ("mcp-server", "otel-collector", &[4317]),
    ("worker", "otel-collector", &[4317]),
    ("otel-collector", "jaeger", &[4317]),
    ("otel-collector-logs", "loki", &[3100]),
];

/// Addresses that only the installation knows: who sends, to which ports.
const OUTSIDE: &[(&str, &[u16])] = &[
    // The API server.
    ("prometheus", &[443, 6443]),
    // Slack, PagerDuty, the dead man's switch.
    ("alertmanager", &[443]),
    ("postgres-exporter", &[5432]),
    ("redis-exporter", &[6379, 6380]),
];

/// Asks who somebody is; an Ingress may stand before it, anywhere.
const OPEN: (&str, u16) = ("grafana", 3000);

#[derive(Default)]
struct Rules {
    ingress: Vec<Value>,
    egress: Vec<Value>,
}

pub(super) fn file() -> File {
    let mut objects: Vec<Value> = [MONITORING, LOGS].into_iter().flat_map(closed).collect();
    for (component, rules) in rules() {
        let mut spec = json!({"podSelector": {"matchLabels": selector(component)}, "policyTypes": []});
        for (kind, field, rules) in [
            ("Ingress", "ingress", rules.ingress),
            ("Egress", "egress", rules.egress),
        ] {
            if !rules.is_empty() {
                spec["policyTypes"]
                    .as_array_mut()
                    .expect("is a list")
                    .push(json!(kind));
                spec[field] = json!(rules);
            }
        }
        objects.push(policy(namespace_of(component), component, component, &spec));
    }
    let about = "Nothing in, nothing out but names' addresses and what is said here. A database at another port, an\n\
        Alertmanager that tells somebody inside of the cluster: add a NetworkPolicy, they add up. The services' own\n\
        are in deploy/kubernetes/components: telemetry-tools lets the worker, which is let in here, out to here.";
    File::new("02-network-policies", about, objects)
}

/// By component, those of both namespaces.
fn rules() -> BTreeMap<&'static str, Rules> {
    let mut rules: BTreeMap<&str, Rules> = BTreeMap::new();
    let mut ours = |component: &'static str, add: &dyn Fn(&mut Rules)| {
        if [MONITORING, LOGS].contains(&namespace_of(component)) {
            add(rules.entry(component).or_default());
        }
    };
    for ((from, to), numbers) in connections() {
        let numbers: Vec<u16> = numbers.into_iter().collect();
        ours(to, &|rules| {
            rules
                .ingress
                .push(json!({"from": [peer(from)], "ports": ports(&numbers)}));
        });
        ours(from, &|rules| {
            rules
                .egress
                .push(json!({"to": [peer(to)], "ports": ports(&numbers)}));
        });
    }
    for (component, numbers) in OUTSIDE {
        ours(component, &|rules| {
            rules.egress.push(json!({"ports": ports(numbers)}))
        });
    }
    let (open, number) = OPEN;
    ours(open, &|rules| {
        rules.ingress.push(json!({"ports": ports(&[number])}))
    });
    rules
}

fn connections() -> BTreeMap<(&'static str, &'static str), BTreeSet<u16>> {
    let mut connections: BTreeMap<_, BTreeSet<u16>> = BTreeMap::new();
    for (from, to, ports) in TALKS {
        connections.entry((*from, *to)).or_default().extend(*ports);
    }
    for job in JOBS {
        // Prometheus reaches itself in any case.
        for component in job.components.iter().filter(|name| **name != "prometheus") {
            connections
                .entry(("prometheus", component))
                .or_default()
                .insert(job.number);
        }
    }
    connections
}

/// Everything of a namespace, closed but for DNS, which may be anywhere (a cache on the node, too).
fn closed(namespace: &str) -> [Value; 2] {
    let everything = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let dns = json!([{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]);
    let dns = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": dns});
    [
        policy(namespace, "closed", namespace, &everything),
        policy(namespace, "dns", namespace, &dns),
    ]
}

fn policy(namespace: &str, name: &str, component: &str, spec: &Value) -> Value {
    object(
        ("networking.k8s.io/v1", "NetworkPolicy"),
        namespace,
        name,
        component,
        json!({"spec": spec}),
    )
}

fn peer(component: &str) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace_of(component)}},
        "podSelector": {"matchLabels": selector(component)},
    })
}

fn ports(numbers: &[u16]) -> Vec<Value> {
    numbers
        .iter()
        .map(|number| json!({"port": number, "protocol": "TCP"}))
        .collect()
}
