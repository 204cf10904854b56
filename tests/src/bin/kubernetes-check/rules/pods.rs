//! What a pod may do, and what it must say about itself.

use crate::{
    objects::{Pod, entries, list, port_of, text},
    world::World,
};
use serde_json::{Value, json};

/// Who may do what the rules below forbid, and why: workload, rule, reason.
const EXCEPTIONS: [(&str, &str, &str); 2] = [
    (
        "devops-mcp-logs/otel-collector-logs",
        "a numbered user that is not root",
        "the files in /var/log/pods are readable by root alone",
    ),
    (
        "devops-mcp-logs/otel-collector-logs",
        "nothing of its node",
        "the files are in a folder of the node",
    ),
];

/// Who asks the API server something.
const WITH_TOKEN: [&str; 1] = ["devops-mcp-monitoring/prometheus"];

fn workload(pod: &Pod<'_>) -> String {
    format!("{}/{}", pod.namespace(), pod.owner.name())
}

/// A finding for each container that lacks `what`.
fn each(world: &World<'_>, what: &str, holds: impl Fn(&Pod<'_>, &Value) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods() {
        let name = workload(&pod);
        if EXCEPTIONS
            .iter()
            .any(|(who, rule, _)| *who == name && *rule == what)
        {
            continue;
        }
        let broken = pod.all_containers().filter(|container| !holds(&pod, container));
        findings.extend(broken.map(|container| {
            format!(
                "{}: container {}: expected {what}",
                pod.owner,
                text(container, "name")
            )
        }));
    }
    findings
}

/// A key of the security context: the container's own, else the pod's.
fn security<'a>(pod: &Pod<'a>, container: &'a Value, key: &str) -> &'a Value {
    match &container["securityContext"][key] {
        Value::Null => &pod.spec()["securityContext"][key],
        own => own,
    }
}

pub(super) fn runs_as_a_numbered_user_that_is_not_root(world: &World<'_>) -> Vec<String> {
    each(world, "a numbered user that is not root", |pod, container| {
        security(pod, container, "runAsNonRoot") == true
            && security(pod, container, "runAsUser").as_u64().unwrap_or_default() > 0
    })
}

pub(super) fn gains_no_privileges(world: &World<'_>) -> Vec<String> {
    each(
        world,
        "allowPrivilegeEscalation: false, and not privileged",
        |_, container| {
            let context = &container["securityContext"];
            context["allowPrivilegeEscalation"] == false && context["privileged"] != true
        },
    )
}

pub(super) fn has_no_capabilities(world: &World<'_>) -> Vec<String> {
    each(
        world,
        "all capabilities dropped and none added",
        |_, container| {
            let capabilities = &container["securityContext"]["capabilities"];
            capabilities["drop"] == json!(["ALL"]) && list(capabilities, "/add").is_empty()
        },
    )
}

pub(super) fn writes_to_volumes_only(world: &World<'_>) -> Vec<String> {
    each(world, "a read-only root file system", |_, container| {
        container["securityContext"]["readOnlyRootFilesystem"] == true
    })
}

pub(super) fn has_its_system_calls_filtered(world: &World<'_>) -> Vec<String> {
    each(world, "seccompProfile RuntimeDefault", |pod, container| {
        security(pod, container, "seccompProfile")["type"] == "RuntimeDefault"
    })
}

pub(super) fn shares_nothing_with_its_node(world: &World<'_>) -> Vec<String> {
    each(world, "nothing of its node", |pod, container| {
        let spec = pod.spec();
        let shared = ["hostNetwork", "hostPID", "hostIPC"]
            .iter()
            .any(|key| spec[key] == true);
        let folders = list(spec, "/volumes")
            .iter()
            .any(|volume| !volume["hostPath"].is_null());
        let ports = list(container, "/ports")
            .iter()
            .any(|port| !port["hostPort"].is_null());
        !shared && !folders && !ports
    })
}

pub(super) fn asks_for_cpu_and_memory_and_has_a_limit_of_memory(world: &World<'_>) -> Vec<String> {
    each(
        world,
        "requests of cpu and memory, and a limit of memory",
        |_, container| {
            let resources = &container["resources"];
            !resources["requests"]["cpu"].is_null()
                && !resources["requests"]["memory"].is_null()
                && !resources["limits"]["memory"].is_null()
        },
    )
}

/// Where it serves. A probe that names a port which the container does not have never succeeds.
pub(super) fn is_probed_on_ports_that_it_has(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods().filter(Pod::is_long_lived) {
        for container in pod.containers() {
            let place = format!("{}: container {}", pod.owner, text(container, "name"));
            for probe in ["livenessProbe", "readinessProbe"] {
                if container[probe].is_null() {
                    findings.push(format!("{place}: no {probe}"));
                }
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                for (way, action) in entries(container, &format!("/{probe}")) {
                    let port = &action["port"];
                    let asks = matches!(way.as_str(), "httpGet" | "tcpSocket" | "grpc");
                    if asks && port_of(container, port).is_none() {
                        findings.push(format!("{place}: {probe} asks port {port}, which it has not"));
                    }
                }
            }
        }
    }
    findings
}

/// Kubernetes would set `WORKER_PORT` and the like in it.
pub(super) fn gets_no_variables_of_services(world: &World<'_>) -> Vec<String> {
    let pods = world
        .pods()
        .filter(|pod| pod.spec()["enableServiceLinks"] != false);
    pods.map(|pod| format!("{}: expected enableServiceLinks: false", pod.owner))
        .collect()
}

pub(super) fn has_a_service_account_and_no_token_of_it(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods() {
        let name = text(pod.spec(), "serviceAccountName");
        let account = world.find("ServiceAccount", pod.namespace(), name);
        // Without a name it is the namespace's `default`, which mounts its token.
        if account.is_none() && !name.is_empty() {
            findings.push(format!("{}: there is no ServiceAccount `{name}`", pod.owner));
            continue;
        }
        let own = &pod.spec()["automountServiceAccountToken"];
        let mounts = match (own, account) {
            (Value::Null, Some(account)) => &account.0["automountServiceAccountToken"],
            (own, _) => own,
        };
        if *mounts != json!(false) && !WITH_TOKEN.contains(&workload(&pod).as_str()) {
            findings.push(format!(
                "{}: expected automountServiceAccountToken: false",
                pod.owner
            ));
        }
    }
    findings
}

/// Two names for the same port, or one for two, and the one that is meant is anybody's guess.
pub(super) fn names_each_port_once(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods() {
        let ports = pod
            .containers()
            .iter()
            .flat_map(|container| list(container, "/ports"));
        let mut seen: Vec<&Value> = Vec::new();
        for port in ports {
            let twin = |other: &&&Value| {
                other["name"] == port["name"]
                    || other["containerPort"] == port["containerPort"]
                        && other["protocol"] == port["protocol"]
            };
            if port["name"].is_null() {
                findings.push(format!(
                    "{}: port {} has no name",
                    pod.owner, port["containerPort"]
                ));
            } else if seen.iter().any(|other| twin(&other)) {
                findings.push(format!("{}: port {} is there twice", pod.owner, port["name"]));
            }
            seen.push(port);
        }
    }
    findings
}
