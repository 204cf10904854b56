//! The trace in hand as a comment behind a statement, in the format of sqlcommenter
//! (<https://google.github.io/sqlcommenter/spec/>), so that a slow statement in the database's log leads to its trace.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether comments are made in this process, which has one database.
static ON: AtomicBool = AtomicBool::new(true);

/// Says whether comments are made.
pub(crate) fn switch(on: bool) {
    ON.store(on, Relaxed);
}

/// `text` with its operation and the span in hand; `None` where there is no span that is recorded: that statement stays as
/// it is, and prepared.
pub(crate) fn append(operation: &str, text: &str) -> Option<String> {
    if !telemetry::context::is_sampled() || !ON.load(Relaxed) {
        return None;
    }
    Some(with(operation, text, &telemetry::context::current_traceparent()?))
}

/// Keys in order, as the format wants it; there is nothing to escape in either value.
fn with(operation: &str, text: &str, traceparent: &str) -> String {
    format!("{text} /*db_operation='{operation}',traceparent='{traceparent}'*/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_as_sqlcommenter_reads_it() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            with("contexts.list", "SELECT 1", parent),
            "SELECT 1 /*db_operation='contexts.list',\
             traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/"
        );
        assert_eq!(append("contexts.list", "SELECT 1"), None, "outside of a request");
    }
}
