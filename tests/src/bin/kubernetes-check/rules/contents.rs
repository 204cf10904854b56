//! What is told twice, here and elsewhere in the clone.

use crate::{
    objects::{entries, list, text},
    world::World,
};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// Images that only tests use.
const OF_TESTS: &str = "devops-mcp/tests:";

pub(super) fn dashboards_and_rules_are_those_of_the_clone(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for map in world.of_kind("ConfigMap") {
        for (name, text) in entries(&map.0, "/data") {
            let ours = name.ends_with(".json") || name.ends_with(".rules.yml");
            match world.sources.files.get(name) {
                Some(source) if text == source.as_str() => *copies.entry(name).or_default() += 1,
                Some(_) => findings.push(format!("{map}: {name} differs from the clone's")),
                None if ours => findings.push(format!("{map}: the clone has no {name}")),
                None => {}
            }
        }
    }
    for rule in world.of_kind("PrometheusRule") {
        let same = world.sources.files.iter().find(|(name, text)| {
            name.ends_with(".rules.yml")
                && yaml_serde::from_str(text).is_ok_and(|groups: Value| groups == rule.0["spec"])
        });
        match same {
            Some((name, _)) => *copies.entry(name).or_default() += 1,
            None => findings.push(format!("{rule}: its groups are those of no file in alerts/")),
        }
    }
    // The services alone bring none of them.
    if !copies.is_empty() {
        for name in world.sources.files.keys() {
            let number = copies.get(name.as_str()).copied().unwrap_or_default();
            if number == 0 {
                findings.push(format!("{name}: is brought by nobody"));
            }
        }
    }
    findings
}

pub(super) fn images_are_those_of_compose(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for pod in world.pods() {
        for container in pod.all_containers() {
            let image = text(container, "image");
            if !world.sources.images.contains(image) && !image.starts_with(OF_TESTS) {
                findings.push(format!(
                    "{}: deploy/.env does not name the image {image}",
                    pod.owner
                ));
            }
        }
    }
    findings
}

/// Addresses in settings and configuration files that can only mean a Service.
pub(super) fn addresses_are_those_of_services(world: &World<'_>) -> Vec<String> {
    let address = Regex::new(r#"(?:https?://|endpoint: ["']?)([a-z0-9-]+(?:\.[a-z0-9-]+)*):([0-9]+)"#);
    let address = address.expect("a constant pattern");
    let mut findings = Vec::new();
    // What an environment variable replaces is checked where that is set.
    let default = Regex::new(r"\$\{env:[A-Z_]+:-[^}]*\}").expect("a constant pattern");
    let mut check = |place: String, namespace: &str, text: &str| {
        let text = &default.replace_all(text, "");
        for found in address.captures_iter(text) {
            let (host, port) = (&found[1], &found[2]);
            let mut labels = host.split('.');
            let name = labels.next().unwrap_or_default();
            let namespace = labels.next().unwrap_or(namespace);
            let outside = world.find("Namespace", "", namespace).is_none();
            if outside || name == "localhost" || name.parse::<u32>().is_ok() {
                continue;
            }
            let service = world.find("Service", namespace, name);
            let mut ports = service
                .into_iter()
                .flat_map(|service| service.list("/spec/ports"));
            if !ports.any(|declared| declared["port"].as_u64() == port.parse().ok()) {
                findings.push(format!("{place}: there is no Service for {host}:{port}"));
            }
        }
    };
    for map in world.of_kind("ConfigMap") {
        for (name, text) in entries(&map.0, "/data") {
            if !world.sources.files.contains_key(name) {
                check(
                    format!("{map}: {name}"),
                    map.namespace(),
                    text.as_str().unwrap_or_default(),
                );
            }
        }
    }
    for pod in world.pods() {
        for container in pod.all_containers() {
            let variables = list(container, "/env").iter().map(|variable| &variable["value"]);
            for text in variables
                .chain(list(container, "/args"))
                .filter_map(Value::as_str)
            {
                check(pod.owner.to_string(), pod.namespace(), text);
            }
        }
    }
    findings
}

/// Names under which a service's certificate is shown, by cert-manager.
pub(super) fn certificates_carry_the_names_that_are_called(world: &World<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for certificate in world.of_kind("Certificate") {
        let secret = certificate.text("/spec/secretName");
        let Some(service) = secret
            .strip_suffix("-tls")
            .filter(|name| world.app(certificate.namespace(), name).is_some())
        else {
            continue;
        };
        let grpc = format!("{service}-grpc");
        let below = format!("{grpc}.{}.svc", certificate.namespace());
        for name in [
            service.to_owned(),
            grpc,
            below.clone(),
            format!("{below}.cluster.local"),
        ] {
            if !certificate
                .list("/spec/dnsNames")
                .contains(&Value::from(name.as_str()))
            {
                findings.push(format!("{certificate}: does not carry the name {name}"));
            }
        }
        for usage in ["server auth", "client auth"] {
            if !certificate.list("/spec/usages").contains(&usage.into()) {
                findings.push(format!("{certificate}: is not for {usage}"));
            }
        }
        let issuer = (
            certificate.text("/spec/issuerRef/kind"),
            certificate.text("/spec/issuerRef/name"),
        );
        if issuer.0 != "ClusterIssuer" && world.find("Issuer", certificate.namespace(), issuer.1).is_none() {
            findings.push(format!("{certificate}: there is no Issuer {}", issuer.1));
        }
    }
    findings
}
