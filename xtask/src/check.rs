//! `cargo xtask check`: everything that can be told without running the product.

mod alertmanager;
mod architecture;
mod dashboards;
mod dependencies;
mod graph;
mod kubernetes;
mod licence;
mod metrics;
mod rules;
mod source;

use crate::{
    generate,
    process::{self, Told},
    workspace::Workspace,
};
use anyhow::bail;
use std::time::Instant;

/// Formatting, lints, API docs, the architecture's invariants, dependencies and their licences.
///
/// All steps are run; what failed is listed at the end.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these steps
    #[arg(long, value_name = "STEP", value_delimiter = ',', value_parser = step_names())]
    only: Vec<String>,
}

/// How a step ended.
pub(crate) enum Outcome {
    Passed,
    /// Passed as far as could be looked; says what could not.
    Partly(String),
    /// Says what is wrong, a finding a line.
    Failed(String),
}

impl Outcome {
    /// Passed when there is no finding.
    pub(crate) fn from_findings(findings: &[String]) -> Self {
        if findings.is_empty() {
            Self::Passed
        } else {
            Self::Failed(findings.join("\n"))
        }
    }
}

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Workspace) -> anyhow::Result<Outcome>,
}

/// Cheapest first.
const STEPS: &[Step] = &[
    Step {
        name: "format",
        about: "rustfmt",
        run: format,
    },
    Step {
        name: "source",
        about: "sizes of files, no leftovers, metric names",
        run: source::check,
    },
    Step {
        name: "architecture",
        about: "who depends on whom",
        run: architecture::check,
    },
    Step {
        name: "duplicates",
        about: "one version of a dependency",
        run: dependencies::duplicates,
    },
    Step {
        name: "licences",
        about: "licences of dependencies",
        run: dependencies::licences,
    },
    Step {
        name: "advisories",
        about: "known vulnerabilities",
        run: dependencies::advisories,
    },
    Step {
        name: "rules",
        about: "Prometheus's configuration, alerts and their tests",
        run: rules::check,
    },
    Step {
        name: "alertmanager",
        about: "routes and messages of alerts",
        run: alertmanager::check,
    },
    Step {
        name: "dashboards",
        about: "Grafana's types, titles, units, links",
        run: dashboards::check,
    },
    Step {
        name: "generated",
        about: "the SLOs' rules and dashboard, Kubernetes' monitoring",
        run: generate::check,
    },
    Step {
        name: "clippy",
        about: "lints, as errors",
        run: clippy,
    },
    Step {
        name: "api-docs",
        about: "rustdoc, warnings as errors",
        run: api_docs,
    },
    Step {
        name: "metrics-doc",
        about: "docs/METRICS.md is up to date",
        run: metrics_doc,
    },
    Step {
        name: "monitoring",
        about: "queries of dashboards, rules, SLOs and runbooks",
        run: monitoring,
    },
    Step {
        name: "kubernetes",
        about: "manifests render, are valid and keep the house's rules",
        run: kubernetes::check,
    },
];

fn step_names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    let (mut failed, mut partly) = (Vec::new(), Vec::new());
    for Step { name, about, run } in STEPS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        println!("── {name}: {about}");
        let started = Instant::now();
        let outcome = run(&workspace).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let word = match outcome {
            Outcome::Passed => "ok",
            Outcome::Partly(what) => {
                partly.push(format!("{name}: {what}"));
                "ok in part"
            }
            Outcome::Failed(what) => {
                println!("{what}");
                failed.push(format!("{name}\n   {}", what.replace('\n', "\n   ")));
                "FAILED"
            }
        };
        println!("   {word}, {:.1} s", started.elapsed().as_secs_f32());
    }
    println!();
    for what in partly {
        println!("Not looked at: {what}");
    }
    if failed.is_empty() {
        println!("All checks passed.");
        return Ok(());
    }
    println!("Failed:");
    for what in &failed {
        println!("✗ {what}");
    }
    Err(Told(1).into())
}

fn format(workspace: &Workspace) -> anyhow::Result<Outcome> {
    cargo(
        workspace,
        &["fmt", "--all", "--check"],
        "`cargo fmt --all` formats it",
    )
}

fn clippy(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ];
    cargo(workspace, &args, "see above")
}

fn api_docs(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = workspace.cargo();
    command.args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--keep-going",
    ]);
    // Nobody publishes these crates: the docs are for who reads the code, private items included.
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    finish(&mut command, "see above")
}

fn metrics_doc(workspace: &Workspace) -> anyhow::Result<Outcome> {
    workspace.build(false)?;
    let mut command = std::process::Command::new(workspace.bin(false, "metrics-doc")?);
    command.arg("--check").current_dir(&workspace.root);
    finish(
        &mut command,
        "`cargo run --package e2e --bin metrics-doc` writes it anew",
    )
}

fn monitoring(workspace: &Workspace) -> anyhow::Result<Outcome> {
    workspace.build(false)?;
    let mut command = std::process::Command::new(workspace.bin(false, "stack-check")?);
    command.current_dir(&workspace.root);
    finish(&mut command, "see above")
}

fn cargo(workspace: &Workspace, args: &[&str], remedy: &str) -> anyhow::Result<Outcome> {
    finish(workspace.cargo().args(args), remedy)
}

fn finish(command: &mut std::process::Command, remedy: &str) -> anyhow::Result<Outcome> {
    let status = process::run_to_end(command)?;
    Ok(if status.success() {
        Outcome::Passed
    } else {
        Outcome::Failed(remedy.to_owned())
    })
}

/// The output of a cargo command that must succeed.
fn output(workspace: &Workspace, args: &[&str]) -> anyhow::Result<String> {
    let output = workspace.cargo().args(args).output()?;
    if !output.status.success() {
        bail!(
            "cargo {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
