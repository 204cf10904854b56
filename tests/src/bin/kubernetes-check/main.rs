//! Holds what `deploy/kubernetes` renders to against the schemas that the API server publishes, and against the house's
//! rules.

mod network;
mod objects;
mod render;
mod rules;
mod schema;
mod sources;
mod world;

use clap::{Parser, Subcommand};
use objects::Object;
use render::Renderings;
use schema::Schemas;
use sources::Sources;
use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};
use world::{Purpose, World};

/// Renders every overlay, component and folder of manifests with kubectl, and checks the objects.
#[derive(Parser)]
struct Args {
    /// The clone
    #[arg(long, global = true, default_value_os_t = e2e::observability::root())]
    root: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the schemas anew: of Kubernetes's kinds from the cluster that kubectl is set up for, of others from files
    Schemas {
        /// CustomResourceDefinitions of prometheus-operator, cert-manager and the Gateway API
        crds: Vec<String>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Some(Command::Schemas { crds }) => schema::vendor::write(&args.root, crds).map(|()| Vec::new()),
        None => check(&args.root),
    };
    e2e::ended_with(result)
}

/// What is wrong, a line each.
fn check(root: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let (sources, renderings) = (Sources::read(root)?, render::all(root)?);
    let mut schemas = Schemas::read(root)?;
    let (mut findings, mut seen) = (Vec::new(), BTreeSet::new());
    for (name, objects) in &renderings {
        println!("{name}: {} objects", objects.len());
        // What several share is looked at once.
        for object in objects.iter().filter(|object| seen.insert(object.0.to_string())) {
            let found = schemas.check(object)?;
            findings.extend(found.into_iter().map(|finding| format!("{name}: {finding}")));
        }
    }
    let mut known = BTreeSet::new();
    for world in worlds(&renderings, &sources) {
        // What several have in common is told of the first.
        let found = rules::check(&world).into_iter();
        let new = found.filter(|finding| known.insert(finding.clone()));
        findings.extend(new.map(|finding| format!("{}: {finding}", world.name)));
    }
    Ok(findings)
}

/// Each way to deploy the services, and to watch them.
fn worlds<'a>(renderings: &Renderings, sources: &'a Sources) -> Vec<World<'a>> {
    let monitoring = "deploy/kubernetes/monitoring";
    let operator = "deploy/kubernetes/monitoring-operator";
    let production = "deploy/kubernetes/overlays/production";
    let tests = "tests/kubernetes";
    let world = |name: &str, purpose, more: &[&str]| {
        let rest = more.iter().filter_map(|more| renderings.get(*more)).flatten();
        let objects: Vec<Object> = renderings[name].iter().chain(rest).cloned().collect();
        World {
            name: name.to_owned(),
            purpose,
            objects,
            sources,
        }
    };
    let mut worlds = Vec::new();
    for name in renderings.keys().map(String::as_str) {
        if name.starts_with(monitoring) || name.starts_with(tests) && name != tests {
            continue;
        }
        let purpose = match name {
            _ if name == tests => Purpose::Tests,
            _ if name.contains("overlays") => Purpose::Whole,
            _ => Purpose::Part,
        };
        let beside = format!("{name}/monitoring");
        worlds.push(world(name, purpose, &[monitoring, &beside]));
        if name == production {
            let mut watched = world(name, purpose, &[monitoring, operator]);
            watched.name.push_str(" with monitoring-operator");
            worlds.push(watched);
        }
    }
    worlds
}
