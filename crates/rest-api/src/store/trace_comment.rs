//! The trace in hand as a comment behind a statement, in the format of sqlcommenter
//! (<https://google.github.io/sqlcommenter/spec/>), so that a slow statement in the database's log leads to its trace.

use std::fmt::Write as _;
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

/// Keys in order, as the format wants it; there is nothing to escape in either value. In one line, so that the comment
/// stands in that line of the log that tells the duration; which a comment to the end of the line would not survive.
fn with(operation: &str, text: &str, traceparent: &str) -> String {
    let mut all = String::with_capacity(text.len() + 128);
    if text.contains("--") {
        all.push_str(text);
    } else {
        for line in text.lines() {
            all.push_str(line.trim());
            all.push(' ');
        }
        all.truncate(all.trim_end().len());
    }
    // Writing to a string cannot fail.
    let _ = write!(all, " /*db_operation='{operation}',traceparent='{traceparent}'*/");
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_is_as_sqlcommenter_reads_it() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            with("contexts.list", "SELECT\n      1", parent),
            "SELECT 1 /*db_operation='contexts.list',\
             traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/"
        );
        assert!(with("a.get", "SELECT 1 -- one\n, 2", parent).starts_with("SELECT 1 -- one\n, 2 /*"));
        assert_eq!(append("contexts.list", "SELECT 1"), None, "outside of a request");
    }
}
