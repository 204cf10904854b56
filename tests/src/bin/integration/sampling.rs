//! Production's tail sampling stores what a person will look for, and of the rest a share.
//!
//! The Collector must run with `production.yaml`.

use crate::{
    request::{Tool, is_traced},
    stack::Stack,
};
use anyhow::ensure;
use e2e::{raw::Raw, trace::Trace, wait_for};

/// How many calls of no interest are made. At 10 % in a hundred, that half of them are kept is out of the question.
const PLAIN: usize = 40;

/// Calls that are debugged, slow, failed or none of that, and what Jaeger has of them.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let quick = Tool::register(stack).await?;
    let slow = Tool::register_at(stack, "/slow/1500").await?;
    let broken = Tool::register_at(stack, "/status/500").await?;
    let result = look(stack, &quick, &slow, &broken).await;
    for tool in [quick, slow, broken] {
        tool.remove().await?;
    }
    result
}

async fn look(stack: &Stack, quick: &Tool<'_>, slow: &Tool<'_>, broken: &Tool<'_>) -> anyhow::Result<()> {
    let raw = Raw::new(&stack.at.mcp_url, Some(&stack.at.api_key));
    let send = async |tool: &Tool<'_>, debug| {
        let trace = Trace::start();
        let id = format!("integration-{}", trace.span_id);
        tool.send(&raw, &trace, &id, debug).await.map(|_| trace.trace_id)
    };
    let mut plain = Vec::new();
    for _ in 0..PLAIN {
        plain.push(send(quick, false).await?);
    }
    let wanted = [
        ("debugged", send(quick, true).await?),
        ("slow", send(slow, false).await?),
        ("failed", send(broken, false).await?),
    ];
    for (what, trace) in &wanted {
        wait_for(&format!("the {what} trace {trace} in Jaeger"), async || {
            is_traced(stack, trace).await.then_some(())
        })
        .await?;
        println!("   kept     the {what} one");
    }
    // They were sent before: what is to be kept of them has been decided, too.
    let mut kept = 0;
    for trace in &plain {
        kept += usize::from(is_traced(stack, trace).await);
    }
    ensure!(
        kept <= PLAIN / 2,
        "{kept} of {PLAIN} plain traces were kept: nothing is sampled"
    );
    println!("   kept     {kept} of {PLAIN} plain ones");
    Ok(())
}
