//! Whether all that was started works: what the containers' own checks say, and what can only be asked from outside.

use super::{
    compose::{Compose, Container},
    docker::{self, docker},
};
use crate::{http, images, process::Told};
use serde_json::Value;
use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(240);
/// A container that has stopped is started anew; when it has not come to anything after this, it will not.
const BROKEN: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_secs(1);

/// A service that is not healthy yet, and why.
struct Pending {
    service: String,
    why: String,
    /// Its container does not run.
    broken: bool,
}

/// Waits until all services are healthy, saying what is waited for.
///
/// # Errors
/// When it takes too long, or a container does not stay up; what is known of each was printed.
pub(super) fn wait(compose: &Compose, services: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut broken_since: HashMap<String, Instant> = HashMap::new();
    let mut told = String::new();
    loop {
        let pending = pending(compose, services)?;
        if pending.is_empty() {
            println!(
                "All {} services are healthy, after {:.0} s.",
                services.len(),
                started.elapsed().as_secs_f32()
            );
            return Ok(());
        }
        let line = summary(&pending);
        if line != told {
            println!("Waiting for {line}");
            told = line;
        }
        broken_since.retain(|service, _| pending.iter().any(|p| p.broken && p.service == *service));
        for one in pending.iter().filter(|one| one.broken) {
            broken_since
                .entry(one.service.clone())
                .or_insert_with(Instant::now);
        }
        let hopeless = broken_since.values().any(|since| since.elapsed() > BROKEN);
        if hopeless || started.elapsed() > PATIENCE {
            report(compose, &pending);
            eprintln!(
                "error: not healthy after {:.0} s: {told}. The containers are left as they are: cargo xtask stack \
                 logs SERVICE shows more, cargo xtask stack down removes them",
                started.elapsed().as_secs_f32()
            );
            return Err(Told(1).into());
        }
        thread::sleep(POLL);
    }
}

/// Says what is wrong with each service that is not healthy; true when there is none.
pub(super) fn explain(compose: &Compose, services: &[String]) -> bool {
    match pending(compose, services) {
        Ok(pending) => {
            report(compose, &pending);
            pending.is_empty()
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            false
        }
    }
}

fn report(compose: &Compose, pending: &[Pending]) {
    for Pending { service, why, .. } in pending {
        let log = compose.tail(service);
        if log.is_empty() {
            println!("✗ {service}: {why}");
            continue;
        }
        println!("\n✗ {service}: {why}; its log ends:");
        for line in log.lines() {
            println!("    {line}");
        }
    }
}

fn summary(pending: &[Pending]) -> String {
    let each: Vec<String> = pending
        .iter()
        .map(|one| format!("{} ({})", one.service, one.why))
        .collect();
    each.join(", ")
}

fn pending(compose: &Compose, services: &[String]) -> anyhow::Result<Vec<Pending>> {
    let containers = compose.containers()?;
    let mut found = Vec::new();
    for service in services {
        let mut own = containers
            .iter()
            .filter(|container| container.service == *service)
            .peekable();
        let (why, broken) = if own.peek().is_none() {
            (Some("not started".to_owned()), true)
        } else {
            let why = own.find_map(|container| Some((unwell(container)?, container.state != "running")));
            why.map_or((None, false), |(why, broken)| (Some(why), broken))
        };
        if let Some(why) = why.or_else(|| from_outside(compose, service)) {
            found.push(Pending {
                service: service.clone(),
                why,
                broken,
            });
        }
    }
    if found.is_empty() {
        found.extend(not_scraped(compose, services));
    }
    Ok(found)
}

/// What is wrong with a container, by Docker's knowledge.
fn unwell(container: &Container) -> Option<String> {
    match (container.state.as_str(), container.health.as_str()) {
        ("running", "" | "healthy") => None,
        ("running", "unhealthy") => Some(match last_check(&container.name) {
            Some(answer) => format!("unhealthy: {answer}"),
            None => "unhealthy".to_owned(),
        }),
        ("running", health) => Some(health.to_owned()),
        (state, _) => Some(state.to_owned()),
    }
}

/// The last line that a container's health check printed.
fn last_check(container: &str) -> Option<String> {
    let format = "{{with .State.Health}}{{range .Log}}{{.Output}}\n{{end}}{{end}}";
    let printed = docker::said(&mut docker(&["inspect", "--format", format, container])).ok()?;
    let line = printed.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.chars().take(200).collect())
}

/// What is wrong with those that have nothing in their image to ask them with.
fn from_outside(compose: &Compose, service: &str) -> Option<String> {
    let (port, path) = match service {
        "otel-collector" => ("COLLECTOR_HEALTH_PORT", "/"),
        "jaeger" => ("JAEGER_PORT", "/api/services"),
        _ => return None,
    };
    match http::status(&format!("{}{path}", compose.variables.url(port)), None) {
        Some(200) => None,
        Some(status) => Some(format!("answers {status}")),
        None => Some("does not answer yet".to_owned()),
    }
}

/// What Prometheus does not reach, of what was started: for the exporters, the only check there is.
fn not_scraped(compose: &Compose, services: &[String]) -> Option<Pending> {
    if !services.iter().any(|service| service == "prometheus") {
        return None;
    }
    let targets = http::json(&format!(
        "{}/api/v1/targets?state=active",
        compose.variables.url("PROMETHEUS_PORT")
    ));
    let Some(targets) = targets
        .as_ref()
        .and_then(|all| all["data"]["activeTargets"].as_array())
    else {
        return Some(Pending {
            service: "prometheus".to_owned(),
            why: "does not list its targets".to_owned(),
            broken: false,
        });
    };
    services.iter().find_map(|service| {
        // The exporters' jobs bear the names of what they look at.
        let job = service.strip_suffix("-exporter").unwrap_or(service);
        let mut own = targets
            .iter()
            .filter(|target| target["labels"]["job"].as_str() == Some(job))
            .peekable();
        // Found by their names in DNS, which takes a moment.
        let unknown = images::SERVICES.contains(&job) && own.peek().is_none();
        let down = match own.find(|target| target["health"] != "up") {
            Some(down) => down,
            None if unknown => &Value::Null,
            None => return None,
        };
        let error = down["lastError"].as_str().filter(|error| !error.is_empty());
        Some(Pending {
            service: service.clone(),
            why: error.map_or_else(
                || "not scraped yet".to_owned(),
                |error| format!("Prometheus cannot scrape it: {error}"),
            ),
            broken: false,
        })
    })
}
