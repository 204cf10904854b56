//! What the outside world sees: `/api` and `/mcp`.

use crate::{
    objects::{Object, list, text},
    world::World,
};
use serde_json::Value;

/// Path and the Service that serves it.
const OPEN: [(&str, &str); 2] = [("/api", "rest-api"), ("/mcp", "mcp-server")];

/// A backend of a route: a Service's name and port.
struct Backend<'a> {
    object: &'a Object,
    /// The path and how it is compared.
    path: (&'a str, &'a str),
    service: &'a str,
    port: &'a Value,
}

pub(super) fn only_api_and_mcp_are_open_to_the_outside(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for backend in ingresses(world).chain(routes(world)) {
        let (path, way) = backend.path;
        let known = OPEN.iter().any(|(open, service)| {
            let below = path
                .strip_prefix(open)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            below && *service == backend.service
        });
        // Any other way to compare is the controller's own, and may take the path for a pattern.
        if !known || path.contains("..") || !matches!(way, "Prefix" | "PathPrefix" | "Exact") {
            findings.push(format!(
                "{}: opens {way} `{path}` of {}",
                backend.object, backend.service
            ));
        }
    }
    for ingress in world.of_kind("Ingress") {
        if !ingress.0["spec"]["defaultBackend"].is_null() {
            findings.push(format!("{ingress}: opens everything by its defaultBackend"));
        }
        for (key, _) in crate::objects::entries(&ingress.0, "/metadata/annotations") {
            if ["use-regex", "rewrite-target", "snippet", "app-root"]
                .iter()
                .any(|part| key.contains(part))
            {
                findings.push(format!("{ingress}: {key} leads past the paths that it names"));
            }
        }
    }
    for route in world.of_kind("HTTPRoute") {
        for filter in route
            .list("/spec/rules")
            .iter()
            .flat_map(|rule| list(rule, "/filters"))
        {
            if text(filter, "type") == "URLRewrite" {
                findings.push(format!("{route}: leads past the paths that it names"));
            }
        }
    }
    findings
}

pub(super) fn what_is_behind_the_edge_exists(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for Backend {
        object,
        service,
        port,
        ..
    } in ingresses(world).chain(routes(world))
    {
        let found = world.find("Service", object.namespace(), service);
        let has_port = found.is_some_and(|service| {
            service.list("/spec/ports").iter().any(|declared| {
                declared["port"] == *port
                    || declared["port"] == port["number"]
                    || !port["name"].is_null() && declared["name"] == port["name"]
            })
        });
        if !has_port {
            findings.push(format!(
                "{object}: there is no Service {service} with port {port}"
            ));
        }
    }
    for route in world.of_kind("HTTPRoute") {
        for parent in route.list("/spec/parentRefs") {
            let namespace = parent["namespace"].as_str().unwrap_or(route.namespace());
            // One in a namespace of its own is not ours.
            if world.find("Namespace", "", namespace).is_none() {
                continue;
            }
            let gateway = world.find("Gateway", namespace, text(parent, "name"));
            let section = &parent["sectionName"];
            let mut listeners = gateway
                .into_iter()
                .flat_map(|gateway| gateway.list("/spec/listeners"));
            if !listeners.any(|listener| section.is_null() || listener["name"] == *section) {
                findings.push(format!("{route}: hangs on no Gateway that is there"));
            }
        }
    }
    findings
}

pub(super) fn the_edge_is_encrypted(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for ingress in world.of_kind("Ingress") {
        let covered: Vec<&Value> = ingress
            .list("/spec/tls")
            .iter()
            .flat_map(|tls| list(tls, "/hosts"))
            .collect();
        for rule in ingress.list("/spec/rules") {
            if !covered.contains(&&rule["host"]) {
                findings.push(format!("{ingress}: {} has no certificate", rule["host"]));
            }
        }
    }
    for gateway in world.of_kind("Gateway") {
        for listener in gateway.list("/spec/listeners") {
            let plain =
                text(listener, "protocol") != "HTTPS" || list(listener, "/tls/certificateRefs").is_empty();
            // One in plain text may be there to lead to the other.
            let redirects_alone = world.of_kind("HTTPRoute").filter(|route| {
                route.list("/spec/parentRefs").iter().any(|parent| {
                    parent["sectionName"].is_null() || parent["sectionName"] == listener["name"]
                })
            });
            let mut rules = redirects_alone.flat_map(|route| route.list("/spec/rules"));
            if plain && rules.any(|rule| !list(rule, "/backendRefs").is_empty()) {
                findings.push(format!("{gateway}: listener {} is plain text", listener["name"]));
            }
        }
    }
    findings
}

fn ingresses<'a>(world: &'a World<'_>) -> impl Iterator<Item = Backend<'a>> {
    world.of_kind("Ingress").flat_map(|object| {
        let rules = object.list("/spec/rules").iter();
        rules
            .flat_map(|rule| list(rule, "/http/paths"))
            .map(move |path| Backend {
                object,
                path: (text(path, "path"), text(path, "pathType")),
                service: text(&path["backend"]["service"], "name"),
                port: &path["backend"]["service"]["port"],
            })
    })
}

/// A rule without matches takes every path.
fn routes<'a>(world: &'a World<'_>) -> impl Iterator<Item = Backend<'a>> {
    world.of_kind("HTTPRoute").flat_map(|object| {
        object.list("/spec/rules").iter().flat_map(move |rule| {
            let matches = list(rule, "/matches").iter();
            let mut paths: Vec<_> = matches
                .map(|found| (text(&found["path"], "value"), text(&found["path"], "type")))
                .collect();
            if paths.is_empty() {
                paths.push(("/", "PathPrefix"));
            }
            list(rule, "/backendRefs").iter().flat_map(move |backend| {
                let of = move |path| Backend {
                    object,
                    path,
                    service: text(backend, "name"),
                    port: &backend["port"],
                };
                paths.clone().into_iter().map(of).collect::<Vec<_>>()
            })
        })
    })
}
