//! One request is found in traces, logs and metrics.

use crate::stack::Stack;

/// Sends it.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    stack.rest.get("/api/v1/contexts").await?.expect(200)?;
    Ok(())
}
