//! What NetworkPolicies let through: as Kubernetes documents it, each policy adding to what is allowed.

use crate::{
    objects::{Object, Pod, list, selects},
    world::World,
};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Who speaks or is spoken to.
#[derive(Clone)]
pub(crate) struct Peer {
    /// What a person would call it.
    pub(crate) name: String,
    at: At,
    /// The ports that it names.
    ports: Vec<Value>,
}

#[derive(Clone)]
enum At {
    Pod { namespace: String, labels: Value },
    Address(IpAddr),
}

impl Peer {
    pub(crate) fn of(pod: &Pod<'_>) -> Self {
        let containers = pod.containers().iter();
        Self {
            name: format!("{}/{}", pod.namespace(), pod.app()),
            at: At::Pod {
                namespace: pod.namespace().to_owned(),
                labels: pod.labels().clone(),
            },
            ports: containers
                .flat_map(|container| list(container, "/ports"))
                .cloned()
                .collect(),
        }
    }

    /// A pod that is not ours.
    pub(crate) fn foreign(namespace: &str, labels: Value) -> Self {
        Self {
            name: format!("a pod of {namespace}"),
            at: At::Pod {
                namespace: namespace.to_owned(),
                labels,
            },
            ports: Vec::new(),
        }
    }

    /// A machine outside of the cluster.
    pub(crate) fn address(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        Self {
            name: address.to_string(),
            at: At::Address(address),
            ports: Vec::new(),
        }
    }

    /// The number of a port by its name or number.
    pub(crate) fn port(&self, port: &str) -> Option<u64> {
        let named = self.ports.iter().find(|declared| declared["name"] == port);
        named.map_or_else(
            || port.parse().ok(),
            |declared| declared["containerPort"].as_u64(),
        )
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

/// Whether a connection to a TCP port gets through, both sides' policies taken together.
pub(crate) fn lets_through(world: &World<'_>, from: &Peer, to: &Peer, port: u64) -> bool {
    allows(world, Direction::Egress, from, to, (port, to))
        && allows(world, Direction::Ingress, to, from, (port, to))
}

/// Whether the policies of `own` let it speak with `other`, at a port of `served`.
fn allows(world: &World<'_>, direction: Direction, own: &Peer, other: &Peer, port: (u64, &Peer)) -> bool {
    let mut isolated = false;
    for policy in world.of_kind("NetworkPolicy").filter(|policy| picks(policy, own)) {
        if !rules_on(policy, direction) {
            continue;
        }
        isolated = true;
        let (rules, peers) = match direction {
            Direction::Ingress => ("/spec/ingress", "/from"),
            Direction::Egress => ("/spec/egress", "/to"),
        };
        let through = policy.list(rules).iter().any(|rule| {
            let ports = list(rule, "/ports");
            let known = list(rule, peers);
            (ports.is_empty() || ports.iter().any(|allowed| covers(allowed, port)))
                && (known.is_empty()
                    || known
                        .iter()
                        .any(|peer| meets(world, policy.namespace(), peer, other)))
        });
        if through {
            return true;
        }
    }
    !isolated
}

/// Whether a policy is about this pod.
pub(crate) fn picks(policy: &Object, peer: &Peer) -> bool {
    match &peer.at {
        At::Pod { namespace, labels } => {
            policy.namespace() == namespace && selects(&policy.0["spec"]["podSelector"], labels)
        }
        At::Address(_) => false,
    }
}

fn rules_on(policy: &Object, direction: Direction) -> bool {
    let types = policy.list("/spec/policyTypes");
    match direction {
        Direction::Ingress => types.is_empty() || types.contains(&json!("Ingress")),
        Direction::Egress if types.is_empty() => !policy.0["spec"]["egress"].is_null(),
        Direction::Egress => types.contains(&json!("Egress")),
    }
}

fn covers(allowed: &Value, (port, served): (u64, &Peer)) -> bool {
    if !matches!(allowed["protocol"].as_str(), None | Some("TCP")) {
        return false;
    }
    match &allowed["port"] {
        Value::Null => true,
        Value::String(name) => served.port(name) == Some(port),
        number => {
            let first = number.as_u64().unwrap_or_default();
            (first..=allowed["endPort"].as_u64().unwrap_or(first)).contains(&port)
        }
    }
}

/// Whether a rule's peer, in a policy of `home`, is `other`.
fn meets(world: &World<'_>, home: &str, peer: &Value, other: &Peer) -> bool {
    match &other.at {
        At::Address(address) => {
            let within = |cidr: &Value| {
                let network = cidr.as_str().and_then(|cidr| cidr.parse::<IpNet>().ok());
                network.is_some_and(|network| network.contains(address))
            };
            within(&peer["ipBlock"]["cidr"]) && !list(peer, "/ipBlock/except").iter().any(within)
        }
        At::Pod { .. } if !peer["ipBlock"].is_null() => false,
        At::Pod { namespace, labels } => {
            let at_home = match &peer["namespaceSelector"] {
                Value::Null => namespace == home,
                selector => selects(selector, &labels_of(world, namespace)),
            };
            let picked = peer["podSelector"].is_null() || selects(&peer["podSelector"], labels);
            at_home && picked
        }
    }
}

/// A namespace's labels, with the one that Kubernetes sets itself.
fn labels_of(world: &World<'_>, namespace: &str) -> Value {
    let mut labels = world
        .find("Namespace", "", namespace)
        .map_or_else(|| json!({}), |found| found.0["metadata"]["labels"].clone());
    labels["kubernetes.io/metadata.name"] = namespace.into();
    labels
}

/// Whether a policy's peer is one of these at all.
pub(crate) fn meets_any(world: &World<'_>, policy: &Object, peer: &Value, known: &[Peer]) -> bool {
    known
        .iter()
        .any(|other| meets(world, policy.namespace(), peer, other))
}
