//! Who talks to whom, and who must not.

use crate::{
    network::{Peer, lets_through, meets_any, picks},
    objects::list,
    world::World,
};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

const SERVICES: &str = "devops-mcp";
const MONITORING: &str = "devops-mcp-monitoring";
const LOGS: &str = "devops-mcp-logs";
/// Where kube-prometheus-stack usually is.
const STACK: &str = "monitoring";

/// A machine of the company's, where databases are; one of the Internet; the cloud's metadata service.
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 20, 30, 40);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The metadata service behind NAT64, as IPv6 has it.
const WRAPPED: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// Ours by `namespace/app`, or what stands around us.
fn peer(world: &World<'_>, name: &str) -> Option<Peer> {
    let foreign = |namespace, labels| Some(Peer::foreign(namespace, labels));
    match name {
        "edge" => foreign(
            "ingress-nginx",
            json!({"app.kubernetes.io/name": "ingress-nginx"}),
        ),
        "stranger" => foreign("default", json!({"app.kubernetes.io/name": "rest-api"})),
        "neighbour" => foreign(SERVICES, json!({"app": "of-somebody-else"})),
        "private" => Some(Peer::address(PRIVATE)),
        "public" => Some(Peer::address(PUBLIC)),
        "metadata" => Some(Peer::address(METADATA)),
        "metadata-by-ipv6" => Some(Peer::address(WRAPPED)),
        ours => {
            let (namespace, app) = ours.split_once('/')?;
            world.app(namespace, app).map(|pod| Peer::of(&pod))
        }
    }
}

/// From, to, port.
type Flow = (&'static str, &'static str, &'static str);

/// What the product does not work without.
const NEEDED: &[Flow] = &[
    ("devops-mcp/mcp-server", "devops-mcp/rest-api", "grpc"),
    ("devops-mcp/rest-api", "devops-mcp/worker", "grpc"),
    ("devops-mcp/worker", "devops-mcp/rest-api", "grpc"),
    ("devops-mcp/rest-api", "private", "5432"),
    ("devops-mcp/rest-api", "private", "6379"),
    ("devops-mcp/mcp-server", "private", "6379"),
    ("devops-mcp/worker", "public", "443"),
    ("edge", "devops-mcp/rest-api", "http"),
    ("edge", "devops-mcp/mcp-server", "http"),
    (
        "devops-mcp/rest-api",
        "devops-mcp-monitoring/otel-collector",
        "4317",
    ),
    (
        "devops-mcp/mcp-server",
        "devops-mcp-monitoring/otel-collector",
        "4317",
    ),
    (
        "devops-mcp/worker",
        "devops-mcp-monitoring/otel-collector",
        "4317",
    ),
    (
        "devops-mcp-monitoring/otel-collector",
        "devops-mcp-monitoring/jaeger",
        "4317",
    ),
    (
        "devops-mcp-logs/otel-collector-logs",
        "devops-mcp-monitoring/loki",
        "3100",
    ),
    (
        "devops-mcp-monitoring/prometheus",
        "devops-mcp-monitoring/alertmanager",
        "9093",
    ),
    ("devops-mcp-monitoring/prometheus", "private", "443"),
    ("devops-mcp-monitoring/prometheus", "private", "6443"),
    (
        "devops-mcp-monitoring/grafana",
        "devops-mcp-monitoring/prometheus",
        "9090",
    ),
    (
        "devops-mcp-monitoring/grafana",
        "devops-mcp-monitoring/loki",
        "3100",
    ),
    (
        "devops-mcp-monitoring/grafana",
        "devops-mcp-monitoring/jaeger",
        "16686",
    ),
    (
        "devops-mcp-monitoring/grafana",
        "devops-mcp-monitoring/alertmanager",
        "9093",
    ),
    ("devops-mcp-monitoring/alertmanager", "public", "443"),
    ("devops-mcp-monitoring/postgres-exporter", "private", "5432"),
    ("devops-mcp-monitoring/redis-exporter", "private", "6379"),
];

/// What a service that was taken over would try first.
const FORBIDDEN: &[Flow] = &[
    ("devops-mcp/mcp-server", "devops-mcp/worker", "grpc"),
    ("devops-mcp/mcp-server", "private", "5432"),
    ("devops-mcp/mcp-server", "public", "443"),
    ("devops-mcp/rest-api", "public", "443"),
    ("devops-mcp/worker", "private", "5432"),
    ("devops-mcp/worker", "private", "6379"),
    ("devops-mcp/worker", "private", "443"),
    ("devops-mcp/worker", "metadata", "80"),
    ("devops-mcp/worker", "metadata-by-ipv6", "80"),
    ("devops-mcp/rest-api", "metadata", "80"),
    ("devops-mcp/rest-api", "devops-mcp/worker", "http"),
    ("devops-mcp/mcp-server", "devops-mcp/worker", "http"),
    ("devops-mcp/worker", "devops-mcp/rest-api", "http"),
    ("devops-mcp/worker", "devops-mcp/mcp-server", "http"),
    ("devops-mcp/worker", "devops-mcp/worker", "http"),
    ("edge", "devops-mcp/worker", "http"),
    ("edge", "devops-mcp/worker", "grpc"),
    ("edge", "devops-mcp/rest-api", "grpc"),
    ("stranger", "devops-mcp/rest-api", "http"),
    ("stranger", "devops-mcp/rest-api", "grpc"),
    ("stranger", "devops-mcp/mcp-server", "http"),
    ("stranger", "devops-mcp/worker", "http"),
    ("stranger", "devops-mcp/worker", "grpc"),
    ("neighbour", "devops-mcp/rest-api", "grpc"),
    ("neighbour", "devops-mcp/worker", "grpc"),
    ("private", "devops-mcp/rest-api", "grpc"),
    ("private", "devops-mcp/worker", "grpc"),
    ("devops-mcp-monitoring/grafana", "devops-mcp/rest-api", "http"),
    (
        "devops-mcp-logs/otel-collector-logs",
        "devops-mcp/rest-api",
        "grpc",
    ),
    ("devops-mcp-logs/otel-collector-logs", "private", "443"),
    ("devops-mcp-monitoring/prometheus", "devops-mcp/rest-api", "grpc"),
    ("stranger", "devops-mcp-monitoring/prometheus", "http"),
    ("stranger", "devops-mcp-monitoring/alertmanager", "http"),
    ("stranger", "devops-mcp-monitoring/loki", "http"),
    ("stranger", "devops-mcp-monitoring/otel-collector", "4317"),
];

/// Whether a namespace is closed: there is something to hold the flows against.
fn is_closed(world: &World<'_>, namespace: &str) -> bool {
    world.of_kind("NetworkPolicy").any(|policy| {
        policy.namespace() == namespace
            && policy.0["spec"]["podSelector"] == json!({})
            && policy.list("/spec/policyTypes").len() == 2
            && policy.list("/spec/ingress").is_empty()
            && policy.list("/spec/egress").is_empty()
    })
}

/// The edge is part of this way to deploy, or is not.
fn has_edge(world: &World<'_>) -> bool {
    world.of_kind("Ingress").next().is_some()
}

/// The flows whose two ends are there and closed, with the port's number.
fn flows<'a>(
    world: &'a World<'_>,
    of: &'a [Flow],
    closed: fn(&World<'_>, &Flow) -> bool,
) -> impl Iterator<Item = (Peer, Peer, u64)> + 'a {
    of.iter()
        .filter(move |flow| closed(world, flow))
        .filter_map(|(from, to, port)| {
            let (from, to) = (peer(world, from)?, peer(world, to)?);
            let port = to.port(port)?;
            Some((from, to, port))
        })
}

pub(super) fn what_must_talk_gets_through(world: &World<'_>) -> Vec<String> {
    let meant = |world: &World<'_>, flow: &Flow| flow.0 != "edge" || has_edge(world);
    flows(world, NEEDED, meant)
        .filter(|(from, to, port)| !lets_through(world, from, to, *port))
        .map(|(from, to, port)| format!("policies keep {} from {}:{port}", from.name, to.name))
        .collect()
}

pub(super) fn what_must_not_talk_is_kept_apart(world: &World<'_>) -> Vec<String> {
    let meant = |world: &World<'_>, (from, to, _): &Flow| {
        let namespace = |name: &str| {
            name.split_once('/')
                .is_some_and(|(namespace, _)| is_closed(world, namespace))
        };
        namespace(from) || namespace(to)
    };
    flows(world, FORBIDDEN, meant)
        .filter(|(from, to, port)| lets_through(world, from, to, *port))
        .map(|(from, to, port)| format!("policies let {} reach {}:{port}", from.name, to.name))
        .collect()
}

/// Closed with both sides: what nobody thought of does not get through.
pub(super) fn policies_start_from_a_closed_namespace(world: &World<'_>) -> Vec<String> {
    [SERVICES, MONITORING, LOGS]
        .into_iter()
        .filter(|namespace| {
            let mut policies = world.of_kind("NetworkPolicy");
            policies.any(|policy| policy.namespace() == *namespace) && !is_closed(world, namespace)
        })
        .map(|namespace| format!("{namespace}: has policies, and none that denies the rest"))
        .collect()
}

pub(super) fn policies_and_their_peers_match_pods(world: &World<'_>) -> Vec<String> {
    let mut known: Vec<Peer> = world.pods().map(|pod| Peer::of(&pod)).collect();
    // Not ours, and there in every cluster of this kind.
    known.push(Peer::foreign("kube-system", json!({"k8s-app": "kube-dns"})));
    known.extend(peer(world, "edge"));
    let stack = json!({"app.kubernetes.io/name": "prometheus"});
    known.push(Peer::foreign(STACK, stack));
    // Those of tests come and go.
    known.push(Peer::foreign(
        SERVICES,
        json!({"app.kubernetes.io/name": "cluster-test"}),
    ));
    let mut findings = Vec::new();
    for policy in world.of_kind("NetworkPolicy") {
        if !known.iter().any(|pod| picks(policy, pod)) {
            findings.push(format!("{policy}: is about no pod"));
        }
        for (side, key) in [("/spec/ingress", "/from"), ("/spec/egress", "/to")] {
            for peer in policy.list(side).iter().flat_map(|rule| list(rule, key)) {
                if peer["ipBlock"].is_null() && !meets_any(world, policy, peer, &known) {
                    findings.push(format!("{policy}: {peer} matches no pod that is known"));
                }
            }
        }
    }
    findings
}

/// Whoever lets its pods out somewhere meant them to arrive. The other way round, a door may be open for those who are
/// let out by a component that not everybody takes.
pub(super) fn what_a_policy_lets_out_arrives(world: &World<'_>) -> Vec<String> {
    let peers: Vec<Peer> = world.pods().map(|pod| Peer::of(&pod)).collect();
    let mut findings = Vec::new();
    for policy in world.of_kind("NetworkPolicy") {
        for rule in policy.list("/spec/egress") {
            for to in &peers {
                let named = |peer: &Value| meets_any(world, policy, peer, std::slice::from_ref(to));
                if !list(rule, "/to").iter().any(named) {
                    continue;
                }
                let tcp = list(rule, "/ports")
                    .iter()
                    .filter(|port| port["protocol"] != "UDP");
                let ports: Vec<u64> = tcp
                    .filter_map(|port| port["port"].as_u64().or_else(|| to.port(port["port"].as_str()?)))
                    .collect();
                for from in peers.iter().filter(|from| picks(policy, from)) {
                    for port in ports.iter().filter(|port| !lets_through(world, from, to, **port)) {
                        findings.push(format!(
                            "{policy}: {} does not reach {}:{port}",
                            from.name, to.name
                        ));
                    }
                }
            }
        }
    }
    findings
}
