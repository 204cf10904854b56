//! The services' log lines.

use crate::Json;

/// The lines of a log that are JSON objects, and those that are not. What has no end yet is still being written.
pub fn parse(log: &str) -> (Vec<Json>, Vec<String>) {
    let (mut lines, mut others) = (Vec::new(), Vec::new());
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    for line in whole.lines().filter(|line| !line.is_empty()) {
        match serde_json::from_str::<Json>(line) {
            Ok(value) if value.is_object() => lines.push(value),
            _ => others.push(line.to_owned()),
        }
    }
    (lines, others)
}
