//! `cargo xtask doctor`: a running installation checked from end to end, with a remedy for each thing that is wrong.
//!
//! Each file is one part: it asks, judges the answer, and tells the [`Report`]. Judging is apart from asking, so that
//! tests judge answers that nobody had to provoke.

mod alerts;
mod ask;
mod clock;
mod mcp;
mod metrics;
mod places;
mod probe;
mod prometheus;
mod report;
mod route;
mod services;

use crate::{
    process::{Told, exit_code},
    workspace::Workspace,
};
use ask::Client;
use places::{Places, Wanted};
use report::Report;
use std::path::PathBuf;

/// Checks a running installation from end to end, and says what is wrong and what to do about it.
///
/// In order: the services, the API key and MCP; one request, followed into Jaeger and Loki; Prometheus' targets, rules
/// and data; whom an alert would reach; the clocks. A check that needs what another one missed is left out and says so.
///
/// Without options it looks at what `cargo xtask dev` or `cargo xtask stack up` started, by the file that these wrote.
/// An option wins over the environment, and that over the file. A part that nobody named is looked for at its usual
/// port on the same host, and left out where nothing listens. It changes nothing: it reads, and makes two requests that
/// are traced and logged.
///
/// Ends with 0 when nothing is wrong (warnings are told), with 1 when something is, with 2 when it could not look.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Take addresses and keys from this file, as `cargo xtask stack up` and `dev` write it
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Print the findings as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let report = match examine(args) {
        Ok(report) => report,
        Err(error) => {
            exit_code(Err(error));
            return Err(Told(2).into());
        }
    };
    report.finish();
    if report.is_well() {
        return Ok(());
    }
    Err(Told(1).into())
}

fn examine(args: &Args) -> anyhow::Result<Report> {
    let workspace = Workspace::find()?;
    let shipped = prometheus::shipped(&workspace.root.join("alerts"))?;
    let places = Places::find(&workspace, &args.wanted, args.env_file.as_deref())?;
    let mut report = Report::new(args.json);
    report.begin(&places.told, places.project.as_deref());
    let doctor = Doctor {
        places: &places,
        client: Client::new(),
    };

    report.group("services");
    let services = services::check(&doctor, &mut report);
    report.group("one request");
    let probe = probe::check(&doctor, &mut report, &services);
    report.group("Prometheus");
    let prometheus = prometheus::check(&doctor, &mut report, &shipped);
    report.group("alerts");
    alerts::check(&doctor, &mut report, &shipped, prometheus);
    report.group("clocks");
    clock::check(&doctor, &mut report, &services, probe.as_ref(), prometheus);
    Ok(report)
}

/// What every check has at hand.
struct Doctor<'a> {
    places: &'a Places,
    client: Client,
}

#[cfg(test)]
mod tests {
    use crate::workspace::Workspace;
    use std::{collections::BTreeSet, fs};

    #[test]
    fn every_page_that_a_remedy_names_is_there() -> anyhow::Result<()> {
        let root = Workspace::find()?.root;
        let mut named = BTreeSet::new();
        for file in fs::read_dir(root.join("xtask/src/doctor"))? {
            let path = file?.path();
            let text = if path.is_file() {
                fs::read_to_string(path)?
            } else {
                String::new()
            };
            for part in text.split("docs/").skip(1) {
                let end = part.find(".md").unwrap_or(0);
                named.insert(part[..end].to_owned());
            }
        }
        named.retain(|name| !name.is_empty() && !name.contains([' ', '{', '"', '\\']));
        assert!(named.len() > 10, "{named:?}");
        for name in named {
            assert!(root.join(format!("docs/{name}.md")).is_file(), "docs/{name}.md");
        }
        Ok(())
    }
}
