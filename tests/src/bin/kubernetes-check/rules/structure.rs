//! How objects refer to each other by labels and names.

use crate::{
    objects::{Object, entries, list, selects, text},
    world::{Purpose, World},
};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `kubectl apply` keeps a second copy in an annotation, and annotations have a limit.
const LARGEST: usize = 256 << 10;
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
/// The one namespace that is not *restricted*.
const PRIVILEGED: &str = "devops-mcp-logs";

pub(super) fn namespaces_exist_and_say_what_pods_may_do(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for object in world.objects.iter().filter(|object| !object.is_cluster_wide()) {
        if world.find("Namespace", "", object.namespace()).is_none() {
            findings.push(format!(
                "{object}: there is no namespace `{}`",
                object.namespace()
            ));
        }
    }
    for namespace in world.of_kind("Namespace") {
        let expected = if namespace.name() == PRIVILEGED {
            "privileged"
        } else {
            "restricted"
        };
        if namespace.0["metadata"]["labels"][POD_SECURITY] != expected {
            findings.push(format!(
                "{namespace}: expected the label {POD_SECURITY}: {expected}"
            ));
        }
    }
    findings
}

pub(super) fn objects_are_there_once_and_can_be_applied(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut seen: BTreeMap<String, &Object> = BTreeMap::new();
    for object in &world.objects {
        // Two folders may bring the same namespace; each apply would undo the other's otherwise.
        let twin = seen.insert(object.to_string(), object);
        if twin.is_some_and(|twin| twin.0 != object.0) {
            findings.push(format!("{object}: is there twice, and differs"));
        }
        if object.is_cluster_wide() != object.namespace().is_empty() {
            findings.push(format!("{object}: of which namespace?"));
        }
        let size = object.0.to_string().len();
        if size > LARGEST {
            findings.push(format!("{object}: {size} bytes; `kubectl apply` takes {LARGEST}"));
        }
    }
    findings
}

pub(super) fn names_are_names_of_dns(world: &World<'_>) -> Vec<String> {
    let name = Regex::new("^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$").expect("a constant pattern");
    let label = Regex::new("^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$").expect("a constant pattern");
    let mut findings = Vec::new();
    for object in &world.objects {
        if !name.is_match(object.name()) && !object.kind().contains("Role") || object.name().len() > 63 {
            findings.push(format!("{object}: `{}` is no name", object.name()));
        }
        let labels = entries(&object.0, "/metadata/labels");
        for (key, value) in
            labels.filter(|(_, value)| !value.as_str().is_some_and(|value| label.is_match(value)))
        {
            findings.push(format!("{object}: label {key}: {value} cannot be one"));
        }
    }
    findings
}

pub(super) fn everything_says_what_it_is_part_of(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for object in &world.objects {
        let labels = &object.0["metadata"]["labels"];
        for key in ["app.kubernetes.io/name", "app.kubernetes.io/part-of"] {
            if labels[key].is_null() {
                findings.push(format!("{object}: no label {key}"));
            }
        }
    }
    for pod in world.pods() {
        if pod.labels()["app.kubernetes.io/part-of"] != "devops-mcp" || pod.app().is_empty() {
            findings.push(format!(
                "{}: its pods have no name, or are part of nothing",
                pod.owner
            ));
        }
    }
    findings
}

pub(super) fn selectors_pick_their_own_pods_alone(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let owners = world.pods().filter(|pod| pod.is_long_lived());
    for pod in owners {
        let selector = &pod.owner.0["spec"]["selector"];
        if *selector == json!({}) || !selects(selector, pod.labels()) {
            findings.push(format!("{}: its selector does not pick its own pods", pod.owner));
        }
        let others = world.pods().filter(|other| {
            other.namespace() == pod.namespace() && other.owner.to_string() != pod.owner.to_string()
        });
        for other in others.filter(|other| selects(selector, other.labels())) {
            findings.push(format!(
                "{}: its selector picks the pods of {}",
                pod.owner, other.owner
            ));
        }
        for spread in list(pod.spec(), "/topologySpreadConstraints") {
            if !selects(&spread["labelSelector"], pod.labels()) {
                findings.push(format!("{}: it is spread over the pods of others", pod.owner));
            }
        }
    }
    findings
}

pub(super) fn services_lead_to_ports_that_exist(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for service in world.of_kind("Service") {
        let selector = json!({"matchLabels": service.0["spec"]["selector"]});
        let pods: Vec<_> = world
            .pods()
            .filter(|pod| pod.namespace() == service.namespace() && selects(&selector, pod.labels()))
            .collect();
        if pods.is_empty() || selector["matchLabels"].is_null() {
            findings.push(format!("{service}: its selector picks no pod"));
        }
        for port in service.list("/spec/ports") {
            let target = match &port["targetPort"] {
                Value::Null => &port["port"],
                target => target,
            };
            for pod in pods.iter().filter(|pod| pod.port(target).is_none()) {
                findings.push(format!("{service}: {} has no port {target}", pod.owner));
            }
        }
        if !matches!(service.text("/spec/type"), "" | "ClusterIP") {
            findings.push(format!("{service}: is open to the outside past the edge"));
        }
    }
    findings
}

/// What is scaled by itself keeps no number of its own, which each `apply` would bring back.
pub(super) fn autoscalers_scale_something_that_leaves_it_to_them(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for scaler in world.of_kind("HorizontalPodAutoscaler") {
        let (kind, name) = (
            scaler.text("/spec/scaleTargetRef/kind"),
            scaler.text("/spec/scaleTargetRef/name"),
        );
        match world.find(kind, scaler.namespace(), name) {
            None => findings.push(format!("{scaler}: there is no {kind} {name}")),
            Some(target) if !target.0["spec"]["replicas"].is_null() => {
                findings.push(format!("{target}: has `replicas`, and an autoscaler"));
            }
            Some(_) => {}
        }
        let number = |key: &str| scaler.0["spec"][key].as_u64().unwrap_or(1);
        if number("minReplicas") > number("maxReplicas") {
            findings.push(format!("{scaler}: minReplicas is above maxReplicas"));
        }
    }
    findings
}

/// The fewest pods that a workload has.
fn fewest(world: &World<'_>, kind: &str, namespace: &str, name: &str) -> u64 {
    let scaler = world.of_kind("HorizontalPodAutoscaler").find(|scaler| {
        scaler.namespace() == namespace
            && scaler.text("/spec/scaleTargetRef/kind") == kind
            && scaler.text("/spec/scaleTargetRef/name") == name
    });
    let number = match scaler {
        Some(scaler) => scaler.0.pointer("/spec/minReplicas"),
        None => world
            .find(kind, namespace, name)
            .and_then(|target| target.0.pointer("/spec/replicas")),
    };
    number.and_then(Value::as_u64).unwrap_or(1)
}

/// One that allows nothing to be evicted holds up every node that is to be drained; and one that lets the only pod go
/// protects nothing.
pub(super) fn disruption_budgets_let_some_go_and_some_stay(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for budget in world.of_kind("PodDisruptionBudget") {
        let selector = &budget.0["spec"]["selector"];
        let pods = world.pods().filter(|pod| pod.namespace() == budget.namespace());
        let picked: Vec<_> = pods.filter(|pod| selects(selector, pod.labels())).collect();
        let [pod] = picked.as_slice() else {
            findings.push(format!("{budget}: picks the pods of {} workloads", picked.len()));
            continue;
        };
        let fewest = fewest(world, pod.owner.kind(), pod.namespace(), pod.owner.name());
        let spec = &budget.0["spec"];
        let goes = match (
            number(&spec["maxUnavailable"], fewest),
            number(&spec["minAvailable"], fewest),
        ) {
            (Some(goes), None) => goes,
            (None, Some(stays)) => fewest.saturating_sub(stays),
            _ => 0,
        };
        let made_small = world.purpose == Purpose::Tests && goes == fewest;
        if goes == 0 || goes >= fewest && !made_small {
            findings.push(format!("{budget}: {goes} of {fewest} pods may go at once"));
        }
    }
    findings
}

/// Of a number or a share, rounded up as Kubernetes does.
fn number(value: &Value, of: u64) -> Option<u64> {
    let share = |text: &str| Some((text.strip_suffix('%')?.parse::<u64>().ok()? * of).div_ceil(100));
    value.as_u64().or_else(|| value.as_str().and_then(share))
}

/// A folder of data under two pods of one Deployment at once is a broken one.
pub(super) fn who_keeps_data_is_never_there_twice(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut users: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for pod in world.pods() {
        for volume in list(pod.spec(), "/volumes") {
            let claim = text(&volume["persistentVolumeClaim"], "claimName");
            if claim.is_empty() {
                continue;
            }
            users
                .entry((pod.namespace(), claim))
                .or_default()
                .push(pod.owner.to_string());
            let spec = &pod.owner.0["spec"];
            let many = spec["replicas"].as_u64().unwrap_or(1) > 1;
            if pod.owner.kind() == "Deployment" && (many || spec["strategy"]["type"] != "Recreate") {
                findings.push(format!(
                    "{}: keeps data in {claim}; expected one pod and strategy Recreate",
                    pod.owner
                ));
            }
        }
    }
    let shared = users.into_iter().filter(|(_, users)| users.len() > 1);
    findings.extend(shared.map(|((_, claim), users)| format!("{claim}: is used by {}", users.join(" and "))));
    findings
}
