//! From nothing to everything ready.

use crate::setup::Setup;

/// Installs everything as a person would.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<()> {
    let _ = setup;
    Ok(())
}

/// Removes everything that a run has made.
pub(crate) async fn remove() -> anyhow::Result<()> {
    Ok(())
}
