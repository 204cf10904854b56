//! Writes `docs/METRICS.md` from the declarations in the code, or with `--check` compares them.

use anyhow::{Context, bail};
use clap::Parser;
use e2e::observability::known;
use std::{fs, path::PathBuf};
use telemetry::metrics::catalogue;

const HEAD: &str = "\
# Metrics

Every metric that the services expose at `/metrics`, as declared in the code. This page is generated:
`cargo run --package e2e --bin metrics-doc` writes it, `cargo xtask check` compares it.

Every series carries the label `service`. Durations are in seconds, sizes in bytes. Labels whose values a client can
choose (`tenant_id`, `tool`, `type`) are capped: beyond the limit (`monitoring.metrics`), values become `other`.

";

/// Writes docs/METRICS.md from the declarations in the code.
#[derive(Parser)]
struct Args {
    /// Only compare, and fail when the page is not what would be written
    #[arg(long)]
    check: bool,
    /// The page
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md"))]
    page: PathBuf,
}

fn page() -> String {
    format!("{HEAD}{}", catalogue::markdown(&known::declarations()))
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (path, wanted) = (&args.page, page());
    if args.check {
        let found = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        if found != wanted {
            bail!("{} is not what the code declares", path.display());
        }
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, wanted).with_context(|| format!("writing {}", path.display()))
}
