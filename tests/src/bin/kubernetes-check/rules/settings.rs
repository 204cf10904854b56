//! What the services are told: read by the services' own types, as they would in their pods.

use crate::{
    objects::{Pod, entries, list, text},
    rules::files::Files,
    world::{Purpose, World},
};
use chassis::{
    Common, Configuration,
    settings::{Settings, from_variables},
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

const PREFIX: &str = "DEVOPS_MCP__";
/// Containers that are services.
const SERVICES: [&str; 3] = ["rest-api", "mcp-server", "worker"];

/// What the rules ask of a service's settings.
struct Told {
    common: Common,
    /// The other service that it calls.
    peer: String,
    /// The `Host` headers that it serves, where it looks at them.
    hosts: Option<Vec<String>>,
}

/// A container of a service, what it is told, or why that cannot be.
struct Service<'a> {
    pod: Pod<'a>,
    container: &'a Value,
    told: Result<Told, String>,
}

fn services<'a>(world: &'a World<'_>) -> Vec<Service<'a>> {
    let mut found = Vec::new();
    for pod in world.pods().filter(Pod::is_long_lived) {
        for container in pod.containers() {
            let name = text(container, "name");
            if SERVICES.contains(&name) {
                let told = variables(world, &pod, container).and_then(|variables| {
                    let files = Files::of(world, &pod, container).map_err(|error| error.to_string())?;
                    load(name, files.in_place(variables)?.into_iter())
                });
                found.push(Service { pod, container, told });
            }
        }
    }
    found
}

fn load(service: &str, variables: impl Iterator<Item = (String, String)>) -> Result<Told, String> {
    fn read<S: Settings>(
        variables: impl Iterator<Item = (String, String)>,
        rest: impl FnOnce(S) -> (String, Option<Vec<String>>),
    ) -> Result<Told, String> {
        let Configuration { common, service } =
            from_variables::<S>(variables).map_err(|error| error.to_string())?;
        let (peer, hosts) = rest(service);
        Ok(Told { common, peer, hosts })
    }
    match service {
        "rest-api" => read(variables, |settings: rest_api::Settings| {
            (settings.worker.url, None)
        }),
        "mcp-server" => read(variables, |settings: mcp_server::Settings| {
            (settings.rest_api.url, Some(settings.allowed_hosts))
        }),
        _ => read(variables, |settings: worker::Settings| {
            (settings.rest_api.url, None)
        }),
    }
}

/// The variables of a container; those of `env` win.
fn variables(
    world: &World<'_>,
    pod: &Pod<'_>,
    container: &Value,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for source in list(container, "/envFrom") {
        let name = text(&source["configMapRef"], "name");
        let map = world.find("ConfigMap", pod.namespace(), name);
        let map = map.ok_or_else(|| format!("there is no ConfigMap `{name}`"))?;
        let prefix = text(source, "prefix");
        let data = entries(&map.0, "/data");
        variables.extend(data.map(|(key, value)| {
            (
                format!("{prefix}{key}"),
                value.as_str().unwrap_or_default().to_owned(),
            )
        }));
    }
    let own = list(container, "/env").iter();
    variables.extend(own.map(|variable| {
        (
            text(variable, "name").to_owned(),
            text(variable, "value").to_owned(),
        )
    }));
    Ok(variables)
}

pub(super) fn services_understand_what_they_are_told(world: &World<'_>) -> Vec<String> {
    let services = services(world);
    let errors = services.iter().filter_map(|service| {
        let error = service.told.as_ref().err()?;
        Some(format!("{}: {error}", service.pod.owner))
    });
    errors.collect()
}

/// A setting in another container's environment is a setting that does nothing.
pub(super) fn settings_reach_a_service(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for map in world.of_kind("ConfigMap") {
        let settings = entries(&map.0, "/data").any(|(key, _)| key.starts_with(PREFIX));
        let read = world
            .pods()
            .filter(|pod| pod.namespace() == map.namespace())
            .any(|pod| {
                pod.all_containers().any(|container| {
                    list(container, "/envFrom")
                        .iter()
                        .any(|source| source["configMapRef"]["name"] == map.name())
                })
            });
        if settings && !read {
            findings.push(format!("{map}: its settings reach no service"));
        }
    }
    findings
}

/// Else the kubelet kills what is still at work.
pub(super) fn pods_are_given_the_time_that_they_need_to_end(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for Service { pod, container, told } in services(world) {
        let Ok(told) = told else { continue };
        let sleep = container
            .pointer("/lifecycle/preStop/sleep/seconds")
            .and_then(Value::as_u64);
        let Some(sleep) = sleep else {
            findings.push(format!(
                "{}: no preStop: it ends before everybody knows",
                pod.owner
            ));
            continue;
        };
        let shutdown = &told.common.shutdown;
        let needed = Duration::from_secs(sleep) + shutdown.drain + shutdown.timeout;
        let grace = pod.spec()["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        if Duration::from_secs(grace) <= needed {
            findings.push(format!(
                "{}: {grace} s to end; preStop, drain and timeout take {} s",
                pod.owner,
                needed.as_secs()
            ));
        }
    }
    findings
}

/// Each declared port is one that the service listens at, on all of the pod's addresses.
pub(super) fn services_listen_at_the_ports_that_they_declare(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for Service { pod, container, told } in services(world) {
        let Ok(told) = told else { continue };
        let listens = [
            ("http", Some(told.common.http.address)),
            ("grpc", told.common.grpc.address),
        ];
        for (name, address) in listens {
            let declared = crate::objects::port_of(container, &name.into());
            let open = address.filter(|address| address.ip().is_unspecified());
            if declared != open.map(|address| u64::from(address.port())) {
                findings.push(format!(
                    "{}: port {name} is {declared:?}, it listens at {address:?}",
                    pod.owner
                ));
            }
        }
    }
    findings
}

/// A server that does not let its client in, or one that speaks TLS to one that does not.
pub(super) fn services_let_each_other_in(world: &World<'_>) -> Vec<String> {
    let services = services(world);
    let mut findings = Vec::new();
    for client in &services {
        let name = text(client.container, "name");
        let Ok(told) = &client.told else { continue };
        let server = services.iter().find(|server| {
            let other = text(server.container, "name");
            told.peer.contains(&format!("://{other}-grpc"))
                && server.pod.namespace() == client.pod.namespace()
        });
        let Some(server) = server else {
            findings.push(format!("{}: nobody serves {}", client.pod.owner, told.peer));
            continue;
        };
        let Ok(other) = &server.told else { continue };
        let (own, tls) = (&told.common.grpc.tls, &other.common.grpc.tls);
        if own.files().is_some() != tls.files().is_some() {
            findings.push(format!(
                "{}: one of it and {} speaks TLS",
                client.pod.owner, server.pod.owner
            ));
        }
        let allowed = &tls.allowed_clients;
        if tls.files().is_some() && !allowed.iter().any(|allowed| allowed == name) {
            findings.push(format!("{}: does not allow {name}", server.pod.owner));
        }
    }
    findings
}

/// The `Host` headers that come through the edge are served.
pub(super) fn the_name_of_the_edge_is_served(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let ingresses = world.of_kind("Ingress").flat_map(|ingress| {
        let rules = ingress.list("/spec/rules").iter();
        rules.map(move |rule| (ingress, &rule["host"], rule.to_string()))
    });
    let routes = world.of_kind("HTTPRoute").flat_map(|route| {
        let hosts = route.list("/spec/hostnames").iter();
        hosts.map(move |host| (route, host, route.0["spec"]["rules"].to_string()))
    });
    let edges: Vec<_> = ingresses.chain(routes).collect();
    // The name is told by whoever completes it, in both places.
    if world.purpose != Purpose::Whole {
        return findings;
    }
    for service in services(world) {
        let Ok(Told {
            hosts: Some(hosts), ..
        }) = &service.told
        else {
            continue;
        };
        let name = format!("\"name\":\"{}\"", text(service.container, "name"));
        for (edge, host, rules) in &edges {
            let host = host.as_str().unwrap_or_default();
            let served = hosts.is_empty() || hosts.iter().any(|served| served == host || served == "*");
            if rules.contains(&name) && !served {
                findings.push(format!("{edge}: {} does not serve `{host}`", service.pod.owner));
            }
        }
    }
    findings
}
