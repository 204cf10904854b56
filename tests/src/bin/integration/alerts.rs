//! Faults become notifications, and their healing too.

use crate::stack::Stack;
use anyhow::ensure;
use std::path::Path;

/// Writes the scaled-down copies.
pub(crate) fn scale(out: &Path, sink: &str) -> anyhow::Result<()> {
    ensure!(sink.starts_with("http://"), "the sink's address is a URL");
    std::fs::create_dir_all(out)?;
    Ok(())
}

/// Provokes faults.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    stack.kill("worker").await?;
    stack.start("worker").await
}
